package adapter

import "context"

type readKey struct{}

// OnRead returns a context with which Replay and Fetch report how many bytes they have read outside
// of the process: all of them for a caller that has read alone, and otherwise its share. They may
// report several times, also after they have returned, and not at all if they read nothing. The
// function is called concurrently and must not block.
func OnRead(ctx context.Context, report func(bytes int)) context.Context {
	return context.WithValue(ctx, readKey{}, report)
}

// CountRead reports bytes to the function of OnRead. It is for implementations, and for code that
// counts what it reads through one.
func CountRead(ctx context.Context, bytes int) {
	if report, ok := ctx.Value(readKey{}).(func(int)); ok && bytes > 0 {
		report(bytes)
	}
}
