package redis

import (
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// The copies of an event, one for each of its rooms, arrive one after another: Redis executes a
// script as a whole. Those of rooms that this node is subscribed to are merged into one event,
// which names these rooms. It is complete when its last copy has arrived, or anything that Redis
// has sent after them: an event at another position, or the answer to a PING that is sent if the
// last copy is for a room that this node is not subscribed to.
//
// The tail covers complete events only. So a generation that ends between two copies
// leaves a tail before the event, and the next catch-up reads all of them.

// coming is an event whose copies are arriving.
type coming struct {
	event *adapter.Event // nil if there is none
	err   error          // its decoding error
	size  int
	// The lists that precede the copies of a listed event.
	lists   string
	listsAt adapter.Position
}

// roomSize is the memory of one more room of an event, in bytes, without its name.
const roomSize = 64

// testCopy is called, in tests, with each copy of an event that others follow.
var testCopy func(*generation)

// arrived processes a copy of an event, for a room's channel; more says that others follow. It
// never waits: messages without space are read again later.
func (g *generation) arrived(name string, at adapter.Position, more bool, payload string) {
	p := g.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if g.over() {
		return
	}
	if at.Ms > p.horizon && g.isAhead(at) {
		g.hold(ahead{name, at, more, payload})
		return
	}
	g.accept(name, at, more, payload)
}

// accept is arrived for a message that is not ahead of the clock. p.mu is held.
func (g *generation) accept(name string, at adapter.Position, more bool, payload string) {
	p := g.p
	if c := &g.coming; c.event != nil && c.event.Position != at {
		g.complete()
	}
	if strings.HasPrefix(name, "probe:") {
		p.probed = time.Now()
		p.roundTrip = time.Since(p.probeSent)
		p.probeDue = time.Time{}
		g.repeated(at)
		if g.flow == passing {
			p.tail = later(p.tail, at)
			p.trail.swear(g.server.run, p.tail)
			if p.feed.Full() == nil { // otherwise an event or the next probe reports it
				p.feed.Put(fed{from: place{g.epoch, p.tail}}, 0)
			}
		}
		return
	}
	if g.flow == dropping || at.Compare(p.tail) <= 0 {
		g.repeated(at)
		return
	}
	if name == listsName {
		g.coming.lists, g.coming.listsAt = payload, at
		return
	}
	h := p.rooms[name]
	if h == nil || h.room == nil { // no longer subscribed
		return
	}
	if c := &g.coming; c.event != nil {
		c.event.Target.To = append(c.event.Target.To, h.room...)
		c.size += roomsSize(h.room)
	} else {
		g.begins(h.room, at, payload)
	}
	if more && testCopy != nil {
		testCopy(g)
	}
	if !more {
		g.complete()
	} else if !g.fenced {
		g.fenced = true
		g.fence <- struct{}{} // which is empty
	}
}

// over reports whether the generation's events no longer count. p.mu is held.
func (g *generation) over() bool {
	return g.p.gen != g || g.p.epoch != g.epoch || g.ctx.Err() != nil
}

// begins processes the first copy of an event. p.mu is held.
func (g *generation) begins(to []rooms.Room, at adapter.Position, payload string) {
	c := &g.coming
	g.p.sizes.saw(len(payload))
	e, listed, err := decodeEvent(payload, to)
	if err == nil && listed {
		switch {
		case c.listsAt == at:
			err = decodeLists(c.lists, e)
		case g.flow == holding:
			// It was published before the lists arrived, hence before the end of the
			// catch-up, which reads it.
			return
		default:
			err = fmt.Errorf("%w: lists missing", errMalformed)
		}
	}
	if err != nil {
		g.p.malformed(fmt.Sprint(to), err)
		g.p.meets(err)
		e = &adapter.Event{Target: rooms.Target{To: to}}
	}
	e.Position = at
	c.event, c.err, c.size = e, err, eventOverhead+len(payload)+listsSize(e)
}

// passed is called when Redis has answered a PING: everything it sent before has arrived.
func (g *generation) passed() {
	g.p.mu.Lock()
	defer g.p.mu.Unlock()
	g.fenced = false
	if !g.over() {
		g.complete()
	}
}

// complete completes the event whose copies have arrived, if there is one. p.mu is held.
func (g *generation) complete() {
	p, e, err, size := g.p, g.coming.event, g.coming.err, g.coming.size
	g.coming.event, g.coming.err = nil, nil
	switch {
	case e == nil || g.flow == dropping:
	case err != nil && g.flow == holding:
		g.broken = append(g.broken, e.Target.To...)
	case err != nil:
		p.loseRooms(err.Error(), e.Target.To, place{g.epoch, e.Position})
		p.tail = e.Position
	case g.flow == holding && g.bytes+size <= heldBytes:
		g.held = append(g.held, e)
		g.bytes += size
	case g.flow == passing && p.feed.Full() == nil:
		p.feed.Put(fed{event: e}, size)
		p.tail, g.newest = e.Position, e.Position
		p.trail.note(e)
	default:
		g.overflow()
	}
}

// overflow drops what arrives until a catch-up has read it again. p.mu is held.
func (g *generation) overflow() {
	g.flow, g.held, g.bytes = dropping, nil, 0
	g.p.stats.gaps.Add(1)
	select {
	case g.behind <- struct{}{}:
	default:
	}
}

// unplaced handles a message whose position cannot be read.
func (g *generation) unplaced(name string, err error) {
	p := g.p
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.rooms[name]
	switch {
	case g.over() || h == nil || h.room == nil:
	case g.flow == passing:
		p.loseRooms(err.Error(), h.room, place{g.epoch, p.tail})
	default:
		g.broken = append(g.broken, h.room...)
	}
}

// malformed counts and logs a message that can't be decoded.
func (p *partition) malformed(channel string, err error) {
	p.stats.malformed.Add(1)
	p.strange.Error("undecodable cluster message", zap.String("channel", channel), zap.Error(err))
}

func later(a, b adapter.Position) adapter.Position {
	if a.Compare(b) < 0 {
		return b
	}
	return a
}
