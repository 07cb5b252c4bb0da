// Package queue provides a bounded queue for one reader.
package queue

import (
	"context"
	"sync"
)

// A Queue is a first-in, first-out queue with any number of writers and one reader. The reader
// takes all queued items together and returns them from there, so most reads take no lock.
//
// Put itself has no limit: writers check Full or Space first. They must check and Put under one lock of
// their own, so that the queue cannot fill up in between.
type Queue[T any] struct {
	maxItems, maxBytes int

	ready chan struct{} // holds a token if an item was put since the reader last looked

	mu      sync.Mutex
	waiting []T
	bytes   int
	space   chan struct{} // closed when there is space again; nil unless awaited

	taken []T // the reader's
	next  int
}

// New returns a queue that is full at maxItems items or maxBytes bytes. The last item may exceed
// the bytes.
func New[T any](maxItems, maxBytes int) *Queue[T] {
	return &Queue[T]{maxItems: maxItems, maxBytes: maxBytes, ready: make(chan struct{}, 1)}
}

// Full returns nil if there is space for one more of any size. Otherwise it
// returns a channel that is closed when there is.
func (q *Queue[T]) Full() <-chan struct{} {
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

// Space returns how many items and bytes are left until the queue is full.
func (q *Queue[T]) Space() (items, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.maxItems - len(q.waiting), q.maxBytes - q.bytes
}

// Put appends an item with a size.
func (q *Queue[T]) Put(v T, bytes int) {
	q.mu.Lock()
	q.waiting = append(q.waiting, v)
	q.bytes += bytes
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// Take returns the next item. It waits for one until ctx or the owner's context ends. After that it
// returns no item, but the cause.
func (q *Queue[T]) Take(ctx, owner context.Context) (T, error) {
	var none T
	for {
		switch {
		case owner.Err() != nil:
			return none, context.Cause(owner)
		case ctx.Err() != nil:
			return none, context.Cause(ctx)
		}
		if q.next < len(q.taken) || q.refill() {
			v := q.taken[q.next]
			q.taken[q.next] = none
			q.next++
			return v, nil
		}
		select {
		case <-owner.Done():
		case <-ctx.Done():
		case <-q.ready:
		}
	}
}

// refill takes all queued items, and reports whether there were any.
func (q *Queue[T]) refill() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken, q.waiting = q.waiting, q.taken[:0]
	q.next = 0
	q.emptied()
	return len(q.taken) > 0
}

// Discard drops all queued items.
func (q *Queue[T]) Discard() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = nil
	q.emptied()
}

func (q *Queue[T]) emptied() {
	q.bytes = 0
	if q.space != nil {
		close(q.space)
		q.space = nil
	}
}
