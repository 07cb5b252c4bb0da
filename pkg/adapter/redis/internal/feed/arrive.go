package feed

import (
	"fmt"
	"strings"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// The copies of an event, one for each of its rooms, arrive one after another: Redis executes a
// script as a whole. Those of rooms that this node is subscribed to are merged into one event,
// which names these rooms. The event is complete when its last copy has arrived, or anything
// that Redis sends after it: an event at another position, or the answer to a PING. The PING is
// sent if the last copy is for a room that this node is not subscribed to.
//
// The tail covers complete events only. So a generation that ends between two copies
// leaves a tail before the event, and the next catch-up reads all of them.

// A Message is a copy of an event, or something else with a position, on a channel of the history.
type Message struct {
	Name    string // of the channel within the history
	At      adapter.Position
	More    bool // further copies of the event follow, to other rooms
	Payload string
}

// Names of channels that are not those of rooms.
const (
	Lists  = "lists"  // of the lists of listed events
	Probes = "probe:" // begins those of probes
)

// coming is an event whose copies are arriving.
type coming struct {
	event *adapter.Event // nil if there is none
	err   error          // its decoding error
	// The lists that precede the copies of a listed event.
	lists   string
	listsAt adapter.Position
}

// Arrived processes a message. Messages without space are read again later. The time is needed only
// if the position is [Feed.Beyond] the horizon.
func (f *Feed) Arrived(m Message, now time.Time, s Space) *Output {
	switch {
	case !f.input(s):
	case len(f.gen.ahead.messages) > 0 || f.Beyond(m.At) && f.isAhead(m.At, now):
		f.hold(m)
	default:
		f.accept(m)
	}
	return &f.out
}

// accept is Arrived for a message that is not ahead of the clock.
func (f *Feed) accept(m Message) {
	g := f.gen
	if e := g.coming.event; e != nil && e.Position != m.At {
		f.complete()
	}
	if strings.HasPrefix(m.Name, Probes) {
		f.probed(m.At)
		return
	}
	if g.flow == dropping || m.At.Compare(f.tail) <= 0 {
		f.repeated(m.At)
		return
	}
	if m.Name == Lists {
		g.coming.lists, g.coming.listsAt = m.Payload, m.At
		return
	}
	r, ok := f.rooms[m.Name]
	if !ok { // no longer subscribed
		return
	}
	if e := g.coming.event; e != nil {
		e.Target.To = append(e.Target.To, r.to...)
	} else {
		f.begins(m, r)
	}
	if !m.More {
		f.complete()
	} else if !g.fenced {
		g.fenced, f.out.Ping = true, true
	}
}

// probed processes a probe of this node: a sign that the feed is complete up to it.
func (f *Feed) probed(at adapter.Position) {
	f.out.Probed = true
	f.repeated(at)
	if !f.Passing() {
		return
	}
	f.reach(at)
	f.former.confirm(f.gen.server, f.tail)
	if !f.full() { // otherwise an event or the next probe reports it
		f.put(adapter.Item{Epoch: f.epoch, At: f.tail}, 0)
	}
}

// begins processes the first copy of an event.
func (f *Feed) begins(m Message, r room) {
	c := &f.gen.coming
	e, listed, err := f.config.Decode(m.Payload, r.to)
	if err == nil && listed {
		switch {
		case c.listsAt == m.At:
			err = f.config.DecodeLists(c.lists, e)
		case f.gen.flow == holding:
			// It was published before the lists arrived, hence before the end of the
			// catch-up, which reads it.
			return
		default:
			err = fmt.Errorf("%w: malformed: lists missing", adapter.ErrUndecodable)
		}
	}
	if err != nil {
		f.note(Note{What: Undecodable, Name: m.Name, Err: err})
		e = new(adapter.Event)
		e.Target.To = r.to
	}
	e.Position = m.At
	c.event, c.err = e, err
}

// Pong processes the answer to a PING: everything that Redis sent before it has arrived.
func (f *Feed) Pong(s Space) *Output {
	if f.input(s) {
		f.gen.fenced = false
		f.complete()
	}
	return &f.out
}

// complete completes the event whose copies have arrived, if there is one.
func (f *Feed) complete() {
	g, e, err := f.gen, f.gen.coming.event, f.gen.coming.err
	g.coming.event, g.coming.err = nil, nil
	switch {
	case e == nil || g.flow == dropping:
		return
	case err != nil:
		f.undecodable(e.Target.To, err, e.Position)
		f.reach(e.Position)
		return
	}
	switch size := f.config.Size(e); {
	case g.flow == holding && g.bytes+size <= heldBytes:
		g.held = append(g.held, e)
		g.bytes += size
	case g.flow == passing && e.Position.Compare(f.tail) <= 0:
		f.repeated(e.Position)
	case g.flow == passing && !f.full():
		f.put(adapter.Item{Event: e}, size)
		f.reach(e.Position)
		f.former.note(e)
	default:
		f.overflow()
	}
}

// reach moves the feed to the position of a message that has arrived, if that is being passed on.
func (f *Feed) reach(at adapter.Position) {
	if f.gen.flow == passing && f.tail.Compare(at) < 0 {
		f.tail, f.gen.newest = at, at
	}
}

// overflow drops arriving messages until a catch-up has read them again.
func (f *Feed) overflow() {
	g := f.gen
	g.flow, g.held, g.bytes = dropping, nil, 0
	f.note(Note{What: Overflow})
	f.out.CatchUp = true
}

// Malformed processes a message on a channel whose position cannot be read.
func (f *Feed) Malformed(name string, err error) *Output {
	if f.input(Space{}) {
		f.note(Note{What: Undecodable, Name: name, Err: err})
		if r, ok := f.rooms[name]; ok {
			f.undecodable(r.to, err, f.tail)
		}
	}
	return &f.out
}

// undecodable reports a loss in rooms with an undecodable event, once the catch-up has ended.
func (f *Feed) undecodable(list []rooms.Room, err error, at adapter.Position) {
	if f.gen.flow != passing {
		f.gen.unknown = append(f.gen.unknown, list...)
		return
	}
	f.lose(err.Error(), list, at)
}
