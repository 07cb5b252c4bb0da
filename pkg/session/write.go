package session

import "context"

type writeKey struct{}

// OnWrite returns a context with which Save reports how many bytes it sends outside of the process,
// if it sends any. The function is called on Save's goroutine.
func OnWrite(ctx context.Context, report func(bytes int)) context.Context {
	return context.WithValue(ctx, writeKey{}, report)
}

// CountWrite is for stores: it reports bytes to the function of OnWrite.
func CountWrite(ctx context.Context, bytes int) {
	if report, ok := ctx.Value(writeKey{}).(func(int)); ok && bytes > 0 {
		report(bytes)
	}
}
