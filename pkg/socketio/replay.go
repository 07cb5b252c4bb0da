package socketio

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// missedSlab is the number of events allocated together: an Event is large, and a growing slice
// copies its events repeatedly.
const missedSlab = 8

// A replay determines which events a client has missed, from the backlogs of its rooms. It
// processes the events in the order of the replay and executes the commands among them.
//
// With several partitions, a room that a command has joined counts from the command on, as for a
// connected client. The room's events after the join position that precede the command in the
// order of the replay are sent with the command. So an offset that does not cover a command says
// that no event of the rooms that it joined has been received.
type replay struct {
	socket *Socket
	seen   adapter.Cursor // the position that the client has received; zero if it has received nothing
	stays  memberships    // at the current position of the replay
	// executed covers the commands that have been executed: stays reflects them.
	executed adapter.Cursor
	// prior bounds the events that the client has received and that are read again, because they
	// may be other copies of events that a command gives it. Zero for none.
	prior adapter.Cursor
	// payload bounds the payloads that are held. Of the missed events beyond it only the places are
	// known.
	payload int

	missed []*adapter.Event
	slab   []adapter.Event // the last of missed, and space for more
	// overlooked counts the events after the last of missed, which leave the client's offset
	// unchanged.
	overlooked int
	again      bool // rooms must be subscribed, read, or read from an earlier position
	// joined are rooms that commands have joined and that the client was not in, with the position
	// from which each is to be read. They are collected over all passes.
	joined map[string]adapter.Cursor
	from   map[rooms.Room]adapter.Cursor // where this pass begins

	several bool
	at      *adapter.Progress // the client's position once it has received missed
	now     adapter.Cursor    // at as a cursor
	rest    lanes             // with several partitions: the events that the client has not received
	waiting []adapter.Event   // not for the client, unless a command joins their rooms
	// taken are copies of events that the client has received as other copies, with the positions
	// of those.
	taken map[adapter.Position]adapter.Position
	due   adapter.Position // of the command whose rooms are being made to count
	owed  []owedCopy
}

