// Package batch collects the requests of many callers, so that one goroutine executes together all
// requests that arrived while it executed the previous ones (group commit).
package batch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Options are the limits of a [Queue]. Zero fields mean no limit.
type Options struct {
	MaxItems int           // maximum number of pending requests
	MaxBytes int           // from this total size of pending requests on, the queue is full
	Patience time.Duration // maximum time that a caller waits for its answer
}

var (
	// ErrFull means that too many requests are pending. This one was not queued.
	ErrFull = errors.New("too many pending requests")
	// ErrLate means that the caller has waited for [Options].Patience.
	ErrLate = errors.New("no answer")

	errUnanswered = errors.New("batch: request not answered")
)

// A Queue holds requests until a goroutine in [Queue.Serve] takes them. V is the type of requests
// and A that of answers. All methods are safe for concurrent use.
type Queue[V, A any] struct {
	owner   context.Context
	options Options
	ready   chan struct{} // holds a token if requests may be pending
	timers  sync.Pool     // of stopped timers, because there is one for each waiting caller

	mu      sync.Mutex
	pending []*Request[V, A] // in the order of arrival
	removed int              // the number of pending requests that are no longer queued
	bytes   int              // the size of those that are queued
}

// New returns a queue whose requests are executed until owner ends.
func New[V, A any](owner context.Context, o Options) *Queue[V, A] {
	return &Queue[V, A]{owner: owner, options: o, ready: make(chan struct{}, 1)}
}

// Do queues a request and waits for its answer, like [Queue.Put] and [Request.Wait].
func (q *Queue[V, A]) Do(ctx context.Context, v V, size int) (A, error) {
	r, err := q.Put(ctx, v, size)
	if err != nil {
		var none A
		return none, err
	}
	return r.Wait()
}

// Put queues a request with a size in bytes. It never blocks. If it fails, nothing is queued: its
// error is [ErrFull] or the cause of the end of ctx or of the owner. The caller must call Wait.
func (q *Queue[V, A]) Put(ctx context.Context, v V, size int) (*Request[V, A], error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if q.owner.Err() != nil {
		return nil, context.Cause(q.owner)
	}
	r := &Request[V, A]{Value: v, Size: size, ctx: ctx, queue: q, queued: true, done: make(chan struct{})}
	q.mu.Lock()
	if items := len(q.pending) - q.removed; q.options.MaxItems > 0 && items >= q.options.MaxItems ||
		q.options.MaxBytes > 0 && q.bytes >= q.options.MaxBytes {
		q.mu.Unlock()
		return nil, ErrFull
	}
	q.pending = append(q.pending, r)
	q.bytes += size
	q.mu.Unlock()
	q.signal()
	return r, nil
}

// Pending returns the number of requests that are not taken yet, and their total size.
func (q *Queue[V, A]) Pending() (items, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.pending) - q.removed, q.bytes
}

// Serve calls execute with one batch of requests after another until the owner ends. A batch
// consists of the oldest requests: the first one, and those behind it for which fits returns true,
// where n is the number of requests before r in its batch. Nil means all. Fits must not use the
// queue, and execute must not change its slice. Requests that execute has not answered when it
// returns, or panics, fail.
//
// Several goroutines may serve one queue.
func (q *Queue[V, A]) Serve(fits func(n int, r *Request[V, A]) bool, execute func([]*Request[V, A])) {
	for q.owner.Err() == nil {
		if all := q.next(fits); len(all) > 0 {
			answer(all, execute)
			continue
		}
		select {
		case <-q.ready:
		case <-q.owner.Done():
		}
	}
}

func answer[V, A any](all []*Request[V, A], execute func([]*Request[V, A])) {
	defer func() {
		for _, r := range all {
			r.Fail(errUnanswered)
		}
	}()
	execute(all)
}

// next returns the requests of the next batch. Those whose callers no longer wait are dropped.
func (q *Queue[V, A]) next(fits func(n int, r *Request[V, A]) bool) (batch []*Request[V, A]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch = q.pending[:0]
	n := 0
	for _, r := range q.pending {
		if awaited := r.queued && r.ctx.Err() == nil; awaited {
			if fits != nil && !fits(len(batch), r) && len(batch) > 0 {
				break
			}
			batch = append(batch, r)
		}
		q.remove(r)
		q.removed--
		n++
	}
	if q.pending = q.pending[n:]; len(q.pending) == 0 {
		q.pending = nil
	} else {
		q.signal() // for another goroutine that serves
	}
	return slices.Clip(batch)
}

// remove removes a queued request. q.mu is held.
func (q *Queue[V, A]) remove(r *Request[V, A]) {
	if r.queued {
		r.queued = false
		q.removed++
		q.bytes -= r.Size
	}
}

// leave removes a request whose caller no longer waits.
func (q *Queue[V, A]) leave(r *Request[V, A]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !r.queued {
		return
	}
	q.remove(r)
	if 2*q.removed > len(q.pending) {
		q.pending = slices.DeleteFunc(q.pending, func(r *Request[V, A]) bool { return !r.queued })
		q.removed = 0
	}
}

// timer returns a timer, which is to be stopped and put back.
func (q *Queue[V, A]) timer(d time.Duration) *time.Timer {
	t, ok := q.timers.Get().(*time.Timer)
	if !ok {
		return time.NewTimer(d)
	}
	t.Reset(d)
	return t
}

func (q *Queue[V, A]) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}
