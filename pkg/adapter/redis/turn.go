package redis

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A turn is a replay's permission to hold many events: of an adapter's replays one at a time has
// it. A catch-up has a nil turn, and does not wait.
type turn struct {
	of chan struct{} // holds a token while a replay has its turn

	mu    sync.Mutex
	has   bool
	ended bool
	read  int // entries, in all partitions

	lists atomic.Int64 // bytes of lists, in all partitions
}

type turnKey struct{}

// in returns the context of the replay's reads.
func (t *turn) in(ctx context.Context) context.Context { return context.WithValue(ctx, turnKey{}, t) }

func turnOf(ctx context.Context) *turn { return ctx.Value(turnKey{}).(*turn) }

// count adds entries that the replay has read, and returns their number.
func (t *turn) count(entries int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.read += entries
	return t.read
}

// entries returns the number of entries that the replay has read.
func (t *turn) entries() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.read
}

// taken reports whether the turn has been taken.
func (t *turn) taken() bool {
	if t == nil {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.has
}

// take waits for the turn, unless a context ends. The partitions of a replay share it.
func (t *turn) take(ctx, adapters context.Context) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.has:
		return nil
	case t.ended: // the caller no longer waits for the replay
		return context.Canceled
	}
	select {
	case t.of <- struct{}{}:
		t.has = true
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))
	case <-adapters.Done():
		return context.Cause(adapters)
	}
}

// end releases the turn.
func (t *turn) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.has {
		<-t.of
	}
	t.has, t.ended = false, true
}