// begin fixes the end of a replay of the socket's memberships. seen, the client's offset,
// proves a part of the history.
func (r *replay) begin(ctx context.Context, seen adapter.Cursor) (end adapter.Cursor, err error) {
	s := r.socket
	var proof []adapter.Cursor
	if !seen.IsZero() {
		proof = append(proof, seen)
	}
	if end, err = s.ns.srv.adapter.Head(ctx, proof...); err != nil {
		return end, refuseLost(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.stays, r.executed = s.rooms.clone(), s.receipt.given
	return end, nil
}

// read reads the backlogs up to end. Afterwards the stays are those at the end, and missed holds
// the events that the client must receive, unless again is set. In that case it may have stopped
// with errAgain.
func (r *replay) read(ctx context.Context, end adapter.Cursor) error {
	s := r.socket
	r.missed, r.slab, r.overlooked, r.again, r.rest, r.waiting, r.taken, r.owed = nil, nil, 0, false, nil, nil, nil, nil
	r.several = end.Partitions() > 1
	if r.now = r.seen; r.now.IsZero() {
		r.now = r.stays.born
	}
	r.at = adapter.NewProgress(r.now)
	r.from = r.stays.since(s.nsName, s.id, r.seen, r.prior)
	for name, from := range r.joined {
		room := rooms.InNamed(s.nsName, name)
		if since, read := r.from[room]; read { // received events of this room may be needed, too
			from = from.Min(since)
		}
		r.from[room] = from
	}
	r.stays.suspend(r.seen)
	r.owed = s.stillOwed(r.seen)
	var ahead incomplete
	for ev, err := range s.ns.srv.adapter.Replay(ctx, r.from, end, r.payload) {
		if err == nil {
			err = wellFormed(&ev)
		}
		switch {
		case err != nil:
			return refuseLost(err)
		case ahead.add(&ev):
			err = r.complete(ctx, end, &ahead)
		case len(ahead.events) == 0:
			err = r.look(&ev)
		}
		if err != nil {
			return err
		}
	}
	if err := r.complete(ctx, end, &ahead); err != nil {
		return err
	}
	return r.finish(end)
}

// finish processes the events that had to wait until everything was read.
func (r *replay) finish(end adapter.Cursor) error {
	unfinished := false
	for due, join := range r.stays.suspended() {
		unfinished = unfinished || r.unfinished(due)
		r.rest.standIn(due, join)
	}
	for len(r.rest) > 0 {
		ev := r.rest.take()
		if err := r.pass(&ev); err != nil {
			return err
		}
	}
	for at, other := range r.taken {
		if !end.Covers(at) { // still to come, because the partitions' clocks are not read at one instant
			r.stays.had(at, other)
		}
	}
	if unfinished {
		return r.refuse(refusedJoin, "connection closed while the events of a SocketsJoin were being sent")
	}
	return nil
}

// unfinished reports whether the client may have received a part of the events that the command at
// a position gave it late. It runs before anything is executed, because another command may join
// the client to other rooms of the same events. The client's offset does not cover the command. If
// it covers one such event, the client has not received it, because the last one carries the
// command's offset. If it covers several, the client may have received the first ones.
func (r *replay) unfinished(due adapter.Position) bool {
	if r.seen.IsZero() {
		return false
	}
	stays := r.stays.clone()
	names := stays.resume(due)
	var late []*adapter.Event
	given := false
	for i := range r.waiting {
		ev := &r.waiting[i]
		if _, taken := r.taken[ev.Position]; !taken && stays.takes(ev, r.socket.id) {
			late, given = append(late, ev), given || ev.Kind == kindEmit
		}
	}
	return len(late) > 1 && given && !(len(late) == 2 && (r.brings(late[0], late[1], names) || r.brings(late[1], late[0], names)))
}

// brings reports whether an event reached the client only because of a command that arrived late
// itself and joined it to one of some rooms.
func (r *replay) brings(command, ev *adapter.Event, names []string) bool {
	if command.Kind != kindJoin || ev.Kind != kindEmit {
		return false
	}
	c := newCommand(command)
	return !slices.ContainsFunc(names, func(name string) bool {
		return !slices.Contains(c.names, name) && slices.Contains(ev.Target.To, rooms.InNamed(r.socket.nsName, name))
	})
}

// look processes the next event of the backlogs.
func (r *replay) look(ev *adapter.Event) error {
	switch {
	case !r.seen.IsZero() && r.seen.Covers(ev.Position):
		r.received(ev)
	case r.several:
		r.rest.queue(ev)
	default:
		return r.pass(ev)
	}
	return nil
}

// place returns the place of an event that was read.
func (r *replay) place(ev *adapter.Event) adapter.Place {
	for _, room := range ev.Target.To {
		if _, read := r.from[room]; read {
			return adapter.Place{Room: room, At: ev.Position}
		}
	}
	return adapter.Place{Room: ev.Target.To[0], At: ev.Position}
}

// received processes an event that the client has received if it was for it then.
func (r *replay) received(ev *adapter.Event) {
	if r.stays.takes(ev, r.socket.id) {
		r.note(ev)
	} else if r.several {
		r.wait(ev)
	}
}

// wait keeps an event that is not for the client.
func (r *replay) wait(ev *adapter.Event) {
	r.waiting = append(r.waiting, *ev)
	at, found := ev.Instead(func(room rooms.Room, at adapter.Position) bool { return r.stays.in(room, r.socket.id, at) })
	if found && !r.now.Covers(at) {
		r.owed = append(r.owed, copyInstead(ev, at, &r.stays, r.socket.id))
	}
}

// pass processes an event that the client has not received.
func (r *replay) pass(ev *adapter.Event) error {
	takes, before := r.stays.takes(ev, r.socket.id), r.now
	r.now = r.at.To(ev.Position)
	r.overlooked++
	if ev.Kind == kindMarker { // a stand-in
		return r.resume(ev.Position, before, r.now)
	}
	other, taken := r.taken[ev.Position]
	switch {
	case takes && taken:
		r.stays.had(ev.Position, other)
	case takes:
		return r.take(ev, before, r.now)
	case r.several:
		r.wait(ev)
	}
	return nil
}

// note records that the client has received an event that has other copies.
func (r *replay) note(ev *adapter.Event) {
	for _, c := range ev.Earlier {
		put(&r.taken, c.At, ev.Position)
	}
}

// take executes a command, or adds an event to those that the client must receive. The cursors are
// those before and after it.
func (r *replay) take(ev *adapter.Event, before, after adapter.Cursor) error {
	ev.Cursor = after
	executed := r.executed.Covers(ev.Position)
	if r.due != (adapter.Position{}) { // it was not for the client before that
		executed = executed && r.executed.Covers(r.due)
	}
	switch ev.Kind {
	case kindEmit:
		r.note(ev)
		if len(r.slab) == cap(r.slab) {
			r.slab = make([]adapter.Event, 0, missedSlab)
		}
		r.slab = append(r.slab, *ev)
		r.missed, r.overlooked = append(r.missed, &r.slab[len(r.slab)-1]), 0
		if limit := r.socket.ns.srv.opts.ReplayLimit; len(r.missed) > limit {
			return r.refuse(refusedLimit, fmt.Sprintf("more than %d missed events", limit))
		}
	case kindDisconnect:
		if executed { // it was not for the member, or its session would not exist
			return nil
		}
		return r.refuse(refusedRemoved, "disconnected by the server")
	case kindJoin:
		return r.join(ev, executed, before, after)
	case kindLeave:
		if executed {
			return nil
		}
		c := newCommand(ev)
		for _, name := range c.names {
			// Everything that this command covers has passed: if the stay's command had been there,
			// it would count.
			if st := r.stays.current(name); st != nil && st.pending && c.spread() && c.head.Covers(st.due) {
				if err := r.resume(st.due, before, r.at.To(st.due)); err != nil {
					return err
				}
			}
			r.stays.leaveAt(name, ev.Position, c.ends(after), false)
		}
		r.stays.owe(r.owed, after)
	}
	return nil
}

// errAgain ends a pass that would refuse the session but must be repeated.
var errAgain = errors.New("socketio: replay must be repeated")

// refuse refuses the session, unless a room is to be read that was not: the client's rooms at this
// point may depend on the commands in it.
func (r *replay) refuse(reason, text string) error {
	if r.again {
		return errAgain
	}
	return &refusal{reason, errors.New(text)}
}

// join executes a command that joins rooms, unless it has been executed. The rooms' events before
// it in the order of the replay are due in any case.
func (r *replay) join(ev *adapter.Event, executed bool, before, after adapter.Cursor) error {
	c := newCommand(ev)
	c.due = r.due
	at, due := c.begins(ev)
	for _, name := range c.names {
		if !executed && r.stays.enterAt(name, at, due) {
			r.need(name, at)
		}
	}
	if c.spread() && !r.seen.IsZero() && !c.prior.Includes(r.seen) && (r.prior.IsZero() || !c.prior.Includes(r.prior)) {
		// The events that the client has may be the same as those that it is to receive now.
		r.again = true
		if r.prior.IsZero() {
			r.prior = c.prior
		} else {
			r.prior = r.prior.Min(c.prior)
		}
	}
	return r.resume(due, before, after)
}

// need ensures that a room which a command has joined is subscribed, and read from the join
// position on.
func (r *replay) need(name string, at adapter.Cursor) {
	s := r.socket
	room := rooms.InNamed(s.nsName, name)
	from, read := r.from[room]
	if read && at.Includes(from) {
		s.mu.Lock()
		member := s.rooms.current(name) != nil
		s.mu.Unlock()
		if _, known := r.joined[name]; member || known {
			return
		}
	}
	if read {
		at = at.Min(from)
	}
	if known, ok := r.joined[name]; ok { // to an earlier command, which the next pass reaches as well
		at = at.Min(known)
	}
	put(&r.joined, name, at)
	r.again = true
}

// resume enables the rooms that the command at a position has joined, and takes their events. The
// cursors are those before and after it: the client's position after the last of these events
// covers the command, or it would be given them again.
func (r *replay) resume(command adapter.Position, before, after adapter.Cursor) error {
	names := r.stays.resume(command)
	if len(names) == 0 {
		return nil
	}
	defer func(outer adapter.Position) { r.due = outer }(r.due)
	r.due = command
	first := len(r.missed)
	for i := 0; i < len(r.waiting); i++ {
		ev := r.waiting[i]
		if !r.stays.takes(&ev, r.socket.id) {
			continue
		}
		if other, taken := r.taken[ev.Position]; taken {
			r.stays.had(ev.Position, other)
			continue
		}
		r.waiting = slices.Delete(r.waiting, i, i+1)
		if i--; ev.Kind != kindEmit {
			i = -1 // it may change the receivers of the others
		}
		if err := r.take(&ev, before, before); err != nil {
			return err
		}
	}
	if late := r.missed[first:]; len(late) > 0 {
		late[len(late)-1].Cursor = after
	}
	return nil
}
