package socketio

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Values of an adapter event's Kind.
const (
	kindEmit       uint8 = iota // an event for clients
	kindJoin                    // its target's members join the rooms in Data
	kindLeave                   // its target's members leave the rooms in Data
	kindDisconnect              // its target's members are disconnected
	kindFetch                   // asks every node to describe the target's members
	kindServerSide              // an event for the handlers of other nodes
	kindMarker                  // has no receiver: published for its position, see marker
)

// Values of an adapter event's Flags.
const (
	flagVolatile   uint8 = 1 << iota // dropped for clients that are behind
	flagNoCompress                   // not compressed on polling
	flagCloseConn                    // a disconnect that closes the whole connection
)

// A delivery is one event in flight to this node's members. All of them share it and its packets.
// A packet is encoded when the first member needs it.
type delivery struct {
	ns *Namespace
	ev *adapter.Event
	// cursor is the stamp of the event: the node's cursor after it.
	cursor   adapter.Cursor
	excluded string // the id of the socket that a simple event excludes, or ""
	// ackID numbers the acks that the event requests, the same for all members on
	// this node; empty for none.
	ackID     string
	responder *responder // gathers these acks

	// local events come from this node and have no position of their own.
	local bool
	// late events are for one socket, which a command has joined to a room: the node reached them
	// before it reached the command.
	late    bool
	command *command // nil for other events
	// simple events go to one room and exclude at most one socket, so any other member of the room
	// receives them.
	simple bool
	// holders is the number of gates that hold it.
	holders atomic.Int32
	encoded encoded
	plain   encoded // without an offset, if the event has one
	// alike has the packets instead, if others of the same event and cursor share them; or nil.
	alike *alike

	indexed sync.Once
	index   *adapter.TargetIndex // nil for events with few rooms
}

// encoded are packets that are encoded when they are first needed.
type encoded struct {
	once    sync.Once
	packets []*engineio.Packet
}

// alike are the packets of deliveries that several sockets have of one event: they have read it from a backlog.
type alike struct{ encoded, plain encoded }

func (n *Namespace) newDelivery(ev *adapter.Event) *delivery {
	d := &delivery{ns: n, ev: ev, cursor: ev.Cursor, command: newCommand(ev)}
	if len(ev.Target.To) == 1 && len(ev.Earlier) == 0 {
		switch except := ev.Target.Except; {
		case len(except) == 0:
			d.simple = true
		case len(except) == 1 && except[0].Kind == rooms.Own:
			d.simple, d.excluded = true, except[0].Name
		}
	}
	return d
}

// with returns a delivery of the same event that also covers the rooms of another one.
func (d *delivery) with(o *delivery) *delivery {
	if !slices.ContainsFunc(o.ev.Target.To, func(r rooms.Room) bool { return !slices.Contains(d.ev.Target.To, r) }) {
		return d
	}
	ev := *d.ev
	ev.Target.To = slices.Concat(d.ev.Target.To, o.ev.Target.To)
	both := d.ns.newDelivery(&ev)
	if both.command != nil {
		both.command.before = d.command.before
	}
	return both
}

// deliveryOverhead is the memory of a held or queued delivery beside its payload: its offset, and the
// overhead that a connection counts for a packet.
const deliveryOverhead = 192

func (d *delivery) size() int {
	return len(d.ev.Data) + totalSize(d.ev.Attachments) + deliveryOverhead*(1+len(d.ev.Attachments))
}

func (d *delivery) volatile() bool { return d.ev.Flags&flagVolatile != 0 }

// encode returns the packets for a socket, with a cursor as their offset if the socket recovers.
// All sockets share them, unless the cursor is not the event's own: an event is encoded at most
// twice, with and without its offset, and once more for each socket whose recovery reached further
// than the node's feed. The feed reaches that position within seconds, whether there are events or
// not.
func (d *delivery) encode(c *adapter.Cursor, recovers bool) []*engineio.Packet {
	e, plain, offset := &d.encoded, &d.plain, d.hasOffset()
	if d.alike != nil {
		e, plain = &d.alike.encoded, &d.alike.plain
	}
	switch {
	case offset && !recovers:
		e, offset = plain, false
	case offset && c != &d.cursor && *c != d.cursor:
		return encodeEvent(d, *c, true)
	}
	e.once.Do(func() { e.packets = encodeEvent(d, *c, offset) })
	return e.packets
}

// hasOffset reports whether sockets that recover get an offset with the event.
// Every event without an ack ID carries one, stored or not, because these clients
// take any string that comes last for their offset. An event with an ack ID
// carries none, because a string before the ack function breaks handlers.
func (d *delivery) hasOffset() bool { return d.ackID == "" && d.ns.srv.opts.recovery() }

// An adapter event allows as many attachments as a packet.
const _ = uint(adapter.MaxAttachments-packet.MaxAttachments) + uint(packet.MaxAttachments-adapter.MaxAttachments)

