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
	bytes   int    // of their frames
	pong    int    // 1 + the index of the pong, of which there is at most one; 0 without
	shared  int    // of the bytes, those of packets that count once on all connections
	copied  int    // bytes of other forms of the packets, which no other connection shares
	paced   int    // memory of the packets that SendPaced queued
	answers [2]int // bytes of their frames, of small and of large ones

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

// countedJoin is the size of a batch from which what is joined of it, and other forms of its packets,
// count. Many unread responses just below it take as much again.
const countedJoin = 16 << 10

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
	paced   int       // of bytes, those that SendPaced queued
	answers [2]int    // bytes of their frames, of small and of large ones
	waiting [2]int    // memory of paced packets that are not queued yet, of small and of large ones
	off     bool      // the queue no longer counts
	moved   time.Time // when bytes was last 0, or something was written since; only if bytes is not 0
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
		q.counts.queued.Add(int64(more))
	}
}

// addCopy counts another form of a batch, such as a compressed response, until the batch is removed. It
// returns how many bytes are then held on all connections.
func (q *queue) addCopy(b *batch, n int) (all int64) {
	if q.off {
		return 0
	}
	b.copied += n
	return q.counts.queued.Add(int64(n))
}

// addForms counts what buffers has made of a batch beside the frames: other forms of packets, which they
// keep, and what it has joined.
func (q *queue) addForms(b *batch, form func(*Packet) []byte) (all int64) {
	if q.off {
		return 0
	}
	n := cap(b.join)
	for _, p := range b.packets {
		if f := form(p); !p.contains(f) && !p.countForm(q.counts, len(f)) {
			n += len(f)
		}
	}
	return q.addCopy(b, n)
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
	if q.bytes -= b.bytes + b.overhead(); q.bytes > 0 { // otherwise the next add notes the time
		q.moved = time.Now()
	}
	q.paced -= b.paced
	q.answers[small] -= b.answers[small]
	q.answers[large] -= b.answers[large]
	n := b.sum(func(p *Packet) int { return p.release(q.counts) })
	q.counts.queued.Add(int64(-n))
}

// notePaced notes that the packets that were just added do not count in the limit of the queue.
func (q *queue) notePaced(ps []*Packet) {
	if !q.off {
		n, all := length(ps), memory(ps)
		q.pending.paced += all
		q.paced += all
		q.pending.answers[paceOf(n)] += n
		q.answers[paceOf(n)] += n
	}
}

// wait counts bytes of a kind that wait to be queued, or that wait no longer if it is negative. It
// returns how many bytes are then held on all connections.
func (q *queue) wait(kind, bytes int) (all int64) {
	if q.off {
		return 0
	}
	q.waiting[kind] += bytes
	return q.counts.queued.Add(int64(bytes))
}

// stopCounting uncounts what waits and what the writer has taken. From here on the queue counts
// nothing.
func (q *queue) stopCounting() {
	q.wait(small, -q.waiting[small])
	q.wait(large, -q.waiting[large])
	if q.taken != nil {
		q.uncount(q.taken)
	}
	q.off, q.bytes, q.paced, q.answers = true, 0, 0, [2]int{}
}

// load returns how many bytes are held for the connection; of packets shared with others, its part.
func (q *queue) load() (n int) {
	n = q.waiting[small] + q.waiting[large]
	for _, b := range []*batch{q.pending, q.taken} {
		if b != nil {
			n += b.sum(func(p *Packet) int { return (p.Len() + int(p.forms.Load())) / max(1, int(p.queued.Load())) })
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
