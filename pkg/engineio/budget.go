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

// A shedder closes connections when too much is queued on all together. It does so on a
// goroutine of its own, because those that queue packets hold locks: a fan-out must not
// wait while connections are sorted and closed.
type shedder struct {
	server *Server
	wake   chan struct{} // capacity 1: the budget is exceeded
	quit   chan struct{}
	ended  chan struct{}
}

func newShedder(s *Server) *shedder {
	d := &shedder{s, make(chan struct{}, 1), make(chan struct{}), make(chan struct{})}
	go d.run() // ends by stop, which waits for it
	return d
}

func (d *shedder) run() {
	defer close(d.ended)
	for {
		select {
		case <-d.wake:
			d.server.shed(int64(d.server.o.QueueBudget))
		case <-d.quit:
			return
		}
	}
}

func (d *shedder) stop() {
	close(d.quit)
	<-d.ended
}

// keepBudget is called before packets are queued on c, and closes it if the shedder has
// fallen an eighth of the budget behind and c has its share of the budget queued. c.mu is
// held.
func (c *Conn) keepBudget() {
	s := c.server
	budget := int64(s.o.QueueBudget)
	if budget == 0 {
		return
	}
	if over := s.counts.queued.Load() - budget; over > budget/8 && int64(c.queued) > budget/s.count() {
		c.unload()
	}
}

// wakeShedder is called after packets were queued.
func (s *Server) wakeShedder() {
	if s.shedder != nil && s.counts.queued.Load() > int64(s.o.QueueBudget) {
		signal(s.shedder.wake)
	}
}

// count returns how many connections there are, at least 1.
func (s *Server) count() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(max(1, len(s.conns)+len(s.leaving)))
}

// shed closes the connections that have the most queued. An eighth of the budget
// is made free, so that they need not be looked for at each packet.
func (s *Server) shed(budget int64) {
	if s.counts.queued.Load() <= budget {
		return // it has shrunk since
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
		c := loads[cut].c
		c.mu.Lock()
		c.unload()
		c.mu.Unlock()
		cut++
	}
	s.log.Warn("queue budget exceeded: connections closed", zap.Int("closed", cut), zap.Int64("budget", budget))
}

// unload cuts the connection. Its queue counts no more: a writer that has some of
// it returns immediately. c.mu is held.
func (c *Conn) unload() {
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
