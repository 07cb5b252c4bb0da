package engineio

import (
	"sync"
	"sync/atomic"
	"time"
)

// A wheel runs all timers of a server on one goroutine. Setting and stopping a timer costs a few
// pointer updates, whatever their number; they fire up to one tick late, and never early.
type wheel struct {
	tick  time.Duration
	epoch time.Time
	wake  chan struct{} // capacity 1: the wheel is no longer empty
	quit  chan struct{}
	ended chan struct{}

	past atomic.Int32 // ticks up to now or a little before, while a timer is set

	mu    sync.Mutex
	slots [wheelSlots]*timer // each the head of a list
	now   int64              // the last tick whose timers have fired
	count int
}

// ticks returns the number of ticks in d, rounded up.
func (w *wheel) ticks(d time.Duration) int32 { return int32((d + w.tick - 1) / w.tick) }

const wheelSlots = 512

// A timer calls fire on the wheel's goroutine, so fire must not block. A call may already be in
// flight when the timer is stopped or set again; fire detects this by the time that it is given.
// The zero timer with a fire is ready for use.
type timer struct {
	fire func(now time.Time)

	// Guarded by the wheel's mu.
	next, prev *timer
	due        int64 // a tick; 0: not set
}

func newWheel(tick time.Duration) *wheel {
	w := &wheel{
		tick:  tick,
		epoch: time.Now(),
		wake:  make(chan struct{}, 1),
		quit:  make(chan struct{}),
		ended: make(chan struct{}),
	}
	go w.run() // ended by stop, which waits for it
	return w
}

// set makes t fire once, after d. It replaces an earlier set.
func (w *wheel) set(t *timer, d time.Duration) {
	elapsed := time.Since(w.epoch)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remove(t)
	if w.count == 0 {
		w.now = int64(elapsed / w.tick)
		w.past.Store(int32(w.now))
	}
	t.due = max(int64((elapsed+d+w.tick-1)/w.tick), w.now+1)
	head := &w.slots[t.due%wheelSlots]
	if t.next = *head; t.next != nil {
		t.next.prev = t
	}
	*head = t
	w.count++
	if w.count == 1 {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// cancel prevents t from firing.
func (w *wheel) cancel(t *timer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remove(t)
}

func (w *wheel) remove(t *timer) {
	if t.due == 0 {
		return
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		w.slots[t.due%wheelSlots] = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.next, t.prev, t.due = nil, nil, 0
	w.count--
}

// expired removes the due timers from the wheel, and reports whether none is left.
func (w *wheel) expired(due []*timer) (_ []*timer, empty bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	target := int64(time.Since(w.epoch) / w.tick)
	// A wheel that was delayed by more than a turn examines each slot once.
	for slot := max(w.now+1, target-wheelSlots+1); slot <= target; slot++ {
		for t := w.slots[slot%wheelSlots]; t != nil; {
			next := t.next
			if t.due <= target {
				w.remove(t)
				due = append(due, t)
			}
			t = next
		}
	}
	w.now = max(w.now, target)
	w.past.Store(int32(w.now))
	return due, w.count == 0
}

func (w *wheel) run() {
	defer close(w.ended)
	ticker := time.NewTicker(w.tick)
	defer ticker.Stop()
	var due []*timer
	for {
		select {
		case <-w.quit:
			return
		case <-w.wake:
			ticker.Reset(w.tick)
		case <-ticker.C:
			var empty bool
			if due, empty = w.expired(due[:0]); empty {
				ticker.Stop() // a timer set from here on wakes the wheel
			}
			now := time.Now()
			for _, t := range due {
				t.fire(now)
			}
			clear(due)
		}
	}
}

// stop ends the wheel and waits for a call in flight.
func (w *wheel) stop() {
	close(w.quit)
	<-w.ended
}
