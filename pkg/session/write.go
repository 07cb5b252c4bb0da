package session

import "context"

type writeKey struct{}

// OnWrite returns a context with which Save calls report with the number of bytes that it sends out
// of the process, if it sends any. report is called on Save's goroutine.
func OnWrite(ctx context.Context, report func(bytes int)) context.Context {
	return context.WithValue(ctx, writeKey{}, report)
}

// CountWrite is for stores: it reports bytes to the function of OnWrite.
func CountWrite(ctx context.Context, bytes int) {
	if report, ok := ctx.Value(writeKey{}).(func(int)); ok && bytes > 0 {
		report(bytes)
	}
}
