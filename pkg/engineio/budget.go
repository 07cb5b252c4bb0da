package engineio

import (
	"cmp"
	"slices"

	"go.uber.org/zap"
)

// count adds n bytes to what is queued, or takes them away. c.mu is held.
func (c *Conn) count(n int) {
	if c.off {
		return
	}
	c.queued += n
	c.server.counts.queued.Add(int64(n))
}

// keepBudget closes connections if too much is queued on all together. It is
// called after packets were queued, with no lock of this package held, and waits
// for nobody but another call.
func (s *Server) keepBudget() {
	if s.o.QueueBudget > 0 && s.counts.queued.Load() > int64(s.o.QueueBudget) {
		s.shed(int64(s.o.QueueBudget))
	}
}

// shed closes the connections that have the most queued. An eighth of the budget
// is made free, so that they need not be looked for at each packet.
func (s *Server) shed(budget int64) {
	s.shedding.Lock()
	defer s.shedding.Unlock()
	if s.counts.queued.Load() <= budget {
		return // somebody else was here first
	}
	type load struct {
		c     *Conn
		bytes int
	}
	var loads []load
	for _, c := range s.holding() {
		if n := c.Queued(); n > 0 {
			loads = append(loads, load{c, n})
		}
	}
	slices.SortFunc(loads, func(a, b load) int { return cmp.Compare(b.bytes, a.bytes) })
	cut := 0
	for cut < len(loads) && s.counts.queued.Load() > budget-budget/8 {
		loads[cut].c.unload()
		cut++
	}
	s.log.Warn("the queue budget is spent: connections are closed", zap.Int("closed", cut), zap.Int64("budget", budget))
}

// unload cuts the connection. Its queue counts no more: a writer that has some of
// it returns at once.
func (c *Conn) unload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed == nil {
		c.server.counts.budgetCuts.Add(1)
		c.endLocked(&CloseError{Reason: TransportError, Err: ErrQueueBudget}, endCut)
	}
	c.done(c.take())
	c.transport.cut()
	c.stopAnswer() // also one from before an upgrade
	c.count(-c.queued)
	c.off = true
	c.server.emptied(c)
}

// holding returns the connections on which something may be queued.
func (s *Server) holding() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Conn, 0, len(s.conns)+len(s.leaving))
	for _, c := range s.conns {
		all = append(all, c)
	}
	for c := range s.leaving {
		all = append(all, c)
	}
	return all
}

// emptied says that a closed connection has nothing queued any more.
func (s *Server) emptied(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leaving, c)
}
