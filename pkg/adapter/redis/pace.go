package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// leastPage is the smallest page of a pace, in bytes.
const leastPage = 16 << 10

// A pace adapts the reads of backlogs of a partition to the line, so that each call ends within its
// deadline, whatever else is read. After a call that timed out the next ones are smaller, and
// whole reads take turns with those of other partitions that are slow, because those that share a
// slow line would all end late. Calls grow again while they are fast.
type pace struct {
	timeout  time.Duration // of a call
	turns    chan struct{} // of all partitions: holds a token while a slow one reads
	received atomic.Int64  // bytes, by all connections of the partition

	mu     sync.Mutex
	size   int       // of a page, in bytes; 0 if the line is not known to be slow
	slowed time.Time // when a call was last slow
}

// page returns the size, in bytes, up to which a call should read.
func (p *pace) page() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size > 0 && time.Since(p.slowed) > 10*p.timeout {
		p.size = 0
	}
	if p.size == 0 {
		return sharedBytes
	}
	return p.size
}

// A pacedRead is one read of backlogs, by several calls.
type pacedRead struct {
	*pace
	batch []*backlogRequest // for which it is
	turn  bool              // it has its turn
	until time.Time         // a catch-up keeps its turn until then
}

// end releases the turn.
func (r *pacedRead) end() {
	if r.turn {
		<-r.turns
		r.turn = false
	}
}

// call calls f with the size of a page, and again with smaller ones while the line does not carry
// that much in time. A call during which nothing has arrived did not fail because of its size.
func (r *pacedRead) call(ctx context.Context, f func(page int) error) error {
	for {
		page := r.page()
		if page < sharedBytes && !r.turn {
			asked := time.Now()
			select {
			case r.turns <- struct{}{}:
				r.turn = true
				r.until = time.Now().Add(min(time.Since(asked), r.timeout))
			case <-ctx.Done():
				return fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))
			}
			page = r.page()
		}
		if !awaited(r.batch) {
			return context.Canceled
		}
		began, before := time.Now(), r.received.Load()
		err := f(page)
		if r.batch[0].catchUp && time.Now().After(r.until) {
			r.end() // those that wait have a deadline, but they do not get more time than it does
		}
		if !r.note(page, int(r.received.Load()-before), time.Since(began), err) || ctx.Err() != nil {
			return err
		}
	}
}

// note adapts the pace to a call, and reports whether to repeat it.
func (p *pace) note(page, received int, took time.Duration, err error) (again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.size
	if now == 0 {
		now = sharedBytes
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		if received < leastPage/2 {
			return false
		}
		p.slowed = time.Now()
		if now == page { // otherwise a concurrent call has adapted it
			p.size = max(min(received/4, page/2), leastPage)
		}
		return page > leastPage
	case err != nil || p.size == 0:
	case 32*took > p.timeout:
		p.slowed = time.Now()
	case received >= min(page, readBytes)/2 && now == page:
		if p.size *= 8; p.size >= sharedBytes {
			p.size = 0
		}
	}
	return false
}
