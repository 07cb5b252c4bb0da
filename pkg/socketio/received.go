package socketio

import (
	"sync"
	"sync/atomic"
	"time"
)

// smallReceived is what a connection may hold without being counted, in each place: little
// beside what the connection itself takes. Events of ordinary size are not counted until as
// many wait, and then in steps of it.
const smallReceived = 8 << 10

// receivedPatience is how long a packet may wait for attachments before its connection is
// closed rather than others, however much they hold.
const receivedPatience = time.Second

// A receiveBudget counts what the events of clients take in memory until they are handled:
// packets that wait for attachments, and events that wait for handlers or are being handled.
// From half of the budget on, connections whose events wait are not read; beyond it the
// connection that holds the most is closed, of those whose packets have waited for attachments
// for some time if there are any. What handlers of closed connections still hold comes free
// by itself, so no other one is closed for it, unless there is as much of it as the budget.
type receiveBudget struct {
	total   atomic.Int64
	closing atomic.Int64 // of total, what is of connections that are being closed because of it

	mu       sync.Mutex
	clients  map[*client]receivedBytes
	relieves sync.Mutex // held while connections are closed
}

type receivedBytes struct {
	reader, mail int       // what the connection's reader has, and its mailboxes and handlers
	since        time.Time // when the reader began to wait for attachments; zero if it does not
	shed         bool      // the connection is being closed because of it
}

// late reports whether attachments have been waited for since before a time.
func (r receivedBytes) late(before time.Time) bool {
	return !r.since.IsZero() && r.since.Before(before)
}

// holds says how many bytes a connection's reader holds. It is called by the reader.
func (b *receiveBudget) holds(c *client, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	is := b.clients[c]
	if is.shed {
		bytes = 0 // the reader drops it as soon as it finds its connection closed
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

// keeps counts bytes more, or less, that wait for a connection's handlers.
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

// put sets what a connection holds. b.mu is held.
func (b *receiveBudget) put(c *client, is receivedBytes) {
	if is.reader == 0 && is.mail == 0 {
		delete(b.clients, c)
		return
	}
	if b.clients == nil {
		b.clients = make(map[*client]receivedBytes)
	}
	b.clients[c] = is
}

// crowded reports whether connections whose events wait are not to be read.
func (b *receiveBudget) crowded(budget int) bool { return b.total.Load() > int64(budget/2) }

// exceeds reports whether a connection has to be closed.
func (b *receiveBudget) exceeds(budget int) bool {
	total, most := b.total.Load(), int64(budget)
	return total > most && total-min(b.closing.Load(), most) > most
}

// relieve closes connections until all others keep to the budget.
func (s *Server) relieve() {
	b, budget := &s.received, s.opts.ReceiveBudget
	if !b.exceeds(budget) || !b.relieves.TryLock() { // or another goroutine does it
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

// shed returns the connection to close, or nil, and counts what its reader has no more.
func (b *receiveBudget) shed() (largest *client) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var most receivedBytes
	late := time.Now().Add(-receivedPatience)
	for c, is := range b.clients {
		waited, longer := is.late(late), most.late(late)
		if !is.shed && (largest == nil || waited && !longer || waited == longer && is.reader+is.mail > most.reader+most.mail) {
			largest, most = c, is
		}
	}
	if largest != nil {
		b.total.Add(int64(-most.reader))
		b.closing.Add(int64(most.mail))
		most.reader, most.shed = 0, true
		b.put(largest, most)
	}
	return largest
}

// hold counts what the connection's decoder holds, and gives the next attachment a time to
// come. It is called by the reader.
func (c *client) hold(bytes int) {
	if bytes <= smallReceived {
		c.release()
		return
	}
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

// release says that no packet waits for attachments. It is called by the reader.
func (c *client) release() {
	if c.holds {
		c.holds = false
		c.late.Stop()
		c.srv.received.holds(c, 0)
	}
}
