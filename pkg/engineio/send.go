package engineio

import (
	"context"
	"io"
	"net"
	"time"
)

// volatileQueueBytes is the queue length from which TrySend drops: a connection with this much
// queued is behind. It holds about one second of a fast stream, so late deliveries are not very
// old.
const volatileQueueBytes = 64 << 10

// writePart is the size of the parts in which a long batch is written; each part counts as
// progress.
const writePart = 64 << 10

// Send queues packets for the client, adjacent and in order. It never waits. If
// [Options.SendQueueBytes] or more are queued already, as [Conn.Queued] counts them but without those
// of [Conn.SendPaced], the client is too slow: the connection is closed instead, with
// [TransportError] wrapping [ErrSlowClient]. So a queue never exceeds that limit by more than one call
// adds, and no message is too large for a client that keeps up.
//
// If [Options.QueueBudget] is now exceeded, connections may soon be closed, wrapping
// [ErrQueueBudget]; this one may be among them. If the connection is closed, the error is its
// *[CloseError].
func (c *Conn) Send(ps ...*Packet) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed != nil || len(ps) == 0:
	case c.queue.bytes-c.queue.paced >= c.server.o.SendQueueBytes:
		c.tooSlow()
	default:
		c.enqueue(ps)
	}
	return c.err()
}

// tooSlow closes the connection because its client takes too little. c.mu is held.
func (c *Conn) tooSlow() {
	c.server.counts.slowClients.Add(1)
	c.closeLocked(&CloseError{Reason: TransportError, Err: ErrSlowClient}, closeCut)
}

// TrySend queues packets like Send, unless the connection is behind: frames of 64 KiB or more are
// queued or being written, or [Options.SendQueueBytes] are queued. On long-polling the same limit
// holds between two polls. TrySend never closes the connection because of its own queue. It reports
// whether it queued the packets.
func (c *Conn) TrySend(ps ...*Packet) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil || len(ps) == 0 || c.queue.bytes >= c.server.o.SendQueueBytes || c.queue.unsent() >= volatileQueueBytes {
		return false
	}
	c.enqueue(ps)
	return c.closed == nil
}

// Queued returns the memory, in bytes, that is held for packets that are queued or being written:
// the frames and 144 bytes for each packet.
func (c *Conn) Queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue.bytes
}

// WaitQueue waits until at most max bytes are queued, as Queued counts them. It returns early with the
// cause of ctx if that ends, or with the *[CloseError] if the connection does.
func (c *Conn) WaitQueue(ctx context.Context, max int) error {
	return c.wait(ctx, func() bool { return c.queue.bytes <= max })
}

// wait waits until a condition holds, which is called with c.mu held and depends on the packets
// written.
func (c *Conn) wait(ctx context.Context, holds func() bool) error {
	for {
		c.mu.Lock()
		if c.closed != nil || holds() {
			defer c.mu.Unlock()
			return c.err()
		}
		change := c.nextChange()
		c.mu.Unlock()
		select {
		case <-change:
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Stalled reports whether something is queued and nothing was written for at least d: the client is
// not reading.
func (c *Conn) Stalled(d time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue.stalled(d)
}

// enqueue queues packets within the budget: it wakes the shedder if they exceed it. If the
// budget is exceeded by a quarter in spite of the shedder, and c had its share of the
// budget queued before, it closes c. c.mu is held.
func (c *Conn) enqueue(ps []*Packet) {
	had := c.queue.bytes
	c.spend(c.push(ps...), had)
}

// spend compares what is held on all connections with the budget. had is what c had queued before.
// c.mu is held.
func (c *Conn) spend(all int64, had int) {
	s := c.server
	budget := int64(s.o.QueueBudget)
	if budget == 0 || all <= budget {
		return
	}
	signal(s.shed)
	if all <= budget+budget/4 {
		return
	}
	if share := budget / int64(s.size()); int64(had) > share && int64(c.queue.load()) > share {
		c.unload()
	}
}

// unload cuts the connection. Its queue no longer counts: a writer that has some of it returns
// immediately. If the connection was closed before, a polling client can still fetch the close.
// c.mu is held.
func (c *Conn) unload() {
	if c.closed == nil {
		c.server.counts.budgetCuts.Add(1)
		c.closeLocked(&CloseError{Reason: TransportError, Err: ErrQueueBudget}, closeCut)
	}
	c.discard()
	c.queue.stopCounting()
	c.interrupt()
}

// push queues packets, adjacent and in order, and starts a writer if the transport can write and
// none is active. It returns how many bytes are then queued on all connections. c.mu is held.
func (c *Conn) push(ps ...*Packet) (all int64) {
	all = c.queue.add(ps...)
	c.kick()
	return all
}

// kick starts a writer for the pending packets. c.mu is held.
func (c *Conn) kick() {
	switch {
	case c.queue.pending == nil || c.writing:
	case c.ws != nil:
		c.writing = true
		go c.ws.drain() // until nothing is queued; Conn.served waits for it
	default:
		c.writing = c.polling.wake(getWrites)
	}
}

// done removes a batch from the queue; b may be nil. c.mu is held.
func (c *Conn) done(b *batch) {
	if b == nil {
		return
	}
	c.queue.remove(b)
	c.announce()
	c.settle()
}

// discard drops packets that the writer has not taken. c.mu is held.
func (c *Conn) discard() { c.done(c.queue.pending) }

// rest notes that the writer stops. Another one may have to continue: after an upgrade the last
// poll hands over to the WebSocket. c.mu is held.
func (c *Conn) rest() {
	c.writing = false
	c.kick()
	if !c.writing {
		c.announce()
	}
}

// nextChange returns a channel that is closed when less is queued, or the writer rests. c.mu is
// held.
func (c *Conn) nextChange() <-chan struct{} {
	if c.change == nil {
		c.change = make(chan struct{})
	}
	return c.change
}

func (c *Conn) announce() {
	if c.change != nil {
		close(c.change)
		c.change = nil
	}
}

// buffers returns what is to be written of a batch that the writer has taken. What it makes beside the
// frames counts, unless it is little.
func (c *Conn) buffers(b *batch, form func(*Packet) []byte, between string) *net.Buffers {
	parts := b.buffers(form, between)
	if b.bytes > countedJoin {
		c.mu.Lock()
		c.spend(c.queue.addForms(b, form), c.queue.bytes)
		c.mu.Unlock()
	}
	return parts
}

// writeParts writes buffers, as vectors if w is plain TCP. A long batch is written in parts, each of
// which is progress.
func (c *Conn) writeParts(w io.Writer, bufs *net.Buffers) error {
	for len(*bufs) > 0 {
		part := (*bufs)[0]
		n, k := len(part), 1
		for k < len(*bufs) && n+len((*bufs)[k]) <= writePart {
			n += len((*bufs)[k])
			k++
		}
		var err error
		switch {
		case n > writePart: // k is 1
			_, err = w.Write(part[:writePart])
			(*bufs)[0] = part[writePart:]
		case k == 1: // a plain write costs less than a vector of one
			_, err = w.Write(part)
			*bufs = (*bufs)[1:]
		default:
			parts := (*bufs)[:k:k]
			*bufs = (*bufs)[k:]
			_, err = parts.WriteTo(w)
		}
		if err != nil {
			return err
		}
		if len(*bufs) > 0 { // otherwise done follows, which is progress, too
			c.mu.Lock()
			c.queue.moved = time.Now()
			c.mu.Unlock()
		}
	}
	return nil
}
