package socketio

import (
	"context"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A place is the position of a command that joins rooms, for one socket.
type place struct {
	at     adapter.Cursor   // the join position
	due    adapter.Position // see begins
	cursor adapter.Cursor   // the feed's, after the command
	before adapter.Cursor   // the feed's, before it
	seen   adapter.Cursor   // up to which the socket had been given its events by then
	prior  adapter.Cursor   // see command
	older  []string         // rooms that the socket is in, but joined after the command
	marker *marker
}

// A backlog holds the events of rooms that a socket missed before a command joined it to them.
type backlog struct {
	events []*delivery // not yet reached by the node when it reached the command
	late   []*delivery // already reached, in the order of positions
	// had are the positions of copies of events that the socket has been given as later copies, and
	// the positions of these.
	had  map[adapter.Position]adapter.Position
	owed []owedCopy
}

// since returns the events stored in rooms after a join position, up to the feed's cursor. The
// gate is shut meanwhile. The caller holds the right to change.
//
// With several partitions, the node may have reached events of the rooms before it reached the
// command. The socket may have received some of them as a member of other rooms; reading these
// rooms as well shows which.
func (s *Socket) since(ctx context.Context, names []string, by *place) (missed backlog, err error) {
	a, list := s.ns.srv.adapter, inNamed(s.nsName, slices.Concat(names, by.older))
	s.mu.Lock()
	was := s.rooms.clone()
	s.mu.Unlock()
	at, err := by.marker.await(ctx, s)
	if err != nil {
		return missed, err
	}
	progress := adapter.NewProgress(by.seen) // in each partition up to the marker: later events are still to come
	end := by.seen
	for _, p := range at {
		end = progress.To(p)
	}
	now := was.clone()
	for _, name := range names {
		now.confirm(name, by.at)
	}
	for _, name := range by.older {
		now.precede(name, by.at, adapter.Position{})
	}
	var from map[rooms.Room]adapter.Cursor
	after := by.at
	if by.due != (adapter.Position{}) {
		from, after = was.since(s.nsName, s.ID(), by.prior, adapter.Cursor{}), by.prior
	}
	for _, room := range list {
		put(&from, room, after)
	}
	for ev, err := range a.Replay(ctx, from, end, 0) {
		if err == nil {
			err = wellFormed(&ev)
		}
		if err != nil {
			return missed, err
		}
		if !by.seen.Covers(ev.Position) {
			if slices.ContainsFunc(ev.Target.To, func(r rooms.Room) bool { return slices.Contains(list, r) }) {
				missed.events = append(missed.events, s.ns.newDelivery(&ev))
			}
			continue
		}
		switch id := s.ID(); {
		case was.takes(&ev, id):
			if now.takes(&ev, id) {
				continue
			}
			for _, c := range ev.Earlier {
				put(&missed.had, c.At, ev.Position)
			}
		case now.takes(&ev, id):
			missed.late = append(missed.late, s.ns.newDelivery(&ev))
		default:
			in := func(r rooms.Room, at adapter.Position) bool { return now.in(r, id, at) }
			if at, found := ev.Instead(in); found && !by.seen.Covers(at) {
				missed.owed = append(missed.owed, copyInstead(&ev, at, &now, id))
			}
		}
	}
	had := func(d *delivery) bool { _, had := missed.had[d.ev.Position]; return had }
	missed.late = slices.DeleteFunc(missed.late, had)
	return missed, nil
}
