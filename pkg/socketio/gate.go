package socketio

import (
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A gate stands between the feed and one socket. It is shut while an operation is in flight that
// decides which events the socket may get: its first save, a join, or a recovery. Deliveries that
// arrive meanwhile are held, in order, and judged when the gate opens. The zero gate is open. Its
// user's lock guards it.
//
// A held event also holds back all later ones, including those of other rooms: the offset in an
// event covers everything before it, so no event may overtake another.
type gate struct {
	shut int32 // the number of reasons to be shut
	// spilled means that more arrived than may be held, and that the held events were dropped. A
	// recovery reads them again. For any other socket the gate stays shut permanently: an event
	// after the dropped ones would have an offset that hides them from the next recovery.
	spilled bool
	// commanded means that a command that changes rooms was held, or may have been lost, so that
	// the socket's rooms are unknown until it is executed.
	commanded bool
	rereads   bool // it is shut for a replay, which reads again what is dropped
	held      []*delivery
	bytes     int
	// floor is the end of a replay that reached further than the node's feed had. Until the feed
	// passes it, events carry it in place of their own cursor, because a client must never be sent
	// an offset below one that it has.
	floor adapter.Cursor
}

// closed reports whether deliveries are held.
func (g *gate) closed() bool { return g.shut > 0 || g.spilled }

// hold holds d if the gate is closed, up to a limit of bytes, but at least one, and within the node's
// budget. refused means that it has spilled because of the budget.
func (g *gate) hold(d *delivery, limit int) (held, refused bool) {
	if !g.closed() {
		return false, false
	}
	if g.spilled {
		return true, false
	}
	bytes := g.bytes + d.size()
	refused = d.ns.srv.held.refuses(bytes, g.rereads)
	if bytes > limit && len(g.held) > 0 || refused {
		g.drop()
		g.spilled = true
		return true, refused
	}
	g.keep(d)
	g.held = append(g.held, d)
	return true, false
}

// keep counts one more held delivery.
func (g *gate) keep(d *delivery) {
	g.bytes += d.size()
	d.ns.srv.held.keep(d)
}

// unkeep counts one held delivery less.
func (g *gate) unkeep(d *delivery) {
	g.bytes -= d.size()
	d.ns.srv.held.drop(d)
}

// drop drops the held deliveries.
func (g *gate) drop() {
	for _, d := range g.held {
		g.unkeep(d)
	}
	g.held = nil
}

// urgent reports whether a delivery must not wait for a client that reads its replay slowly. A
// disconnect is urgent if no held command affects its receivers.
func (g *gate) urgent(d *delivery) bool {
	named := func(r rooms.Room) bool { return r.Kind == rooms.Named }
	return d.ev.Kind == kindDisconnect &&
		(!g.commanded || !slices.ContainsFunc(d.ev.Target.To, named) && !slices.ContainsFunc(d.ev.Target.Except, named))
}

// joining returns the names of the rooms to which held commands may join the socket; nil if there
// are none.
func (g *gate) joining() (names map[string]bool) {
	for _, d := range g.held {
		if d.ev.Kind != kindJoin {
			continue
		}
		for _, name := range d.command.names {
			put(&names, name, true)
		}
	}
	return names
}

// lose drops the held deliveries and all later ones, because the feed has lost events.
func (g *gate) lose() {
	g.drop()
	g.spilled, g.commanded = true, true
}

// open removes one reason to be shut, and passes the held deliveries if it was the last reason.
// Passing may shut the gate again, which keeps the rest.
func (g *gate) open(pass func(*delivery)) {
	g.shut--
	for !g.closed() && len(g.held) > 0 {
		d := g.held[0]
		g.held[0] = nil
		g.held = g.held[1:]
		g.unkeep(d)
		pass(d)
	}
	if len(g.held) == 0 {
		g.held = nil
	}
}

// discard drops the deliveries that a replay up to end has covered, and remembers the end.
func (g *gate) discard(end adapter.Cursor) {
	kept := g.held[:0]
	for _, d := range g.held {
		if d.local || !d.ev.Stored || !end.Covers(d.ev.Position) {
			kept = append(kept, d)
		} else {
			g.unkeep(d)
		}
	}
	clear(g.held[len(kept):])
	g.held = kept
	g.floor = end
}

// given returns the position up to which the client has been given all events, live or in a replay,
// once the feed has reached c. It belongs to the history in which the socket was created, which the
// feed may not have reached yet.
func (g *gate) given(c, born adapter.Cursor) adapter.Cursor {
	known := g.floor
	if known.IsZero() {
		known = born
	}
	switch {
	case known.IsZero():
		return c
	case !c.SameHistory(known):
		return known
	case g.floor.IsZero():
		return c
	}
	return g.floor.Max(c)
}

// insertLate puts late events, which are older than the client's position, in front of the held
// ones. All but the last of them carry the client's offset from before the command that they are
// due to; the last one carries the command's own. So if there is only one, a client whose offset
// does not cover the command has not received it. Commands among them are due to the one at due.
func (g *gate) insertLate(late []*delivery, before, command adapter.Cursor, due adapter.Position) {
	for i, d := range late {
		c := before
		if i == len(late)-1 {
			c = command
		}
		d.late, d.cursor, d.ev.Cursor = true, c, c
		if d.command != nil {
			d.command.before, d.command.due = before, due
		}
		g.keep(d)
	}
	g.held = append(late, g.held...)
}

// insert puts events that were read after a cursor into their places among the held ones: an event
// whose cursor covers another one follows it. An event that is held already is not inserted again,
// but its rooms are added. Positions are ordered only within a partition, so each has a queue. The
// cursors of inserted events are made here, because they must cover everything before, and nothing
// after.
func (g *gate) insert(missed []*delivery, after adapter.Cursor) {
	if len(missed) == 0 {
		return
	}
	var queues [][]*delivery
	for _, m := range missed {
		i := slices.IndexFunc(queues, func(q []*delivery) bool {
			return q[0].ev.Position.Partition == m.ev.Position.Partition
		})
		if i < 0 {
			i, queues = len(queues), append(queues, nil)
		}
		queues[i] = append(queues[i], m)
	}
	merged := make([]*delivery, 0, len(g.held)+len(missed))
	put := func(m *delivery) {
		before := after
		after = adapter.NewProgress(after).To(m.ev.Position)
		if m.command != nil {
			m.command.before = before
		}
		m.ev.Cursor, m.cursor = after, after
		merged = append(merged, m)
		g.keep(m)
	}
	for _, h := range g.held {
		for i, q := range queues {
			for len(q) > 0 && h.cursor.Covers(q[0].ev.Position) {
				if h.local || q[0].ev.Position != h.ev.Position {
					put(q[0])
				} else {
					g.unkeep(h)
					h = h.with(q[0])
					g.keep(h)
				}
				q = q[1:]
			}
			queues[i] = q
		}
		merged = append(merged, h)
		after = h.cursor
	}
	for _, q := range queues {
		for _, m := range q {
			put(m)
		}
	}
	g.held = merged
}

// replayed reports whether the end of the replay covers an event, because the feed may reach it
// after the gate has opened. Then a stored event was part of the replay, and any other one was
// published before the recovery: the client may have received it on its former connection, and must
// not get it after later ones.
func (g *gate) replayed(ev *adapter.Event) bool {
	return !g.floor.IsZero() && ev.Cursor.SameHistory(g.floor) && g.floor.Covers(ev.Position)
}

// restart drops the held deliveries and holds new ones, for a replay that will be read
// again.
func (g *gate) restart() {
	g.drop()
	g.spilled = false
}

// stamp returns the cursor to put into an event: usually its own.
func (g *gate) stamp(own, born *adapter.Cursor) *adapter.Cursor {
	if g.floor.IsZero() && own.SameHistory(*born) {
		return own
	}
	if !g.floor.IsZero() && own.SameHistory(g.floor) && own.Includes(g.floor) {
		g.floor = adapter.Cursor{}
	}
	at := g.given(*own, *born)
	return &at
}
