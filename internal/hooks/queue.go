package hooks

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Limits of the questions of a node in addition to those in flight.
const (
	waitingPerSlot = 8        // questions that wait, for each that may be in flight
	maxBytes       = 16 << 20 // of all questions, in flight or not
)

var (
	errFull  = errors.New("too many questions wait")
	errBytes = errors.New("questions exceed their memory limit")
)

// A queue admits questions, first come first served.
type queue struct {
	slots chan struct{} // senders wait in the order of their arrival

	mu    sync.Mutex
	bytes int
	all   map[*place]struct{} // in flight or waiting
	own   map[string]int      // places by owner, except of ""
}

// A place is one question in a queue.
type place struct {
	since   time.Time
	owner   string
	bytes   int
	running bool
}

func newQueue(concurrency int) *queue {
	return &queue{slots: make(chan struct{}, concurrency), all: make(map[*place]struct{}), own: make(map[string]int)}
}

// places returns the maximum number of questions, in flight or waiting.
func (q *queue) places() int { return (1 + waitingPerSlot) * cap(q.slots) }

// enter waits for the turn of a question of some bytes. It fails immediately if too many wait, and
// otherwise when ctx ends. An owner, such as an address, may have as many places as are left for others;
// "" may have all. leave ends the turn.
func (q *queue) enter(ctx context.Context, owner string, bytes int) (leave func(), err error) {
	p := &place{since: time.Now(), owner: owner, bytes: bytes}
	q.mu.Lock()
	switch left := q.places() - len(q.all); {
	case left == 0, owner != "" && q.own[owner] >= left:
		err = errFull
	case q.bytes > 0 && q.bytes+bytes > maxBytes: // a single one is allowed whatever its size
		err = errBytes
	default:
		q.all[p] = struct{}{}
		q.bytes += bytes
		if owner != "" {
			q.own[owner]++
		}
	}
	q.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case q.slots <- struct{}{}:
	case <-ctx.Done():
		q.remove(p)
		return nil, context.Cause(ctx)
	}
	q.mu.Lock()
	p.running = true
	q.mu.Unlock()
	return func() {
		<-q.slots
		q.remove(p)
	}, nil
}

func (q *queue) remove(p *place) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.all, p)
	q.bytes -= p.bytes
	if q.own[p.owner]--; q.own[p.owner] <= 0 {
		delete(q.own, p.owner)
	}
}

// queueStats is a snapshot of a queue.
type queueStats struct {
	inFlight, waiting, bytes int
	oldest                   time.Duration // age
}

func (q *queue) stats() (s queueStats) {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.all {
		if p.running {
			s.inFlight++
		} else {
			s.waiting++
		}
		s.oldest = max(s.oldest, now.Sub(p.since))
	}
	s.bytes = q.bytes
	return s
}
