package socketio

import (
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// feedWaits are waits for the feed to reach a position: of held acks and of goroutines. The feed's
// lock guards them.
type feedWaits struct {
	queues map[uint16]*waitQueue // by partition
	n      int                   // in all queues
}

// A feedWait has an ack or a channel.
type feedWait struct {
	at      adapter.Position
	ack     *heldAck
	reached chan struct{} // closed when the feed has reached at
}

// A waitQueue holds the waits for positions of one partition, sorted.
type waitQueue struct {
	waits []feedWait
	head  int // earlier waits have ended
}

// keepWaits is the maximum length of a queue whose memory is kept when it is empty.
const keepWaits = 1024

func (q *waitQueue) push(w feedWait) {
	i := len(q.waits) // positions arrive almost in order
	for i > q.head && q.waits[i-1].at.Compare(w.at) > 0 {
		i--
	}
	q.waits = slices.Insert(q.waits, i, w)
}

// pop removes the first wait if its position is covered.
func (q *waitQueue) pop(c adapter.Cursor) (w feedWait, ok bool) {
	if q.head == len(q.waits) || !c.Covers(q.waits[q.head].at) {
		return feedWait{}, false
	}
	w, q.waits[q.head] = q.waits[q.head], feedWait{}
	q.head++
	switch n := len(q.waits); {
	case q.head == n && cap(q.waits) > keepWaits:
		*q = waitQueue{}
	case q.head == n:
		q.waits, q.head = q.waits[:0], 0
	case q.head > keepWaits && q.head > n/2:
		q.waits, q.head = slices.Delete(q.waits, 0, q.head), 0
	}
	return w, true
}

// hold adds a wait. f.mu is held.
func (f *feed) hold(w feedWait) {
	q := f.waits.queues[w.at.Partition]
	if q == nil {
		q = new(waitQueue)
		put(&f.waits.queues, w.at.Partition, q)
	}
	q.push(w)
	f.waits.n++
}

// passed ends the waits for positions that the feed has reached. f.mu is held.
func (f *feed) passed() {
	if f.waits.n == 0 {
		return
	}
	for _, q := range f.waits.queues {
		for w, ok := q.pop(f.cursor); ok; w, ok = q.pop(f.cursor) {
			f.waits.n--
			if w.ack == nil {
				close(w.reached)
				continue
			}
			s := w.ack.socket
			s.mu.Lock()
			if w.ack.pending--; w.ack.pending == 0 {
				s.releaseAcks()
			}
			s.mu.Unlock()
		}
	}
}

// await returns a channel that is closed when the feed has reached a position, and a function that
// ends the wait.
func (f *feed) await(at adapter.Position) (reached <-chan struct{}, done func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan struct{})
	if f.cursor.Covers(at) {
		close(c)
		return c, func() {}
	}
	f.hold(feedWait{at: at, reached: c})
	return c, func() {
		select {
		case <-c:
			return
		default:
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		q := f.waits.queues[at.Partition]
		if i := slices.IndexFunc(q.waits, func(w feedWait) bool { return w.reached == c }); i >= 0 {
			q.waits = slices.Delete(q.waits, i, i+1)
			f.waits.n--
		}
	}
}
