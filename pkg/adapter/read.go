package adapter

import "context"

type readKey struct{}

// OnRead returns a context with which Replay and Fetch call report with the number of bytes that
// they have read from outside the process: all of them if the read was for this caller alone, and
// otherwise the caller's share. They may call report several times, also after they have returned,
// and do not call it if they have read nothing. report may be called concurrently and must not
// block.
func OnRead(ctx context.Context, report func(bytes int)) context.Context {
	return context.WithValue(ctx, readKey{}, report)
}

// CountRead reports bytes to the function of OnRead. It is for implementations of [Adapter], and
// for code that wraps one.
func CountRead(ctx context.Context, bytes int) {
	if report, ok := ctx.Value(readKey{}).(func(int)); ok && bytes > 0 {
		report(bytes)
	}
}
