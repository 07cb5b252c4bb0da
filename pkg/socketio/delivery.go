package socketio

import (
	"strconv"
	"sync"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// What an event of the adapter is to us: its Kind.
const (
	kindEmit       uint8 = iota // an event for clients
	kindJoin                    // its target's members join the rooms named in Data
	kindLeave                   // … leave them
	kindDisconnect              // … are disconnected
	kindFetch                   // asks every node to describe the target's members
	kindServerSide              // an event for the handlers of other nodes
	kindMarker                  // tells a socket how far the feed has come; Data says which
)

// How an event wants to be delivered: its Flags.
const (
	flagVolatile   uint8 = 1 << iota // dropped for clients that are behind
	flagNoCompress                   // not compressed on polling
	flagCloseConn                    // a disconnect that closes the whole connection
)

// A delivery is one event on its way to this node's members. All of them share
// it, and its packets, which are encoded when the first member needs them.
type delivery struct {
	ns *Namespace
	ev *adapter.Event
	// cursor is what the event is stamped with: the node's cursor after it.
	cursor adapter.Cursor
	// local events come from this node and have no position of their own.
	local bool
	// simple events go to one room and spare at most one socket, so whoever else is
	// found in the room is meant.
	simple bool
	spared string // the id of that socket, or ""
	// ackID numbers the acks that the event asks for, the same for all members on
	// this node; empty for none.
	ackID     string
	answering *answering // gathers these acks

	once    sync.Once
	packets []*engineio.Packet
}

func (n *Namespace) newDelivery(ev *adapter.Event) *delivery {
	d := &delivery{ns: n, ev: ev, cursor: ev.Cursor}
	if len(ev.Target.To) == 1 && len(ev.Earlier) == 0 {
		switch except := ev.Target.Except; {
		case len(except) == 0:
			d.simple = true
		case len(except) == 1 && except[0].Kind == rooms.Own:
			d.simple, d.spared = true, except[0].Name
		}
	}
	return d
}

func (d *delivery) size() int {
	n := len(d.ev.Data) + 64
	for _, a := range d.ev.Attachments {
		n += len(a)
	}
	return n
}

func (d *delivery) volatile() bool { return d.ev.Flags&flagVolatile != 0 }

// encode returns the packets stamped with a cursor: the shared ones, unless the
// cursor is not the event's own.
func (d *delivery) encode(c adapter.Cursor) []*engineio.Packet {
	if c != d.cursor {
		return encodeEvent(d, c)
	}
	d.once.Do(func() { d.packets = encodeEvent(d, c) })
	return d.packets
}

// encodeEvent makes the engine packets of an event. Every event without an ack
// id carries an offset as its last argument, stored or not, wherever clients can
// recover: they take any string that comes last for their offset. One with an
// ack id carries none, because a string before the ack function breaks handlers.
func encodeEvent(d *delivery, c adapter.Cursor) []*engineio.Packet {
	data := d.ev.Data
	if d.ackID == "" && d.ns.recovery() {
		offset := d.ns.srv.offsets.format(c)
		stamped := make([]byte, 0, len(data)+len(offset)+4)
		stamped = append(stamped, data[:len(data)-1]...)
		stamped = append(stamped, ',', '"')
		stamped = append(stamped, offset...)
		data = append(stamped, '"', ']')
	}
	p := packet.Packet{
		Type: packet.Event, Namespace: d.ns.name, ID: d.ackID, Data: data, Attachments: d.ev.Attachments,
	}
	return enginePackets(&p, d.ev.Flags&flagNoCompress != 0)
}

// enginePackets turns a Socket.IO packet into the messages that carry it, which
// must be sent adjacent and in order.
func enginePackets(p *packet.Packet, noCompress bool) []*engineio.Packet {
	text := p.AppendText(make([]byte, 0, len(p.Data)+len(p.Namespace)+32))
	ps := make([]*engineio.Packet, 0, 1+len(p.Attachments))
	ps = append(ps, engineio.Text(text))
	for _, a := range p.Attachments {
		ps = append(ps, engineio.Binary(a))
	}
	if noCompress {
		for i := range ps {
			ps[i] = ps[i].NoCompress()
		}
	}
	return ps
}

// meant reports whether the member with these stays is one of those that the
// event is for.
func (d *delivery) meant(m *memberships, id string) bool {
	return d.ev.For(func(r rooms.Room, at adapter.Position) bool {
		if d.local {
			return m.inNow(r, id)
		}
		return m.in(r, id, at)
	})
}

func formatAckID(n uint64) string { return strconv.FormatUint(n, 10) }
