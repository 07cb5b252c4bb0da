package api

import "context"

// A request is what a call has while it is served. One goroutine uses it.
type request struct {
	held []func() // release namespaces
}

type requestKey struct{}

// newRequest returns a context with a request, which ServeHTTP ends.
func newRequest(ctx context.Context) (context.Context, *request) {
	r := new(request)
	return context.WithValue(ctx, requestKey{}, r), r
}

// requestOf returns the request of a context.
func requestOf(ctx context.Context) *request { return ctx.Value(requestKey{}).(*request) }

// end releases what the request holds. Ending it again has no effect.
func (r *request) end() {
	for _, release := range r.held {
		release()
	}
	r.held = nil
}
