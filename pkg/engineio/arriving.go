package engineio

import (
	"cmp"
	"io"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// smallArrival is the part of a message that is not counted, in bytes. It is small compared with
// the memory of a connection.
const smallArrival = 4 << 10

// mediumArrival is the memory up to which messages have a quarter of the budget for themselves: a few
// large ones that continue slowly for minutes must not keep out those that have hardly begun.
const mediumArrival = 64 << 10

// arrivals count the memory of messages and bodies whose end has not arrived, and of bodies that have
// not been passed on. Beyond a budget those of which the least has arrived recently are given up, so that
// data sent once and then held back is dropped first. Of messages that are about equally fast, those that
// have begun last are given up: if there are more than fit, the others can end.
type arrivals struct {
	budget int
	most   int // of it, for messages larger than mediumArrival
	log    *zap.Logger
	bytes  atomic.Int64 // changed with mu held
	cuts   atomic.Uint64
	logged logLimit

	mu    sync.Mutex
	open  map[*arrival]struct{}
	large int // bytes of those larger than mediumArrival
}

// An arrival is a message or a body that is being received, or a body that has not been passed on. A
// small one is nil.
type arrival struct {
	from    receiver
	remote  string
	began   time.Time
	fades   atomic.Uint64 // see came: seconds after began, as a float64
	bytes   int           // counted; guarded by arrivals.mu
	givenUp bool          // guarded by arrivals.mu
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
			if a != nil {
				a.came(n)
			}
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
				a.came(size)
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
	all.count(a, -1)
	a.bytes = bytes
	all.count(a, 1)
	all.open[a] = struct{}{}
	cut := all.shed()
	goesOn := !a.givenUp
	all.mu.Unlock()
	if cut != nil {
		all.logged.write(all.log, zap.WarnLevel, "receive budget exceeded: connection with an incomplete or pending message closed",
			zap.Int("receive_budget", all.budget), zap.Int("bytes", cut.bytes), zap.String("remote", cut.remote))
	}
	return goesOn
}

// shed gives up messages until the others fit in the budget, and returns the last one given up, if
// any. all.mu is held, so that interrupt cannot affect a later request of a connection.
func (all *arrivals) shed() (cut *arrival) {
	if !all.exceed() {
		return nil
	}
	now := time.Now()
	order := slices.SortedFunc(maps.Keys(all.open), func(a, b *arrival) int {
		return cmp.Or(cmp.Compare(a.speed(now), b.speed(now)), b.began.Compare(a.began))
	})
	for _, large := range [...]bool{true, false} { // large ones that have more than their part do not cost others theirs
		for _, a := range order {
			if a.givenUp || !all.exceeded(large, a) {
				continue
			}
			cut, a.givenUp = a, true
			all.count(a, -1)
			all.cuts.Add(1)
			delete(all.open, a)
			a.from.interrupt()
		}
	}
	return cut
}

// exceed reports whether messages must be given up.
func (all *arrivals) exceed() bool {
	return all.large > all.most || all.bytes.Load() > int64(all.budget)
}

// exceeded reports whether a message must be given up, if it is slow: for the part of the large ones, or
// for the budget.
func (all *arrivals) exceeded(large bool, a *arrival) bool {
	if large {
		return a.bytes > mediumArrival && all.large > all.most
	}
	return all.bytes.Load() > int64(all.budget)
}

// count counts a message, or stops counting it if sign is -1. all.mu is held.
func (all *arrivals) count(a *arrival, sign int) {
	all.bytes.Add(int64(sign * a.bytes))
	if a.bytes > mediumArrival {
		all.large += sign * a.bytes
	}
}

// came notes that bytes of a message have arrived. They count half as much with each second that passes,
// so that a message that arrived fast and has been held back since does not keep out those that begin. fades is when they
// will count as one byte. One goroutine at a time calls it.
func (a *arrival) came(bytes int) {
	now := time.Since(a.began).Seconds()
	before := math.Exp2(math.Float64frombits(a.fades.Load()) - now)
	a.fades.Store(math.Float64bits(now + math.Log2(before+float64(bytes))))
}

// speed returns the order of magnitude, in powers of two, of the bytes that have arrived recently.
func (a *arrival) speed(now time.Time) int {
	return int(math.Round(math.Float64frombits(a.fades.Load()) - now.Sub(a.began).Seconds()))
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
			all.count(a, -1)
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
