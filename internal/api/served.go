package api

import "context"

// A request is what a call has while it is served. One goroutine uses it.
type request struct {
	caller  *Caller  // nil if refused is not
	refused *failure // why its key was refused
	held    []func() // release namespaces
}

type requestKey struct{}

// requestOf returns the request of a context.
func requestOf(ctx context.Context) *request { return ctx.Value(requestKey{}).(*request) }

// callerOf returns the caller of a request that was not refused.
func callerOf(ctx context.Context) *Caller { return requestOf(ctx).caller }

// end releases what the request holds. Ending it again has no effect.
func (r *request) end() {
	for _, release := range r.held {
		release()
	}
	r.held = nil
}
