package engineio

import (
	"cmp"
	"slices"
	"time"

	"go.uber.org/zap"
)

// shedAll closes connections whenever too much is queued on all of them together. It runs on a
// separate goroutine, because the callers that queue packets hold locks: a fan-out must not wait
// while connections are sorted and closed.
func (s *Server) shedAll() {
	again := time.NewTimer(0) // runs if too much is queued but no connection has stalled yet
	defer again.Stop()
	resting := false // until the timer fires, because each pass examines all connections
	budget := int64(s.o.QueueBudget)
	for {
		select {
		case _, open := <-s.shed:
			if !open {
				return
			}
			if resting && s.counts.queued.Load() <= budget+budget/8 {
				continue
			}
		case <-again.C:
		}
		if resting = s.shedOnce(budget); resting {
			again.Reset(s.o.shedAfter / 4)
		}
	}
}

// shedOnce closes connections if more than the budget is queued: first those that have stalled, then,
// if the budget is still exceeded by an eighth, others. In both groups those that hold the most come
// first. It frees an eighth of the budget, so that the search is not repeated for each packet. It
// reports whether more than the budget is still queued.
func (s *Server) shedOnce(budget int64) bool {
	if s.counts.queued.Load() <= budget {
		return false // it has shrunk since
	}
	type load struct {
		c       *Conn
		bytes   int
		stalled bool
	}
	var loads []load
	for _, c := range s.known() {
		c.mu.Lock()
		if c.queue.bytes > 0 {
			loads = append(loads, load{c, c.queue.load(), c.queue.stalled(s.o.shedAfter)})
		}
		c.mu.Unlock()
	}
	slices.SortFunc(loads, func(a, b load) int {
		if a.stalled != b.stalled {
			if a.stalled {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.bytes, a.bytes)
	})
	cut, others := 0, false
	for _, l := range loads {
		queued := s.counts.queued.Load()
		if !l.stalled && !others {
			others = queued > budget+budget/8
		}
		if !l.stalled && !others || queued <= budget-budget/8 {
			break
		}
		l.c.mu.Lock()
		l.c.unload()
		l.c.mu.Unlock()
		cut++
	}
	if cut > 0 {
		s.log.Warn("queue budget exceeded: connections closed", zap.Int("closed", cut), zap.Int64("budget", budget))
	}
	return s.counts.queued.Load() > budget
}
