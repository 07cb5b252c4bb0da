package socketio

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Join puts the socket into rooms. When it returns without error the socket gets every event that
// is published to them from then on, also after a recovery. On error it is in none of the new ones,
// but may be in them after a recovery, because the session may have been stored. Rooms that it is
// already in are not an error.
//
// Join returns ErrDisconnected once the socket has ended, as in OnDisconnecting and OnDisconnect.
// In a recovered socket it waits until the replay has been sent.
func (s *Socket) Join(ctx context.Context, names ...string) error { return s.join(ctx, names, nil) }

// join is Join, with a rewind or nil.
func (s *Socket) join(ctx context.Context, names []string, back *rewinding) error {
	if err := checkRooms(names); err != nil {
		return err
	}
	done, err := s.changeLive(ctx)
	if err != nil {
		return err
	}
	defer done()
	at := s.ns.srv.feed.now()
	s.mu.Lock()
	if s.stage.gone() || !s.placed {
		s.mu.Unlock()
		return ErrDisconnected
	}
	added := s.missing(names)
	if len(added) == 0 && back == nil {
		s.mu.Unlock()
		return nil
	}
	s.observe(at)
	if err := s.tooMany(added); err != nil {
		s.mu.Unlock()
		if errors.Is(err, errMemberships) {
			s.client.limited(limitMemberships, s.ns.srv.opts.MembershipBudget, "bytes")
		} else {
			s.ns.srv.stats.tooManyRooms.Add(1)
		}
		return err
	}
	s.enter(added)
	s.mu.Unlock()
	return s.settle(ctx, added, nil, back)
}

// tooMany reports whether the socket cannot join more rooms. If it can, their cost is reserved, and
// enter follows. s.mu is held.
func (s *Socket) tooMany(added []string) error {
	if maximum := s.ns.srv.opts.RoomsPerSocket; int(s.rooms.open)+len(added) > maximum {
		return fmt.Errorf("%w: at most %d", ErrTooManyRooms, maximum)
	}
	if err := s.tooManyStays(len(added)); err != nil {
		return err
	}
	budget := int64(s.ns.srv.opts.MembershipBudget)
	within := func() error {
		return s.reserve(int(s.rooms.count)+len(added), slices.Values(added), budget-budget/4)
	}
	err := within()
	if err != nil {
		s.forget()
		err = within()
	}
	return err
}

// roomsBeyondBudget is the number of memberships that a socket can always have, now and within the
// recovery window. Many sockets in many rooms must not prevent others from joining a few.
const roomsBeyondBudget = 16

// bytesBeyondBudget is the maximum cost of these memberships, of all sockets of a connection: that of
// 16 with names of 24 bytes.
const bytesBeyondBudget = 16 << 10

var errMemberships = fmt.Errorf("%w: memberships of all clients take too much memory", ErrTooManyRooms)

// enter begins a join: from here on the events of the rooms are held. s.mu is
// held.
func (s *Socket) enter(names []string) {
	s.gate.shut++
	for _, name := range names {
		s.rooms.enter(name)
		s.ns.index.Add(rooms.InNamed(s.nsName, name), s)
	}
	s.charge()
}

// settle completes a join and reports it to OnRoom. The caller holds the right to change.
func (s *Socket) settle(ctx context.Context, names []string, by *place, back *rewinding) error {
	if err := s.complete(ctx, names, by, back); err != nil {
		return fmt.Errorf("socketio: join: %w", err)
	}
	if len(names) > 0 {
		s.ns.reportRooms(s.ID(), true, names...)
	}
	return nil
}

