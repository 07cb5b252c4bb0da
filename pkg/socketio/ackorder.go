package socketio

import (
	"context"
	"slices"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// An ackOrder holds the acks of one socket until the socket has been given the events that its own
// handlers published and that it receives, because events pass through the feed and acks do not. It
// is nil for a socket whose handlers publish nothing. The socket's lock guards it.
type ackOrder struct {
	// published are the newest positions of such events, at most one in each
	// partition. Positions that the feed has passed are removed by the next ack.
	published []adapter.Position
	owed      []owedCopy // acks do not wait for them
	held      []*heldAck // in the order of the calls of Ack
	due       int        // of held, the first ones, which wait for the client only
	pacing    bool       // a goroutine sends those
	bytes     int        // approximate memory use of held
	gated     bool       // the gate may hold an event that is not in published
	timer     *time.Timer
	fewer     chan struct{} // closed when fewer are held; nil if nobody waits
	emptied   func()        // called once, when no ack is held; or nil
}

// A heldAck is an ack that waits for the feed, or for its socket's gate; and then for its client, because
// those of many sockets can be due together.
type heldAck struct {
	socket  *Socket
	packets []*engineio.Packet
	bytes   int    // approximate memory use
	pending int    // positions that the feed has not passed
	release func() // of [engineio.Conn.HoldPaced]; nil until it is due
	until   time.Time
}

// A socketContext is the root of its socket's context. It identifies the socket to
// functions that a handler calls.
type socketContext Socket

type socketKey struct{}

func (*socketContext) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }
func (*socketContext) Done() <-chan struct{}                   { return nil }
func (*socketContext) Err() error                              { return nil }

func (c *socketContext) Value(key any) any {
	if key == (socketKey{}) {
		return (*Socket)(c)
	}
	return nil
}

// brings reports whether this feed is expected to deliver a published event.
func (f *feed) brings(r adapter.Receipt) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cursor.SameHistory(r.Cursor)
}

