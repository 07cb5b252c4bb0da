package main

import (
	"fmt"
	"time"
)

// A workload keeps a window of requests in flight.
type workload interface {
	run(on bool) // begins; or sends nothing more
	done() bool  // nothing is in flight
	count() int  // so far, of what the figure counts
}

// saturate runs w for d and then waits until all that it has sent is done.
func (l *loop) saturate(w workload, d time.Duration) error {
	w.run(true)
	if err := l.during(d); err != nil {
		return err
	}
	w.run(false)
	if err := l.until(time.Now().Add(drainTimeout), w.done); err != nil {
		return fmt.Errorf("%d counted, and some missing: %w", w.count(), err)
	}
	return nil
}

// measure counts what w does after its warm-up, for each second of the nodes' CPU.
func (l *loop) measure(w workload, cl *cluster, p plan) (sample, error) {
	if err := l.saturate(w, p.Warmup); err != nil {
		return sample{}, err
	}
	count, bytes := w.count(), l.bytes()
	usage, redis, err := cl.metered(func() error { return l.saturate(w, p.Measured) })
	if err != nil {
		return sample{}, err
	}
	if err := l.during(quiet); err != nil {
		return sample{}, err
	}
	n := w.count() - count
	return sample{
		Value: float64(n) / usage.cpu().Seconds(),
		Count: n,
		Of:    n,
		Bytes: float64(l.bytes()-bytes) / float64(n),
		Usage: usage,
		Redis: redis,
	}, nil
}
