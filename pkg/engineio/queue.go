package engineio

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A batch is the content of one write: the packets queued since the last one. Batches are pooled,
// so that an idle connection holds none.
type batch struct {
	packets []*Packet
	bytes   int // of their frames
	pong    int // 1 + the index of the pong, of which there is at most one; 0 without
	shared  int // of the bytes, those of packets that count once on all connections
	copied  int // bytes of a compressed response, which no other connection shares

	response *http.ResponseController // of the GET that is answered with the batch; or nil

	join   []byte      // small frames, concatenated
	vector net.Buffers // the buffers to write: parts of join, and large frames
	left   net.Buffers // the rest of vector while it is being written
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// Limits of the memory that a batch keeps in the pool. The garbage collector frees the memory
// of a burst.
const (
	keepPackets = 1024
	keepJoin    = 64 << 10
)

// recycle returns the batch to the pool.
func (b *batch) recycle() {
	if cap(b.packets) > keepPackets || cap(b.join) > keepJoin {
		return
	}
	clear(b.packets)
	clear(b.vector)
	*b = batch{packets: b.packets[:0], join: b.join[:0], vector: b.vector[:0]}
	batches.Put(b)
}

// overhead returns the memory of the batch's packets beside their frames.
func (b *batch) overhead() int { return len(b.packets) * packetOverhead }

// sum returns the memory of the batch. It calls shared for the memory of each packet that
// connections share.
func (b *batch) sum(shared func(*Packet) int) int {
	n := b.bytes - b.shared + b.overhead() + b.copied
	if b.shared > 0 {
		for _, p := range b.packets {
			if p.Len() > smallFrame {
				n += shared(p)
			}
		}
	}
	return n
}

// smallFrame is the size up to which copying a frame is cheaper than passing it to the kernel
// separately. It also keeps vectors short: the runtime keeps the longest one of each connection
// permanently.
const smallFrame = 2 << 10

// buffers returns the packets of the batch in the form that form gives them, in as few buffers as
// possible: small ones are copied together, large ones referenced. between separates the packets.
// The buffers are valid until the batch is recycled.
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

// A queue holds the packets of one connection that are pending or being written, and counts them.
// The connection's mu guards it.
type queue struct {
	counts  *counts // of the server
	pending *batch
	taken   *batch    // by the writer
	bytes   int       // the memory of both, not counting copies; see Conn.Queued
	sent    uint64    // bytes that are no longer counted
	off     bool      // the queue no longer counts
	moved   time.Time // when bytes was 0, or something was last written
}

// add queues packets, adjacent and in order. It returns how many bytes are then queued on all
// connections.
func (q *queue) add(ps ...*Packet) (all int64) {
	if q.pending == nil {
		q.pending = batches.Get().(*batch)
	}
	b := q.pending
	b.packets = append(b.packets, ps...)
	n, shared, held := 0, 0, 0
	for _, p := range ps {
		n += p.Len()
		if p.Len() > smallFrame {
			shared += p.Len()
			if !q.off {
				held += p.hold(q.counts)
			}
		}
	}
	b.bytes += n
	b.shared += shared
	if q.off {
		return 0
	}
	if q.bytes == 0 {
		q.moved = time.Now()
	}
	overhead := len(ps) * packetOverhead
	q.bytes += n + overhead
	return q.counts.queued.Add(int64(n - shared + held + overhead))
}

// addPong queues a pong in place of the pending one, if there is one: only the latest ping must be
// answered (RFC 6455, section 5.5.3). So a peer that reads nothing cannot fill the queue with
// pongs.
func (q *queue) addPong(p *Packet) {
	b := q.pending
	if b == nil || b.pong == 0 {
		q.add(p)
		q.pending.pong = len(q.pending.packets)
		return
	}
	old := &b.packets[b.pong-1]
	more := p.Len() - (*old).Len() // both are small
	*old = p
	b.bytes += more
	if !q.off {
		q.bytes += more
		q.sent += uint64(max(0, -more)) // its sum with bytes never shrinks: WaitSent waits for it
		q.counts.queued.Add(int64(more))
	}
}

// addCopy counts the compressed form of a batch, until the batch is removed.
func (q *queue) addCopy(b *batch, n int) {
	if !q.off {
		b.copied = n
		q.counts.queued.Add(int64(n))
	}
}

// take passes the pending batch to the writer, or nil if there is none.
func (q *queue) take() *batch {
	q.taken, q.pending = q.pending, nil
	return q.taken
}

// remove removes a batch that is pending or was taken, and must not be used any more.
func (q *queue) remove(b *batch) {
	q.uncount(b)
	switch b {
	case q.taken:
		q.taken = nil
	case q.pending:
		q.pending = nil
	}
	b.recycle()
}

func (q *queue) uncount(b *batch) {
	if q.off {
		return
	}
	q.moved = time.Now()
	q.bytes -= b.bytes + b.overhead()
	q.sent += uint64(b.bytes + b.overhead())
	n := b.sum(func(p *Packet) int { return p.letGo(q.counts) })
	q.counts.queued.Add(int64(-n))
}

// stopCounting stops counting the packets that the writer has taken. From here on the queue
// counts nothing.
func (q *queue) stopCounting() {
	if q.taken != nil {
		q.uncount(q.taken)
	}
	q.off, q.bytes = true, 0
}

// load returns how many bytes are held for the connection; of packets shared with others, its part.
func (q *queue) load() (n int) {
	for _, b := range []*batch{q.pending, q.taken} {
		if b != nil {
			n += b.sum(func(p *Packet) int { return p.Len() / max(1, int(p.queued.Load())) })
		}
	}
	return n
}

// unsent returns the bytes of the frames that are pending or being written.
func (q *queue) unsent() (n int) {
	for _, b := range []*batch{q.pending, q.taken} {
		if b != nil {
			n += b.bytes
		}
	}
	return n
}

// stalled reports whether something has been queued for d without any progress.
func (q *queue) stalled(d time.Duration) bool { return q.bytes > 0 && time.Since(q.moved) >= d }
