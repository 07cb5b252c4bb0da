package adapter

import (
	"context"
	"sync"
)

// A queue is a first-in, first-out queue with any number of writers and one
// reader. The reader takes all that waits at once and hands it out from there,
// so most reads touch no lock.
//
// put itself knows no bound: writers look at full first. They must do both
// under a lock of their own, so that what was not full still is not.
type queue[T any] struct {
	maxItems, maxBytes int

	ready chan struct{} // holds a token if something was put since the reader looked

	mu      sync.Mutex
	waiting []T
	bytes   int
	space   chan struct{} // closed when there is space again; nil if nobody waits for it

	taken []T // the reader's
	next  int
}

func newQueue[T any](maxItems, maxBytes int) *queue[T] {
	return &queue[T]{maxItems: maxItems, maxBytes: maxBytes, ready: make(chan struct{}, 1)}
}

// full returns nil if there is space for one more of any size. Otherwise it
// returns a channel that is closed when there is.
func (q *queue[T]) full() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) < q.maxItems && q.bytes < q.maxBytes {
		return nil
	}
	if q.space == nil {
		q.space = make(chan struct{})
	}
	return q.space
}

func (q *queue[T]) put(v T, bytes int) {
	q.mu.Lock()
	q.waiting = append(q.waiting, v)
	q.bytes += bytes
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take returns the next item. It waits for one until ctx ends or done is closed,
// and takes none once they have.
func (q *queue[T]) take(ctx context.Context, done <-chan struct{}) (T, error) {
	var none T
	for {
		select {
		case <-done:
			return none, ErrClosed
		case <-ctx.Done():
			return none, context.Cause(ctx)
		default:
		}
		if q.next < len(q.taken) || q.refill() {
			v := q.taken[q.next]
			q.taken[q.next] = none
			q.next++
			return v, nil
		}
		select {
		case <-done:
		case <-ctx.Done():
		case <-q.ready:
		}
	}
}

// refill takes what waits, and reports whether that was anything.
func (q *queue[T]) refill() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken, q.waiting = q.waiting, q.taken[:0]
	q.next = 0
	q.emptied()
	return len(q.taken) > 0
}

// discard drops what waits.
func (q *queue[T]) discard() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = nil
	q.emptied()
}

func (q *queue[T]) emptied() {
	q.bytes = 0
	if q.space != nil {
		close(q.space)
		q.space = nil
	}
}
