package socketio

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// smallReceived is the amount in bytes that may wait for the handlers of a socket although its
	// connection must not be read.
	smallReceived = 8 << 10
	// receivedStep is the amount in bytes that a mailbox or a handler may hold uncounted: little
	// beside the memory of a connection, also if all connections of a node do. A mailbox is counted in
	// steps of it, so most events of ordinary size take no lock.
	receivedStep = 1 << 10
)

// receivedPatience is the time that a packet may wait for attachments. After that its
// connection is closed before any other, even if others hold more.
const receivedPatience = time.Second

// A receiveBudget counts the memory of clients' events until they are handled: packets that wait
// for attachments, and events that wait for handlers or are being handled. It also counts payloads
// of CONNECTs until middlewares have returned and the client is connected. From half of the budget
// on, connections whose events wait are not read. Beyond it the connection that holds the most is
// closed, of those whose packets have waited for attachments for some time if there are any. Memory
// that handlers of closed connections still hold will be freed, so no other connection is closed
// for it, unless it reaches the whole budget.
type receiveBudget struct {
	total   atomic.Int64
	closing atomic.Int64 // the part of total that belongs to connections closed because of it

	mu       sync.Mutex
	clients  map[*client]receivedBytes
	relieves sync.Mutex // held while connections are closed
}

type receivedBytes struct {
	reader, mail int       // held by the connection's reader; by its mailboxes, handlers and CONNECTs
	since        time.Time // when the reader began to wait for attachments; zero if it does not
	shed         bool      // the connection is being closed because of it
}

// late reports whether the reader has waited for attachments since before a time.
func (r receivedBytes) late(before time.Time) bool {
	return !r.since.IsZero() && r.since.Before(before)
}

// holds sets the number of bytes that a connection's reader holds. The reader calls it.
func (b *receiveBudget) holds(c *client, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	is := b.clients[c]
	if is.shed {
		bytes = 0 // the reader drops it as soon as it sees that its connection is closed
	}
	b.total.Add(int64(bytes - is.reader))
	is.reader = bytes
	switch {
	case !c.holds:
		is.since = time.Time{}
	case is.since.IsZero():
		is.since = time.Now()
	}
	b.put(c, is)
}

// keeps adds bytes, or a negative number, to those that wait for a connection's handlers.
func (b *receiveBudget) keeps(c *client, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	is := b.clients[c]
	b.total.Add(int64(bytes))
	if is.shed {
		b.closing.Add(int64(bytes))
	}
	is.mail += bytes
	b.put(c, is)
}

// put sets a connection's total. b.mu is held.
func (b *receiveBudget) put(c *client, is receivedBytes) {
	if is.reader == 0 && is.mail == 0 {
		delete(b.clients, c)
		return
	}
	put(&b.clients, c, is)
}

// overHalf reports whether half of the budget is used, so that connections with queued events must
// not be read.
func (b *receiveBudget) overHalf(budget int) bool { return b.total.Load() > int64(budget/2) }

// exceeds reports whether a connection must be closed.
func (b *receiveBudget) exceeds(budget int) bool {
	total, largestHeld := b.total.Load(), int64(budget)
	return total > largestHeld && total-min(b.closing.Load(), largestHeld) > largestHeld
}

// relieve closes connections until the others fit in the budget.
func (s *Server) relieve() {
	b, budget := &s.received, s.opts.ReceiveBudget
	if !b.exceeds(budget) || !b.relieves.TryLock() { // or another goroutine is doing it
		return
	}
	defer b.relieves.Unlock()
	for b.exceeds(budget) {
		c := b.shed()
		if c == nil {
			return
		}
		c.limited(limitReceiveBudget, budget, "bytes")
		for _, s := range c.all() { // before they end
			s.mail.drop(c)
		}
		c.cut()
	}
}

// shed returns the connection to close, or nil, and stops counting the bytes of its reader.
func (b *receiveBudget) shed() (largest *client) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var largestHeld receivedBytes
	late := time.Now().Add(-receivedPatience)
	for c, is := range b.clients {
		waited, longer := is.late(late), largestHeld.late(late)
		if !is.shed && (largest == nil || waited && !longer || waited == longer && is.reader+is.mail > largestHeld.reader+largestHeld.mail) {
			largest, largestHeld = c, is
		}
	}
	if largest != nil {
		b.total.Add(int64(-largestHeld.reader))
		b.closing.Add(int64(largestHeld.mail))
		largestHeld.reader, largestHeld.shed = 0, true
		b.put(largest, largestHeld)
	}
	return largest
}

// hold counts the bytes that the connection's decoder holds, and sets a deadline for the next
// attachment. The reader calls it.
func (c *client) hold(bytes int) {
	c.holds = true
	within := c.srv.opts.Engine.PingInterval + c.srv.opts.Engine.PingTimeout
	if c.late == nil {
		c.late = time.AfterFunc(within, func() {
			c.limited(limitAttachmentDeadline, int(within.Seconds()), "seconds")
			c.cut()
		})
	} else {
		c.late.Reset(within)
	}
	c.srv.received.holds(c, bytes)
	c.srv.relieve()
}

// release notes that no packet waits for attachments. The reader calls it.
func (c *client) release() {
	if c.holds {
		c.holds = false
		c.late.Stop()
		c.srv.received.holds(c, 0)
	}
}