// complete turns a join that has begun into a membership: the node subscribes to the rooms, the
// session names them, and then the gate opens. A join by command begins at the command's position,
// which has passed. So the rooms' events since then are read and inserted among the held ones, also
// without recovery, because other nodes may publish as soon as the command has its position. A join
// with a rewind reads the events up to its position, and answers before the gate opens. The caller
// holds the right to change.
func (s *Socket) complete(ctx context.Context, names []string, by *place, back *rewinding) error {
	list := inNamed(s.nsName, names)
	var at adapter.Cursor
	var err error
	if len(list) > 0 {
		at, err = s.ns.srv.adapter.Subscribe(ctx, list...)
	} else if back != nil {
		at, err = s.ns.srv.adapter.Head(ctx)
	}
	var subscribed []string // and not yet by the socket, which unsubscribes its rooms when it ends
	if err == nil {
		subscribed = names
	}
	var missed backlog
	if err == nil && by != nil {
		at = by.at
		if len(names)+len(by.older) > 0 {
			missed, err = s.since(ctx, names, by)
		}
	}
	if err == nil && back != nil {
		err = back.read(ctx, at)
	}
	if err == nil && (len(names) > 0 || by != nil) { // otherwise there is nothing to store
		s.mu.Lock()
		if by != nil {
			for p, later := range missed.had {
				s.rooms.had(p, later)
			}
			s.owe(by.seen, missed.owed...)
			if s.receipt != nil && len(missed.late) > 0 {
				s.sends(s.receipt.sent.Max(by.seen)) // nothing else records that they were received
			}
			if !s.stage.gone() { // nothing is held for one that has ended
				s.gate.insert(missed.events, by.cursor)
				s.gate.insertLate(missed.late, by.before, by.cursor, by.due)
				by.marker.share(missed.events)
				by.marker.share(missed.late)
			}
			for _, name := range by.older {
				s.rooms.precede(name, at, by.due)
			}
		}
		subscribed = nil
		for _, name := range names {
			if s.rooms.current(name) == nil { // displaced meanwhile
				subscribed = append(subscribed, name)
			}
			s.rooms.confirm(name, at)
			if by != nil {
				s.rooms.defers(name, by.due)
			}
		}
		s.newestJoin = s.newestJoin.Max(at)
		s.mu.Unlock()
		err = s.save(ctx)
	}
	s.mu.Lock()
	if s.stage.gone() && err == nil {
		err = ErrDisconnected
	}
	if err != nil {
		for _, name := range names {
			if st := s.rooms.current(name); st != nil {
				if !st.pending {
					subscribed = append(subscribed, name)
				}
				s.rooms.cancel(name)
				s.unlist(name)
			}
		}
	}
	switch {
	case err == nil && back != nil:
		s.openGateAt(at, back.answer)
	case err == nil || by == nil:
		s.openGate()
	} // otherwise the socket is cut, and an event after the command would hide it from a recovery
	s.mu.Unlock()
	if err != nil && len(subscribed) > 0 {
		s.ns.srv.adapter.Unsubscribe(inNamed(s.nsName, subscribed)...)
	}
	return err
}

// joinByCommand begins the join of a command in the order. s.mu is held. If the join cannot be
// completed the socket is cut, because it would miss events of a room that it counts as a member
// of. For the same reason there is no limit: the application sends commands, not a client.
func (s *Socket) joinByCommand(d *delivery) {
	names, c := d.command.names, d.command
	at, due := c.begins(d.ev)
	var older []string
	for _, name := range names {
		if s.rooms.current(name) != nil && s.rooms.precedes(name, at, due) {
			older = append(older, name)
		}
	}
	slices.Sort(older)
	older = slices.Compact(older)
	added := s.missing(names)
	if len(added) > 0 {
		s.enter(added)
	}
	if !s.rooms.command(names) && len(older) == 0 {
		return
	}
	if len(added) == 0 {
		s.gate.shut++
	}
	p := &place{
		at: at, due: due, prior: c.prior, older: older,
		cursor: d.ev.Cursor, before: c.before, seen: s.gate.given(d.ev.Cursor, s.rooms.born), marker: c.mark(s.ns),
	}
	if !p.before.SameHistory(p.cursor) {
		p.before = p.cursor
	}
	s.background(func(ctx context.Context) error { return s.settle(ctx, added, p, nil) }, p.marker.release)
}
