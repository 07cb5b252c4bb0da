package engineio

import (
	"io"
	"net"
	"slices"
	"sync"
)

// volatileQueueBytes is the queue length from which TrySend drops: a connection with this much
// queued is behind. It is a second's worth of a fast stream, and little enough that late deliveries
// are not very old.
const volatileQueueBytes = 64 << 10

// A batch is the content of one write: the packets queued since the last one. Batches are pooled,
// so that an idle connection holds none.
type batch struct {
	packets []*Packet
	bytes   int // of their frames
	pong    int // 1 + the index of the pong, of which there is at most one; 0 without
	shared  int // of the bytes, those of packets that count once on all connections

	join   []byte      // small frames, concatenated
	vector net.Buffers // what is to be written: parts of join, and large frames
	left   net.Buffers // the rest of vector while it is being written
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// Limits of what a batch keeps in the pool; a burst's memory is left to the garbage collector.
const (
	keepPackets = 1024
	keepJoin    = 64 << 10
)

func (b *batch) release() {
	if cap(b.packets) > keepPackets || cap(b.join) > keepJoin {
		return
	}
	clear(b.packets)
	clear(b.vector)
	b.packets, b.bytes, b.shared, b.pong = b.packets[:0], 0, 0, 0
	b.join, b.vector, b.left = b.join[:0], b.vector[:0], nil
	batches.Put(b)
}

// overhead returns the memory of the batch's packets beside their frames.
func (b *batch) overhead() int { return len(b.packets) * packetOverhead }

// smallFrame is the size up to which copying a frame is cheaper than passing it to the kernel
// separately. It also keeps vectors short: the runtime keeps the longest one of each connection
// permanently.
const smallFrame = 2 << 10

// buffers returns the packets of the batch in the form that form gives them, in as few buffers as
// possible: small ones are copied together, large ones referenced. between separates the packets.
// The buffers are valid until the batch is released.
func (b *batch) buffers(form func(*Packet) []byte, between string) *net.Buffers {
	if len(b.packets) == 1 {
		b.vector = append(b.vector, form(b.packets[0]))
	} else {
		b.gather(form, between)
	}
	b.left = b.vector // writing consumes the slice; the pool needs the whole slice
	return &b.left
}

func (b *batch) gather(form func(*Packet) []byte, between string) {
	b.join = slices.Grow(b.join, b.bytes-b.shared+len(b.packets)*len(between))
	start := 0 // of the run of small frames that ends join
	flush := func() {
		if len(b.join) > start {
			b.vector = append(b.vector, b.join[start:])
			start = len(b.join)
		}
	}
	for i, p := range b.packets {
		if i > 0 {
			b.join = append(b.join, between...)
		}
		f := form(p)
		if len(f) <= smallFrame {
			b.join = append(b.join, f...)
			continue
		}
		flush()
		b.vector = append(b.vector, f)
	}
	flush()
}

// writeParts writes buffers in parts, and notes progress after each.
func (c *Conn) writeParts(w io.Writer, bufs net.Buffers) error {
	for len(bufs) > 0 {
		n, k := len(bufs[0]), 1
		for k < len(bufs) && n+len(bufs[k]) <= writePart {
			n += len(bufs[k])
			k++
		}
		var err error
		if n > writePart { // k is 1
			_, err = w.Write(bufs[0][:writePart])
			bufs[0] = bufs[0][writePart:]
		} else {
			part := bufs[:k]
			bufs = bufs[k:]
			_, err = part.WriteTo(w)
		}
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.progress()
		c.mu.Unlock()
	}
	return nil
}

// push queues packets, adjacent and in order, and starts a writer if the transport can write and
// none is active. It returns how many bytes are then queued on all connections. c.mu is held.
func (c *Conn) push(ps ...*Packet) (all int64) {
	if c.pending == nil {
		c.pending = batches.Get().(*batch)
	}
	c.pending.packets = append(c.pending.packets, ps...)
	all = c.count(c.pending, ps)
	c.kick()
	return all
}

// pushPong queues a pong in place of the pending one, if there is one: only the latest ping must be
// answered (RFC 6455, section 5.5.3). So a peer that reads nothing cannot fill the queue with
// pongs. c.mu is held.
func (c *Conn) pushPong(p *Packet) {
	b := c.pending
	if b == nil || b.pong == 0 {
		c.push(p)
		c.pending.pong = len(c.pending.packets)
		return
	}
	old := &b.packets[b.pong-1]
	more := p.Len() - (*old).Len() // both are small
	*old = p
	b.bytes += more
	if !c.off {
		c.queued += more
		c.server.counts.queued.Add(int64(more))
	}
}

// kick starts a writer for what is queued. c.mu is held.
func (c *Conn) kick() {
	if c.pending != nil && !c.writing {
		c.writing = c.transport.start()
	}
}

// take passes what is queued to the writer, or nil if nothing is. c.mu is held.
func (c *Conn) take() *batch {
	c.taken, c.pending = c.pending, nil
	return c.taken
}

// discard drops queued packets that the writer has not taken. c.mu is held.
func (c *Conn) discard() {
	b := c.pending
	c.pending = nil
	c.done(b)
}

// done releases b, which must not be used any more. c.mu is held.
func (c *Conn) done(b *batch) {
	if b == nil {
		return
	}
	c.uncount(b)
	if c.taken == b {
		c.taken = nil
	}
	b.release()
	if c.closed != nil && c.queued == 0 {
		c.server.emptied(c)
	}
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// rest notes that the writer stops. Another one may have to continue: after an upgrade the last
// poll hands over to the WebSocket. c.mu is held.
func (c *Conn) rest() {
	c.writing = false
	c.kick()
	if !c.writing && c.resting != nil {
		close(c.resting)
		c.resting = nil
	}
}