// wellFormed returns an error that wraps [adapter.ErrUndecodable] for an event that no node
// publishes: its data are not a list of arguments (only the ends are checked), or it is a command
// that does not name its rooms. Such data, if sent to clients, would end the process or the
// connections of its members.
func wellFormed(ev *adapter.Event) error {
	switch n := len(ev.Data); {
	case ev.Omitted > 0:
	case ev.Kind == kindEmit && !(n > 2 && ev.Data[0] == '[' && ev.Data[n-1] == ']'):
		return fmt.Errorf("%w: not a list of arguments", adapter.ErrUndecodable)
	case ev.Kind == kindJoin || ev.Kind == kindLeave:
		if err := json.Unmarshal(ev.Data, new([]string)); err != nil {
			return fmt.Errorf("%w: command rooms: %w", adapter.ErrUndecodable, err)
		}
	}
	return nil
}

// encodeEvent makes the engine packets of an event, with a cursor as its offset or
// without.
func encodeEvent(d *delivery, c adapter.Cursor, offset bool) []*engineio.Packet {
	p := packet.Packet{
		Type: packet.Event, Namespace: d.ns.name, ID: d.ackID, Data: d.ev.Data, Attachments: d.ev.Attachments,
	}
	noCompress := d.ev.Flags&flagNoCompress != 0
	if !offset {
		return enginePackets(&p, noCompress)
	}
	p.Data = p.Data[:len(p.Data)-1] // without the bracket
	text := p.AppendText(make([]byte, 0, textRoom(&p)+offsetRoom+len(c.Epoch)))
	text = append(text, ',', '"')
	text = d.ns.srv.offsets.appendTo(text, c)
	text = append(text, '"', ']')
	return engineMessages(text, p.Attachments, noCompress)
}

// offsetRoom is the maximum size of an offset, without its epoch, if there is one partition.
const offsetRoom = 64

// withoutOffset appends null to an event that is sent before CONNECT, in the place of the
// offset. Clients take any trailing string for their offset, and this client's offset must
// not change: its events are determined after the middlewares.
func withoutOffset(data []byte) []byte {
	return append(data[:len(data)-1], ",null]"...)
}

// enginePackets turns a Socket.IO packet into the messages that carry it, which
// must be sent adjacent and in order.
func enginePackets(p *packet.Packet, noCompress bool) []*engineio.Packet {
	return engineMessages(p.AppendText(make([]byte, 0, textRoom(p))), p.Attachments, noCompress)
}

// textRoom is the maximum length of a packet's text, unless its id is long.
func textRoom(p *packet.Packet) int { return len(p.Data) + len(p.Namespace) + 32 }

func engineMessages(text []byte, attachments [][]byte, noCompress bool) []*engineio.Packet {
	ps := make([]*engineio.Packet, 0, 1+len(attachments))
	ps = append(ps, engineio.Text(text))
	for _, a := range attachments {
		ps = append(ps, engineio.Binary(a))
	}
	if noCompress {
		for i := range ps {
			ps[i] = ps[i].NoCompress()
		}
	}
	return ps
}

// instead returns the position of the copy that a member takes instead of this later one, if there is
// one.
func (d *delivery) instead(m *memberships, id string) (at adapter.Position, found bool) {
	in := func(r rooms.Room, at adapter.Position) bool { return m.in(r, id, at) }
	if d.index != nil { // isFor has made it
		return d.index.Instead(in, m.all(d.ns.name, id))
	}
	return d.ev.Instead(in)
}

// meant reports whether the event is for the member with these stays.
func (d *delivery) meant(m *memberships, id string) bool {
	return d.isFor(m, id, func(r rooms.Room, at adapter.Position) bool {
		if d.local {
			return m.inNow(r, id)
		}
		return m.in(r, id, at)
	})
}

// meantNow is meant for the rooms that the member is in now, including those that it is joining.
func (d *delivery) meantNow(m *memberships, id string) bool {
	return d.isFor(m, id, func(r rooms.Room, _ adapter.Position) bool { return m.inNow(r, id) })
}

func (d *delivery) isFor(m *memberships, id string, in func(rooms.Room, adapter.Position) bool) bool {
	if d.simple {
		return d.ev.For(in)
	}
	d.indexed.Do(func() { d.index = adapter.NewTargetIndex(d.ev) })
	if d.index == nil {
		return d.ev.For(in)
	}
	return d.index.For(in, m.all(d.ns.name, id))
}

// formatAckID returns the n-th ack id. Some clients read ids as 32-bit integers. Nodes begin at random
// numbers: a client that has moved to another node may answer a query of the former one, and that
// must not be taken for the answer to another query.
func formatAckID(n uint64) string { return strconv.FormatUint(n&math.MaxInt32, 10) }
