package engineio

import (
	"cmp"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// smallArrival is how much of a message is not counted, in bytes: little beside the memory of its
	// connection.
	smallArrival = 8 << 10
	// arrivalPatience is how long smallArrival bytes of a message may take before it is given up
	// first, if the budget is exceeded.
	arrivalPatience = time.Second
)

// arrivals count the memory of messages and bodies whose end has not arrived. Beyond a budget those
// that have paused or trickle are given up, the largest first, and then those that have begun last: if
// there are more than fit, the others can end.
type arrivals struct {
	budget int
	log    *zap.Logger
	bytes  atomic.Int64 // changed with mu held
	cuts   atomic.Uint64

	mu     sync.Mutex
	open   map[*arrival]struct{}
	logged time.Time
}

// An arrival is a message or a body that is being received, and not small.
type arrival struct {
	of      *arrivals
	from    receiver
	remote  string
	began   time.Time
	moved   atomic.Int64 // Unix time in nanoseconds at which the last smallArrival bytes had arrived
	bytes   int          // counted; guarded by of.mu
	givenUp bool         // guarded by of.mu
}

// A receiver reads messages. giveUp makes its read fail. It must not block.
type receiver interface{ giveUp() }

// read reads a message, at most limit bytes, to the end of r, into b and beyond. If the message is to
// be given up, giveUp of from makes r fail.
func (all *arrivals) read(r io.Reader, b []byte, limit int, from receiver, remote string) ([]byte, error) {
	var a *arrival
	marked := 0 // of b, at a.moved
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case len(b) > limit:
			return b, all.end(a, errTooLarge)
		case err == io.EOF:
			return b, all.end(a, nil)
		case err != nil:
			return b, all.end(a, err)
		}
		if a != nil && len(b)-marked >= smallArrival {
			a.moved.Store(time.Now().UnixNano())
			marked = len(b)
		}
		if len(b) < cap(b) {
			continue
		}
		size := 2 * cap(b)
		if size > smallArrival {
			if a == nil {
				now := time.Now()
				a = &arrival{of: all, from: from, remote: remote, began: now}
				a.moved.Store(now.UnixNano())
				marked = len(b)
			}
			if !all.grow(a, size) {
				return b, all.end(a, nil)
			}
		}
		b = append(make([]byte, 0, size), b...)
	}
}

// grow counts that a message takes some bytes now, and gives up messages until all others fit in the
// budget. It reports whether this one may go on.
func (all *arrivals) grow(a *arrival, bytes int) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	if a.givenUp {
		return false
	}
	all.bytes.Add(int64(bytes - a.bytes))
	a.bytes = bytes
	if all.open == nil {
		all.open = make(map[*arrival]struct{})
	}
	all.open[a] = struct{}{}
	if all.bytes.Load() > int64(all.budget) {
		all.shed()
	}
	return !a.givenUp
}

// shed gives up messages until the others fit in the budget. all.mu is held.
func (all *arrivals) shed() {
	now := time.Now()
	paused := func(a *arrival) int {
		if now.UnixNano()-a.moved.Load() > int64(arrivalPatience) {
			return 1
		}
		return 0
	}
	order := make([]*arrival, 0, len(all.open))
	for a := range all.open {
		order = append(order, a)
	}
	slices.SortFunc(order, func(a, b *arrival) int {
		if p, q := paused(a), paused(b); p != q {
			return cmp.Compare(q, p)
		} else if p == 1 {
			return cmp.Compare(b.bytes, a.bytes)
		}
		return b.began.Compare(a.began)
	})
	for _, a := range order {
		if all.bytes.Load() <= int64(all.budget) {
			return
		}
		a.givenUp = true
		all.bytes.Add(int64(-a.bytes))
		all.cuts.Add(1)
		delete(all.open, a)
		a.from.giveUp()
		if now.Sub(all.logged) >= tooLargeInterval {
			all.logged = now
			all.log.Warn("receive budget exceeded: connection with an incomplete message closed",
				zap.Int("receive_budget", all.budget), zap.Int("bytes", a.bytes), zap.String("remote", a.remote))
		}
	}
}

// end uncounts a message whose read has ended with an error or nil, and returns ErrReceiveBudget if it
// was given up.
func (all *arrivals) end(a *arrival, err error) error {
	if a == nil {
		return err
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if a.givenUp {
		return ErrReceiveBudget
	}
	all.bytes.Add(int64(-a.bytes))
	delete(all.open, a)
	return err
}
