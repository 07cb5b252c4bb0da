package adapter

import "context"

type readKey struct{}

// OnRead returns a context with which Replay and Fetch report how many bytes they have read
// outside of the process: for one caller if it has read alone, and otherwise its share. They
// may report several times, also after they have returned, and not at all if they read
// nothing. The function must not block, and is called concurrently.
func OnRead(ctx context.Context, report func(bytes int)) context.Context {
	return context.WithValue(ctx, readKey{}, report)
}

// CountRead is for implementations: it reports bytes to the function of OnRead.
func CountRead(ctx context.Context, bytes int) {
	if report, ok := ctx.Value(readKey{}).(func(int)); ok && bytes > 0 {
		report(bytes)
	}
}
