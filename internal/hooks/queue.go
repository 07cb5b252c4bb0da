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
	own   map[string]share    // by owner, except of ""
}

// A share is what one owner has of a queue.
type share struct{ places, bytes int }

// A place is one question in a queue.
type place struct {
	since   time.Time
	owner   string
	bytes   int
	running bool
}

func newQueue(concurrency int) *queue {
	return &queue{slots: make(chan struct{}, concurrency), all: make(map[*place]struct{}), own: make(map[string]share)}
}

// places returns the maximum number of questions, in flight or waiting.
func (q *queue) places() int { return (1 + waitingPerSlot) * cap(q.slots) }

// enter waits for the turn of a question of some bytes. It fails immediately if too many wait, and
// otherwise when ctx ends. An owner, such as an address, may have as many places and bytes as are left for
// others; "" may have all.
func (q *queue) enter(ctx context.Context, owner string, bytes int) (t *turn, err error) {
	p := &place{since: time.Now(), owner: owner, bytes: bytes}
	q.mu.Lock()
	own := q.own[owner]
	switch left := q.places() - len(q.all); {
	case left == 0, own.places > 0 && own.places >= left:
		err = errFull
	case q.bytes > 0 && (q.bytes+bytes > maxBytes || own.bytes >= maxBytes-q.bytes): // a single one is allowed whatever its size
		err = errBytes
	default:
		q.all[p] = struct{}{}
		q.bytes += bytes
		if owner != "" {
			q.own[owner] = share{own.places + 1, own.bytes + bytes}
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
	q.run(p, true)
	return &turn{q, p, true}, nil
}

func (q *queue) run(p *place, running bool) {
	q.mu.Lock()
	p.running = running
	q.mu.Unlock()
}

// A turn is that of a question. It is not safe for concurrent use.
type turn struct {
	queue *queue
	place *place
	held  bool
}

// pause lets others have the turn. The question keeps its place.
func (t *turn) pause() {
	if t.held {
		t.held = false
		t.queue.run(t.place, false)
		<-t.queue.slots
	}
}

// resume waits for the next turn, and reports whether there is one before ctx ends.
func (t *turn) resume(ctx context.Context) bool {
	select {
	case t.queue.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	t.held = true
	t.queue.run(t.place, true)
	return true
}

func (t *turn) leave() {
	t.pause()
	t.queue.remove(t.place)
}

func (q *queue) remove(p *place) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.all, p)
	q.bytes -= p.bytes
	switch own := q.own[p.owner]; {
	case own.places > 1:
		q.own[p.owner] = share{own.places - 1, own.bytes - p.bytes}
	default:
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
