package socketio

import (
	"context"
	"fmt"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
)

// Limits of [Event.AckJoin].
const (
	RewindEvents = 200 // of one room
	RewindRooms  = 100 // in one call

	rewindEvents = 1000    // in one ack
	rewindBytes  = 1 << 20 // in one ack
)

// A Rewind says which events of the rooms [Event.AckJoin] returns.
type Rewind struct {
	// Last is the maximum number of events of each room: 0 to [RewindEvents].
	Last int
	// Answer returns the arguments of the ack. It must not use the socket. By default the ack has one
	// argument, the Rewound.
	Answer func(*Rewound) []any
}

// A Rewound is what a joining client has missed. As an argument of an ack it is an object with the
// fields joined and history.
type Rewound struct {
	// Joined is the offset of the join: History has events up to there, and the client gets the later
	// ones as they come.
	Joined string `json:"joined"`
	// History is by room.
	History map[string]RoomHistory `json:"history"`
}

// A RoomHistory is a part of a room's history, which ends at the join.
type RoomHistory struct {
	Events []Past `json:"events"` // oldest first; not nil
	// More means that the room keeps older events, or may do so. [Namespace.History] returns them.
	More bool `json:"more"`
}

// rewoundLevels are the arrays and objects around an event in a Rewound.
const rewoundLevels = 4

// AckJoin puts the event's socket into rooms, as [Socket.Join] does, and acks the event with the newest
// events of these rooms. The ack and the events that follow it have no gap and no repeat: the history
// in the ack ends at the position at which the membership begins, and the client receives the ack
// before any later event. The client thus has the room's stored events from the first one in the ack
// on, except those that are not for it, such as its own with [Broadcast.Except].
//
// An event that was published to other rooms of the client as well may be both in the history and
// among the events that it receives. So may the latest events of a room that it was already in, which
// is not an error: it gets the history up to now.
//
// The ack has at most 1,000 events, 1 MiB of their data, and as many binary parts as a packet may have,
// spread over the rooms. RoomHistory.More is true of rooms with more.
//
// If AckJoin returns an error the event has not been acked, and the socket is in none of the new rooms,
// as after an error of Join. It returns [ErrNoAck], and does nothing, if the event requests no ack. The
// socket gets no events while it runs, so the context should have a deadline. It may wait for the
// client as [Event.Ack] does, before it joins.
func (e *Event) AckJoin(ctx context.Context, r Rewind, rooms ...string) error {
	if !e.HasAck() || e.acked.Load() || e.socket == nil {
		return ErrNoAck
	}
	if len(rooms) > RewindRooms {
		return fmt.Errorf("%w: at most %d with their history", ErrTooManyRooms, RewindRooms)
	}
	e.socket.awaitPublished(ctx, false) // the ack follows what the handler has published
	if err := e.socket.awaitAnswers(ctx); err != nil {
		return err
	}
	return e.socket.join(ctx, rooms, &rewinding{Rewind: r, event: e, rooms: rooms})
}

// awaitAnswers waits until the client has taken most of its answers, so that another one can be queued
// without a wait. No turn is kept: the answers of the connection's other namespaces may come between.
func (s *Socket) awaitAnswers(ctx context.Context) error {
	c, ahead := s.client, s.client.srv.aheadAnswers()
	err := c.whileTaking(ctx, func(ctx context.Context) error { return c.conn.WaitAnswered(ctx, ahead) })
	if err == nil {
		c.awaitCalm(ctx, c.srv.opts.Engine.SendQueueBytes/2)
	}
	return err
}

// A rewinding is one call of AckJoin.
type rewinding struct {
	Rewind
	event   *Event
	rooms   []string
	packets []*engineio.Packet // the ack
}

// read reads the history up to the join, and makes the ack.
func (r *rewinding) read(ctx context.Context, joined adapter.Cursor) error {
	s := r.event.socket
	found := &Rewound{Joined: s.client.srv.offsets.format(joined), History: make(map[string]RoomHistory, len(r.rooms))}
	left := rewindShare{rewindEvents, rewindBytes, packet.MaxAttachments}
	for i, room := range r.rooms {
		if _, read := found.History[room]; read {
			continue
		}
		part := left.of(len(r.rooms)-i, r.Last)
		past, more := []Past{}, true
		if part.events > 0 && part.bytes > 0 || r.Last <= 0 {
			var err error
			past, more, err = s.ns.page(ctx, room, adapter.Page{UpTo: joined, Events: part.events, Bytes: part.bytes})
			if err != nil {
				return fmt.Errorf("reading the history: %w", err)
			}
		}
		history := left.take(past)
		history.More = history.More || more
		found.History[room] = history
	}
	args := []any{found}
	if r.Answer != nil {
		args = r.Answer(found)
	}
	data, attachments, err := encodeArray(args)
	if err != nil {
		return err
	}
	r.packets = enginePackets(&packet.Packet{
		Type: packet.Ack, Namespace: s.nsName, ID: r.event.ackID, Data: data, Attachments: attachments,
	}, false)
	return nil
}

// answer queues the ack. The socket's lock is held.
func (r *rewinding) answer() {
	if !r.event.acked.Swap(true) {
		_ = r.event.socket.client.conn.SendPaced(r.packets...) // a closed connection needs no ack
	}
}

// A rewindShare is what is left of the limits of an ack.
type rewindShare struct{ events, bytes, attachments int }

// of returns the part of one of some rooms.
func (l rewindShare) of(rooms, last int) rewindShare {
	l.events = min(max(last, 0), RewindEvents, max(l.events/rooms, min(l.events, 1)))
	l.bytes = min(HistoryBytes, max(l.bytes/rooms, 0))
	return l
}

// take takes as many of a room's newest events as are allowed.
func (l *rewindShare) take(past []Past) (h RoomHistory) {
	h.Events = []Past{}
	n := fitting(past, l.attachments)
	bytes := 0
	for i := range n {
		p := &past[len(past)-1-i]
		if bytes += p.Size(); bytes > l.bytes && l.bytes < rewindBytes { // the first event of an ack may have any size
			n = i
			break
		}
	}
	for _, p := range past[len(past)-n:] {
		h.Events = append(h.Events, p.Nested(rewoundLevels))
		l.events--
		l.bytes -= p.Size()
		l.attachments -= p.Attachments()
	}
	h.More = n < len(past)
	return h
}
