package engineio

import (
	"cmp"
	"io"
	"maps"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// smallArrival is the part of a message that is not counted, in bytes. It is small compared with
// the memory of a connection.
const smallArrival = 4 << 10

// arrivals count the memory of messages and bodies whose end has not arrived, and of bodies that have not
// been passed on. Beyond a budget the slowest are given up, so that a message that is sent quickly at
// first and then held back does not keep its memory. Of messages that are about equally fast those that
// have begun last are given up, so that the others can end.
type arrivals struct {
	budget int
	log    *zap.Logger
	bytes  atomic.Int64 // changed with mu held
	cuts   atomic.Uint64
	logged logLimit

	mu   sync.Mutex
	open map[*arrival]struct{}
}

// An arrival is a message or a body that is being received, or a body that has not been passed on. A
// small one is nil.
type arrival struct {
	from    receiver
	remote  string
	began   time.Time
	bytes   int  // counted; guarded by arrivals.mu
	givenUp bool // guarded by arrivals.mu
}

// A receiver reads messages. Its methods must not block.
type receiver interface {
	interrupt() // makes its read, or the passing on of its message, fail
	progress()  // called when a part of a message has arrived
}

// read reads a message, at most limit bytes, to the end of r, into b, which grows as needed. If the
// message is given up, from.interrupt makes r fail. The message counts until done is called with the
// arrival, unless read returns an error.
func (all *arrivals) read(r io.Reader, b []byte, limit int, from receiver, remote string) (_ []byte, a *arrival, _ error) {
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if n > 0 && err == nil {
			from.progress()
		}
		switch {
		case err == io.EOF && len(b) <= limit:
			return b, a, nil
		case len(b) > limit:
			err = errTooLarge
		}
		if err != nil {
			if all.done(a) {
				err = ErrReceiveBudget
			}
			return b, nil, err
		}
		if len(b) < cap(b) {
			continue
		}
		size := 2 * cap(b)
		if size > smallArrival {
			if a == nil {
				a = &arrival{from: from, remote: remote, began: time.Now()}
			}
			if !all.grow(a, size) {
				return b, nil, ErrReceiveBudget
			}
		}
		b = append(make([]byte, 0, size), b...)
	}
}

// grow records the present size of a message, and gives up messages until all others fit in the
// budget. It reports whether this message may continue.
func (all *arrivals) grow(a *arrival, bytes int) bool {
	all.mu.Lock()
	if a.givenUp {
		all.mu.Unlock()
		return false
	}
	all.bytes.Add(int64(bytes - a.bytes))
	a.bytes = bytes
	if all.open == nil {
		all.open = make(map[*arrival]struct{})
	}
	all.open[a] = struct{}{}
	cut := all.shed()
	goesOn := !a.givenUp
	all.mu.Unlock()
	if cut != nil {
		if skipped, allowed := all.logged.allow(); allowed {
			all.log.Warn("receive budget exceeded: connection with an incomplete or pending message closed", zap.Int("receive_budget", all.budget),
				zap.Int("bytes", cut.bytes), zap.String("remote", cut.remote), zap.Int("not_logged", skipped))
		}
	}
	return goesOn
}

// shed gives up messages until the others fit in the budget, and returns the last one given up, if
// any. all.mu is held, so that interrupt cannot affect a later request of a connection.
func (all *arrivals) shed() (cut *arrival) {
	if all.bytes.Load() <= int64(all.budget) {
		return nil
	}
	now := time.Now()
	order := slices.SortedFunc(maps.Keys(all.open), func(a, b *arrival) int {
		return cmp.Or(cmp.Compare(a.speed(now), b.speed(now)), b.began.Compare(a.began))
	})
	for _, a := range order {
		if all.bytes.Load() <= int64(all.budget) {
			break
		}
		cut, a.givenUp = a, true
		all.bytes.Add(int64(-a.bytes))
		all.cuts.Add(1)
		delete(all.open, a)
		a.from.interrupt()
	}
	return cut
}

// speed returns the order of magnitude, in powers of two, of the bytes received in a second. The first
// second counts as a whole, because the beginning arrives fast if the kernels have buffered it.
func (a *arrival) speed(now time.Time) int {
	return bits.Len(uint(float64(a.bytes) / (1 + now.Sub(a.began).Seconds())))
}

// done stops counting messages, of which nil ones are small, and reports whether one was
// given up.
func (all *arrivals) done(messages ...*arrival) (givenUp bool) {
	for _, a := range messages {
		if a == nil {
			continue
		}
		all.mu.Lock()
		if !a.givenUp {
			all.bytes.Add(int64(-a.bytes))
			delete(all.open, a)
		}
		givenUp = givenUp || a.givenUp
		all.mu.Unlock()
	}
	return givenUp
}

// handOver makes another receiver the one to interrupt if the message is given up. It reports whether
// the message was given up before.
func (all *arrivals) handOver(a *arrival, to receiver) (givenUp bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	a.from = to
	return a.givenUp
}
