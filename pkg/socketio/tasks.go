package socketio

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// tasks are the goroutines that a server has started. Unlike with a [sync.WaitGroup] further ones
// may start at any time, also during the wait for the others: connections that outlive a Close
// whose context ended start some.
type tasks struct {
	running atomic.Int64 // and one more, until await
	once    sync.Once
	ended   chan struct{}
}

func (t *tasks) init() {
	t.running.Store(1)
	t.ended = make(chan struct{})
}

func (t *tasks) start(f func()) {
	t.running.Add(1)
	go func() { // ends with f
		defer t.done()
		deepen()
		f()
	}()
}

// deepen gives a goroutine a stack of 8 KiB, which connects need, and handlers that publish. If the
// stack grows when it is needed, the frames of all callers are moved, twice: that is a tenth of the CPU
// time of an event in a small room.
//
//go:noinline
func deepen() {
	var frame [4 << 10]byte
	runtime.KeepAlive(&frame)
}

func (t *tasks) done() {
	if t.running.Add(-1) == 0 {
		t.once.Do(func() { close(t.ended) })
	}
}

// waitFor waits until a channel is closed, or returns the cause of the end of ctx.
func waitFor(ctx context.Context, closed <-chan struct{}) error {
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// await returns a channel that is closed when no task runs. It must be called once.
func (t *tasks) await() <-chan struct{} {
	t.done()
	return t.ended
}
