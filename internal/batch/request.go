package batch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// A Request is a caller's request and its answer. The caller calls Wait, and the goroutine
// that has taken the request calls the other methods.
//
// A caller that stops waiting withdraws its request, unless the request has begun. So it knows
// whether the request may be executed nevertheless: see [Begun].
type Request[V, A any] struct {
	Value V
	Size  int

	ctx    context.Context // its end means that the caller no longer waits
	queue  *Queue[V, A]
	queued bool // counts in the queue, whose lock guards it
	state  atomic.Int32

	done     chan struct{} // closed when the following fields are set
	answered bool
	answer   A
	err      error
}

const (
	open      int32 = iota // neither of these
	begun                  // it may have been executed
	withdrawn              // it must no longer be executed
)

// Begin reports whether the request may be executed, and must be called before that: false means
// that the caller no longer waits.
func (r *Request[V, A]) Begin() bool {
	switch {
	case r.state.Load() == begun:
		return true
	case r.ctx.Err() != nil:
		r.Fail(context.Cause(r.ctx))
		return false
	}
	return r.state.CompareAndSwap(open, begun)
}

// Revert takes back a Begin, because the request has certainly not been executed.
func (r *Request[V, A]) Revert() { r.state.CompareAndSwap(begun, open) }

// Answer gives the caller its answer. Only the first call has an effect.
func (r *Request[V, A]) Answer(a A, err error) {
	if !r.answered {
		r.answered, r.answer, r.err = true, a, err
		close(r.done)
	}
}

// Fail answers with an error, which says whether the request has begun.
func (r *Request[V, A]) Fail(err error) {
	if r.answered {
		return
	}
	if r.state.Load() == begun {
		err = begunError{err}
	}
	var none A
	r.Answer(none, err)
}

// Begun reports whether the request with an error had begun, so that it may have been executed or
// may still be.
func Begun(err error) bool {
	var b begunError
	return errors.As(err, &b)
}

type begunError struct{ error }

func (e begunError) Unwrap() error { return e.error }

// Wait returns the answer. It returns earlier, with the cause, when the request's context ends or
// [Options].Patience is over, and when the owner ends before the request has begun.
func (r *Request[V, A]) Wait() (A, error) {
	var late <-chan time.Time
	if timeout := r.queue.options.Patience; timeout > 0 {
		timer := r.queue.timer(timeout)
		defer func() {
			timer.Stop()
			r.queue.timers.Put(timer)
		}()
		late = timer.C
	}
	ended := r.queue.owner.Done()
	for {
		select {
		case <-r.done:
			return r.answer, r.err
		case <-r.ctx.Done():
			return r.leave(context.Cause(r.ctx))
		case <-late:
			return r.leave(fmt.Errorf("%w within %v", ErrLate, r.queue.options.Patience))
		case <-ended:
			select {
			case <-r.done:
				return r.answer, r.err
			default:
			}
			if r.withdraw() { // an answer that arrives now belongs to a request that was not executed
				r.queue.leave(r)
				var none A
				return none, context.Cause(r.queue.owner)
			}
			ended = nil // it is being executed: its answer comes
		}
	}
}

// leave returns the result for a caller that stops waiting.
func (r *Request[V, A]) leave(cause error) (none A, err error) {
	r.queue.leave(r)
	select {
	case <-r.done:
		return r.answer, r.err
	default:
	}
	if !r.withdraw() {
		cause = begunError{cause}
	}
	return none, cause
}

// withdraw reports whether the request has not begun. Then it cannot begin any more.
func (r *Request[V, A]) withdraw() bool {
	return r.state.CompareAndSwap(open, withdrawn) || r.state.Load() == withdrawn
}
