package engineio

import "context"

// Paced packets are those that the client has requested: answers. They do not count in the limit of
// the send queue, because a client that takes everything must not be cut for what it requests. Their
// sender bounds them instead: it waits until there is space for them. Small and large ones are bounded
// apart, so that a small answer does not wait for all large ones.

const (
	small, large = 0, 1
	// smallPaced is the size up to which paced packets are small.
	smallPaced = 4 << 10
	// waiterBytes is the approximate memory of a goroutine that waits with a paced packet.
	waiterBytes = 4 << 10
	// waitingQueues bounds what may wait for one connection, in send queues.
	waitingQueues = 16
)

// SendPaced queues paced packets: packets that the client has requested, such as answers, and
// that the caller sends at the client's pace. It queues them like [Conn.Send], but they count in
// [Options.QueueBudget] only, and not in [Options.SendQueueBytes]. It never waits: call
// [Conn.WaitPaced] before it. If 16 times the limit of the send queue is queued of the same
// kind, small or large, the client is too slow, as in Send.
func (c *Conn) SendPaced(ps ...*Packet) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed == nil && len(ps) > 0 {
		if c.queue.answers[paceOf(length(ps))] > waitingQueues*c.server.o.SendQueueBytes {
			c.tooSlow()
		} else {
			c.enqueuePaced(ps)
		}
	}
	return c.err()
}

// TrySendPaced queues packets like SendPaced if there is space for them: if with them at most
// ahead bytes of paced packets of their kind, small or large (see [IsSmallPaced]), are queued;
// or if no others of their kind are, and at most 4 times ahead bytes of anything. It reports
// whether it queued them.
func (c *Conn) TrySendPaced(ahead int, ps ...*Packet) bool {
	n := length(ps)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil || !c.queue.paces(ahead, n) || n > ahead && c.queue.bytes > 4*ahead {
		return false
	}
	c.enqueuePaced(ps)
	return c.closed == nil
}

// enqueuePaced queues paced packets within the budget. c.mu is held.
func (c *Conn) enqueuePaced(ps []*Packet) {
	had := c.queue.bytes
	all := c.queue.add(ps...)
	c.queue.notePaced(ps)
	c.kick()
	c.spend(all, had)
}

// paces reports whether some more bytes of paced packets may be queued.
func (q *queue) paces(ahead, bytes int) bool {
	queued := q.answers[paceOf(bytes)]
	return queued == 0 || queued+bytes <= ahead
}

func paceOf(bytes int) int {
	if bytes <= smallPaced {
		return small
	}
	return large
}

// IsSmallPaced reports whether paced packets count as small ones: they have at most 4 KiB together.
// Package socketio uses it; other programs do not need it.
func IsSmallPaced(ps ...*Packet) bool { return paceOf(length(ps)) == small }

// WaitPaced waits until there is space among the paced packets of the same kind: at most ahead bytes are
// queued with these, or these alone. It returns early as WaitQueue does.
func (c *Conn) WaitPaced(ctx context.Context, ahead int, ps ...*Packet) error {
	n := length(ps)
	return c.wait(ctx, func() bool { return c.queue.paces(ahead, n) })
}

// WaitAnswered waits until paced packets take at most max bytes of memory. It returns early as WaitQueue
// does.
func (c *Conn) WaitAnswered(ctx context.Context, max int) error {
	return c.wait(ctx, func() bool { return c.queue.paced <= max })
}

// HoldPaced counts packets that wait to be queued in [Options.QueueBudget], until release is called
// once. If too much of a kind waits behind others for the connection, its client is too slow, as in [Conn.Send].
func (c *Conn) HoldPaced(ps ...*Packet) (release func()) {
	bytes, kind := memory(ps)+waiterBytes, paceOf(length(ps))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil {
		return func() {}
	}
	had := c.queue.bytes
	c.spend(c.queue.wait(kind, bytes), had)
	if waiting := c.queue.waiting[kind]; waiting > bytes && waiting > waitingQueues*c.server.o.SendQueueBytes {
		c.tooSlow()
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.queue.wait(kind, -bytes)
	}
}

// Held returns the memory, in bytes, that is held for the client: what is queued, as Queued counts it,
// and what HoldPaced counts.
func (c *Conn) Held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue.bytes + c.queue.waiting[small] + c.queue.waiting[large]
}

// length returns the size of the frames of packets, and memory that of the packets in a queue.
func length(ps []*Packet) (bytes int) {
	for _, p := range ps {
		bytes += p.Len()
	}
	return bytes
}

func memory(ps []*Packet) int { return length(ps) + len(ps)*packetOverhead }
