package engineio

import (
	"cmp"
	"slices"
	"time"

	"go.uber.org/zap"
)

// writePart is the size of the parts in which a long batch is written; each part counts as
// progress.
const writePart = 64 << 10

// count counts packets that are added to a batch, and returns the number of bytes queued on all
// connections. c.mu is held.
func (c *Conn) count(b *batch, ps []*Packet) (all int64) {
	n, shared, held := 0, 0, 0
	for _, p := range ps {
		n += p.Len()
		if p.Len() > smallFrame {
			shared += p.Len()
			if !c.off {
				held += c.server.hold(p)
			}
		}
	}
	b.bytes += n
	b.shared += shared
	if c.off {
		return 0
	}
	if c.queued == 0 {
		c.progress()
	}
	overhead := len(ps) * packetOverhead
	c.queued += n + overhead
	return c.server.counts.queued.Add(int64(n - shared + held + overhead))
}

// uncount reverts count for a batch. c.mu is held.
func (c *Conn) uncount(b *batch) {
	if c.off {
		return
	}
	n := b.bytes - b.shared + b.overhead()
	if b.shared > 0 {
		for _, p := range b.packets {
			if p.Len() > smallFrame {
				n += c.server.letGo(p)
			}
		}
	}
	c.progress()
	c.queued -= b.bytes + b.overhead()
	c.server.counts.queued.Add(int64(-n))
}

// hold returns by how many bytes held memory grows now that a large packet is queued on another
// connection.
func (s *Server) hold(p *Packet) int {
	if !p.countedBy.CompareAndSwap(nil, s) && p.countedBy.Load() != s || p.queued.Add(1) == 1 {
		return p.Len()
	}
	return 0
}

// letGo returns by how many bytes held memory shrinks now that a connection has written the packet.
func (s *Server) letGo(p *Packet) int {
	if p.countedBy.Load() != s || p.queued.Add(-1) == 0 {
		return p.Len()
	}
	return 0
}

// progress notes that bytes were written. c.mu is held.
func (c *Conn) progress() { c.moved = time.Now() }

// stalled reports whether something has been queued for d without any progress. c.mu is held.
func (c *Conn) stalled(d time.Duration) bool {
	return c.queued > 0 && time.Since(c.moved) >= d
}

// A shedder closes connections when too much is queued on all connections together. It runs on a
// separate goroutine, because the callers that queue packets hold locks: a fan-out must not wait
// while connections are sorted and closed.
type shedder struct {
	server *Server
	wake   chan struct{} // capacity 1: the budget is exceeded
	quit   chan struct{}
	ended  chan struct{}
}

func newShedder(s *Server) *shedder {
	d := &shedder{s, make(chan struct{}, 1), make(chan struct{}), make(chan struct{})}
	go d.run() // ended by stop, which waits for it
	return d
}

func (d *shedder) run() {
	defer close(d.ended)
	again := time.NewTimer(0) // runs if too much is queued but no connection has stalled yet
	defer again.Stop()
	resting := false // until the timer fires, because each pass examines all connections
	budget := int64(d.server.o.QueueBudget)
	for {
		select {
		case <-d.wake:
			if resting && d.server.counts.queued.Load() <= budget+budget/8 {
				continue
			}
		case <-again.C:
		case <-d.quit:
			return
		}
		if resting = d.server.shed(budget); resting {
			again.Reset(d.server.o.shedAfter / 4)
		}
	}
}

func (d *shedder) stop() {
	close(d.quit)
	<-d.ended
}

// queue queues packets within the budget: it wakes the shedder if they exceed it. If the
// shedder has fallen a quarter of the budget behind, and c had its share of the budget
// queued before, it closes c. c.mu is held.
func (c *Conn) queue(ps []*Packet) {
	had := c.queued
	all := c.push(ps...)
	s := c.server
	budget := int64(s.o.QueueBudget)
	if budget == 0 || all <= budget {
		return
	}
	signal(s.shedder.wake)
	if all <= budget+budget/4 {
		return
	}
	if share := budget / s.count(); int64(had) > share && int64(c.load()) > share {
		c.unload()
	}
}

// load returns how many bytes are held for the connection; of packets shared with others, its part.
// c.mu is held.
func (c *Conn) load() int {
	n := c.copied
	for _, b := range []*batch{c.pending, c.taken} {
		if b == nil {
			continue
		}
		n += b.bytes - b.shared + b.overhead()
		if b.shared > 0 {
			for _, p := range b.packets {
				if p.Len() > smallFrame {
					n += p.Len() / max(1, int(p.queued.Load()))
				}
			}
		}
	}
	return n
}

// copy counts a compressed response until it has been written. c.mu is held.
func (c *Conn) copy(n int) {
	if c.off {
		return
	}
	c.server.counts.queued.Add(int64(n - c.copied))
	c.copied = n
}

// count returns the number of connections, at least 1.
func (s *Server) count() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(max(1, len(s.conns)+len(s.leaving)))
}

// shed closes connections if more than the budget is queued: first those that have stalled, then,
// if the budget is still exceeded by an eighth, others; of both, those for which the most is held
// come first. It frees an eighth of the budget, so that the search is not repeated for each packet.
// It reports whether more than the budget is still queued.
func (s *Server) shed(budget int64) bool {
	if s.counts.queued.Load() <= budget {
		return false // it has shrunk since
	}
	type load struct {
		c       *Conn
		bytes   int
		stalled bool
	}
	var loads []load
	for _, c := range s.holding() {
		c.mu.Lock()
		if c.queued > 0 {
			loads = append(loads, load{c, c.load(), c.stalled(s.o.shedAfter)})
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

// unload cuts the connection. Its queue no longer counts: a writer that has some of it returns
// immediately. c.mu is held.
func (c *Conn) unload() {
	if c.closed == nil {
		c.server.counts.budgetCuts.Add(1)
		c.endLocked(&CloseError{Reason: TransportError, Err: ErrQueueBudget}, endCut)
	}
	c.discard()
	if c.taken != nil {
		c.uncount(c.taken)
	}
	c.copy(0)
	c.off = true
	c.queued = 0
	c.transport.cut()
	c.stopAnswer() // including one from before an upgrade
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

// emptied notes that a closed connection has nothing queued any more.
func (s *Server) emptied(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leaving, c)
}