// published notes the position of an event that the socket is expected to receive. Until the event
// arrives, the socket may leave an excepted room and so receive it, or leave the room that the
// first of several copies is for and so receive the next copy: both positions are noted. A room
// that a held command may join counts as joined. So does a room that the socket has left at a
// position behind the event.
func (s *Socket) published(target rooms.Target, r adapter.Receipt) {
	if len(target.To) == 0 || target.To[0].Namespace != s.nsName {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage.gone() || !s.placed {
		return
	}
	joining := s.gate.joining()
	in := func(list []rooms.Room, at adapter.Position) bool {
		return slices.ContainsFunc(list, func(r rooms.Room) bool {
			return s.rooms.inNow(r, s.id) || r.Kind == rooms.Named && (joining[r.Name] || s.rooms.in(r, s.id, at))
		})
	}
	if slices.ContainsFunc(target.Except, func(r rooms.Room) bool { return r.Kind == rooms.Own && s.rooms.inNow(r, s.id) }) {
		return
	}
	if len(r.Copies) == 0 && in(target.To, r.Cursor.At) {
		s.note(r.Cursor.At)
	}
	for _, c := range r.Copies {
		if in(c.To, c.At) {
			s.note(c.At)
		}
	}
}

// ordered returns the socket's ack order and creates it if needed. s.mu is held.
func (s *Socket) ordered() *ackOrder {
	o := s.order.Load()
	if o == nil {
		o = new(ackOrder)
		s.order.Store(o)
	}
	return o
}

// note adds a position to those that the next ack waits for. s.mu is held.
func (s *Socket) note(p adapter.Position) {
	o := s.ordered()
	o.published = withNewest(o.published, p)
}

// withNewest adds a position to a list that has the newest one of each partition.
func withNewest(list []adapter.Position, p adapter.Position) []adapter.Position {
	for i, q := range list {
		if q.Partition == p.Partition {
			if q.Compare(p) < 0 {
				list[i] = p
			}
			return list
		}
	}
	return append(list, p)
}

// awaits reports whether the socket is to be given an event that its handlers published and that the
// feed has not reached. s.mu is held.
func (s *Socket) awaits(reached adapter.Cursor) bool {
	o := s.order.Load()
	return o != nil && slices.ContainsFunc(o.published, func(p adapter.Position) bool { return !reached.Covers(p) })
}

// awaitPublished waits, for at most commandWait, until the feed has reached the events that the
// socket's handlers published and that it receives; if owed is set, also the copies that it is owed.
func (s *Socket) awaitPublished(ctx context.Context, owed bool) {
	o := s.order.Load()
	if o == nil {
		return
	}
	s.mu.Lock()
	published := slices.Clone(o.published)
	for _, c := range o.owed {
		if owed {
			published = withNewest(published, c.at)
		}
	}
	if s.stage.gone() {
		published = nil
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	for _, p := range published {
		s.ns.srv.awaitFeed(ctx, p)
	}
}

// holdAck holds an ack until the socket has been given what its handlers have published, if that must
// be sent before it. If too much is held it waits until less is, so that handlers do not run ahead of
// the feed; an ack that has waited for as long as acks are held is late.
func (s *Socket) holdAck(ps []*engineio.Packet) bool {
	o := s.order.Load()
	if o == nil {
		return false
	}
	s.mu.Lock()
	idle := len(o.published) == 0 && len(o.held) == 0 && !o.gated
	s.mu.Unlock()
	if idle {
		return false
	}
	held, full := s.hold(o, ps)
	if full == nil {
		return held
	}
	release := s.client.conn.HoldPaced(waiterBytes, ps...)
	defer release()
	late := time.NewTimer(s.ns.srv.opts.AckTimeout)
	defer late.Stop()
	for full != nil {
		select {
		case <-full:
			held, full = s.hold(o, ps)
		case <-s.ctx.Done():
			return false
		case <-late.C:
			s.mu.Lock()
			slow := o.due > 0 // it waits for the client, not for the feed
			s.mu.Unlock()
			if !slow {
				s.ns.srv.stats.acksLate.Add(1)
				return false
			}
			late.Reset(s.ns.srv.opts.AckTimeout)
		}
	}
	return held
}

// hold holds an ack if an event must be sent before it. If that is not possible because too much is
// held, full is closed when less is.
func (s *Socket) hold(o *ackOrder, ps []*engineio.Packet) (held bool, full <-chan struct{}) {
	srv := s.ns.srv
	f := &srv.feed
	f.mu.Lock() // so that no event passes meanwhile
	defer f.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage.gone() {
		return false, nil
	}
	gated := s.gate.closed() && (o.gated || len(o.published) > 0) // it may hold them
	o.gated = gated
	o.published = slices.DeleteFunc(o.published, f.cursor.Covers)
	if len(o.published) == 0 && len(o.held) == 0 && !gated {
		return false, nil
	}
	n := eventOverhead + length(ps)
	switch {
	case srv.held.refuses(o.bytes+n, true):
		s.client.limited(limitHeldBudget, int(srv.held.most), "bytes")
		srv.stats.acksLate.Add(uint64(len(o.held)) + 1)
		s.sendAcks(o, len(o.held))
		return false, nil
	case o.bytes > 0 && o.bytes+n > srv.opts.Engine.SendQueueBytes/2: // one ack may have any size
		if o.fewer == nil {
			o.fewer = make(chan struct{})
		}
		return false, o.fewer
	}
	a := &heldAck{socket: s, packets: ps, bytes: n, pending: len(o.published), until: time.Now().Add(srv.opts.AckTimeout)}
	for _, p := range o.published {
		f.hold(feedWait{at: p, ack: a})
	}
	o.held = append(o.held, a)
	o.bytes += n
	srv.held.bytes.Add(int64(n))
	if len(o.held) == o.due+1 {
		s.armAcks(o)
	}
	s.releaseAcks() // it may only follow others that are due
	return true, nil
}

// armAcks sets the timer that bounds how long the first ack is held; it may fire for an earlier one.
// s.mu is held.
func (s *Socket) armAcks(o *ackOrder) {
	if d := time.Until(o.held[o.due].until); o.timer == nil {
		o.timer = time.AfterFunc(d, s.expireAcks)
	} else {
		o.timer.Reset(d)
	}
}

// expireAcks sends the acks that have been held for too long.
func (s *Socket) expireAcks() {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.order.Load()
	now, n := time.Now(), o.due
	for n < len(o.held) && !now.Before(o.held[n].until) {
		n++
	}
	s.ns.srv.stats.acksLate.Add(uint64(n - o.due))
	if s.passAcks(o, n); len(o.held) > o.due {
		s.armAcks(o)
	}
}
