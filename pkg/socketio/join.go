package socketio

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// Join puts the socket into rooms. When it returns without error the socket gets
// every event that is published to them from now on, also after a recovery; on
// error it is in none of the new ones, but could find itself in them when it is
// recovered, as the session may have been stored. Rooms that it is in already are no error.
//
// In a middleware it takes effect with the socket's connection: the client is in
// the rooms before it is told that it is connected, also if it is recovered. A
// room that it was in before has what it missed, others begin then.
//
// It returns ErrDisconnected once the socket has ended, as in OnDisconnecting and
// OnDisconnect. Joining a recovered socket waits until its replay has been sent.
func (s *Socket) Join(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := checkRoom(name); err != nil {
			return err
		}
	}
	if granted, err := s.grant(names); granted {
		return err
	}
	done, err := s.changeLive(ctx)
	if err != nil {
		return err
	}
	defer done()
	s.mu.Lock()
	if s.gone || !s.placed {
		s.mu.Unlock()
		return ErrDisconnected
	}
	news := s.missing(names)
	if len(news) == 0 {
		s.mu.Unlock()
		return nil
	}
	if err := s.tooMany(news); err != nil {
		s.mu.Unlock()
		if errors.Is(err, errMemberships) {
			s.client.limited(limitMemberships, s.ns.srv.opts.MembershipBudget, "bytes")
		} else {
			s.ns.srv.stats.tooManyRooms.Add(1)
		}
		return err
	}
	s.enter(news)
	s.mu.Unlock()
	return s.settle(ctx, news, nil)
}

// grant notes a join that a middleware asks for. It reports whether this is one.
func (s *Socket) grant(names []string) (granted bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.screened {
		return false, nil
	}
	all := s.screening.rooms()
	for _, name := range names {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	if most := s.ns.srv.opts.RoomsPerSocket; len(all) > most {
		s.ns.srv.stats.tooManyRooms.Add(1)
		return true, fmt.Errorf("%w: at most %d", ErrTooManyRooms, most)
	}
	s.screening = s.screening.made()
	s.screening.granted = all
	return true, nil
}

// tooMany reports whether the socket can't join more rooms. If it can, what they cost is
// reserved, and enter follows. s.mu is held.
func (s *Socket) tooMany(news []string) error {
	if most := s.ns.srv.opts.RoomsPerSocket; int(s.rooms.open)+len(news) > most {
		return fmt.Errorf("%w: at most %d", ErrTooManyRooms, most)
	}
	if err := s.tooManyStays(len(news)); err != nil {
		return err
	}
	within := func() error {
		return s.reserve(int(s.rooms.count)+len(news), slices.Values(news), s.ns.srv.opts.MembershipBudget)
	}
	err := within()
	if err != nil {
		s.forget()
		err = within()
	}
	return err
}

// roomsBeyondBudget is how many memberships a socket can have, now and within the recovery
// window, whatever those of all sockets cost: many sockets in many rooms must not keep
// others out of a few.
const roomsBeyondBudget = 16

var errMemberships = fmt.Errorf("%w: the memberships of all clients take too much memory", ErrTooManyRooms)

// reserve counts in advance what new memberships of a socket will cost, so that concurrent
// joins and recoveries do not all find room for themselves. It fails if the socket would
// have count memberships, and those of all sockets would cost more than a budget. s.mu is
// held.
func (s *Socket) reserve(count int, added iter.Seq[string], budget int) error {
	if count <= roomsBeyondBudget {
		return nil
	}
	cost := int64(0)
	for name := range added {
		cost += stayCost(name)
	}
	for all := &s.ns.srv.memberships; ; {
		had := all.Load()
		if had+cost > int64(budget) {
			return errMemberships
		}
		if all.CompareAndSwap(had, had+cost) {
			s.rooms.uncharged -= cost
			return nil
		}
	}
}

// unreserve gives back what has been reserved for a socket that has not been placed. s.mu
// is held.
func (s *Socket) unreserve() {
	if !s.placed {
		cost := s.rooms.cost()
		s.ns.srv.memberships.Add(s.rooms.uncharged - cost)
		s.rooms.uncharged = cost
	}
}

// charge adds what the socket's memberships have grown by to those of the server. s.mu is
// held.
func (s *Socket) charge() {
	if s.placed {
		s.ns.srv.memberships.Add(s.rooms.uncharged)
		s.rooms.uncharged = 0
	}
}

// tooManyStays reports whether the socket's session can't keep so many more
// memberships. s.mu is held.
func (s *Socket) tooManyStays(more int) error {
	if ended := s.rooms.count - s.rooms.open; ended > s.rooms.open/4 {
		s.forget() // looks at all
	}
	if int(s.rooms.count)+more > s.ns.srv.opts.RoomsPerSocket*staysPerRoom {
		return fmt.Errorf("%w: too many were left within the last minutes", ErrTooManyRooms)
	}
	return nil
}

// forget drops the memberships that ended too long ago to matter, so that a
// session does not grow for as long as its client stays. s.mu is held.
func (s *Socket) forget() {
	s.rooms.forget(time.Now().Add(-s.ns.srv.opts.memory()))
	s.charge()
}

func checkRoom(name string) error {
	if name == "" || len(name) > maxRoomName || !utf8.ValidString(name) {
		return ErrRoomName
	}
	return nil
}

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

// settle completes a join and tells of it. The caller holds the right to
// change.
func (s *Socket) settle(ctx context.Context, names []string, command *place) error {
	if err := s.complete(ctx, names, command); err != nil {
		return fmt.Errorf("socketio: join: %w", err)
	}
	if len(names) > 0 {
		s.ns.tellRooms(s.ID(), true, names...)
	}
	return nil
}

// complete makes of a join that has begun a membership: the node hears the rooms,
// the session names them, and then the gate opens. A join by command begins where
// the command stands, which has passed, so what the rooms got since is read and
// put among what was held: also without recovery, since other nodes may publish as
// soon as the command has its position. The caller holds the right to change.
func (s *Socket) complete(ctx context.Context, names []string, command *place) error {
	list := inNamed(s.nsName, names)
	var at adapter.Cursor
	var err error
	if len(list) > 0 {
		at, err = s.ns.srv.adapter.Subscribe(ctx, list...)
	}
	var subscribed []string // and not yet of the socket, which unsubscribes what it is in
	if err == nil {
		subscribed = names
	}
	var missed backlog
	if err == nil && command != nil {
		at = command.at
		if len(names)+len(command.older) > 0 {
			missed, err = s.since(ctx, names, command)
		}
	}
	if err == nil {
		s.mu.Lock()
		if command != nil {
			for p, later := range missed.had {
				s.rooms.had(p, later)
			}
			if s.receipt != nil && len(missed.late) > 0 {
				s.receipt.sent = s.receipt.sent.Max(command.seen) // nothing else says that they were received
			}
			s.gate.insert(missed.events, command.cursor)
			s.gate.insertLate(missed.late, command.before, command.cursor, command.due)
			for _, name := range command.older {
				s.rooms.precede(name, at, command.due)
			}
		}
		subscribed = nil
		for _, name := range names {
			if s.rooms.current(name) == nil { // displaced meanwhile
				subscribed = append(subscribed, name)
			}
			s.rooms.confirm(name, at)
			if command != nil {
				s.rooms.defers(name, command.due)
			}
		}
		s.newestJoin = s.newestJoin.Max(at)
		s.mu.Unlock()
		err = s.save(ctx)
	}
	s.mu.Lock()
	if s.gone && err == nil {
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
	if err == nil || command == nil {
		s.openGate()
	} // otherwise the socket is cut, and an event behind the command would hide it from a recovery
	s.mu.Unlock()
	if err != nil && len(subscribed) > 0 {
		s.ns.srv.adapter.Unsubscribe(inNamed(s.nsName, subscribed)...)
	}
	return err
}

// A place is where a command that joins rooms stands, for one socket.
type place struct {
	at     adapter.Cursor   // the join position
	due    adapter.Position // see begins
	cursor adapter.Cursor   // the feed's, after the command
	before adapter.Cursor   // the feed's, before it
	seen   adapter.Cursor   // what the socket has been given then, as far as it was for it
	prior  adapter.Cursor   // see command
	older  []string         // rooms that the socket is in, and has joined after the command
	marker *marker
}

// A backlog is what a socket that a command has joined to rooms missed of them.
type backlog struct {
	events []*delivery // that the node had not come to when it came to the command
	late   []*delivery // that it had come to, in the order of positions
	// had are the positions of copies of events that the socket has been given as
	// later copies, and of these.
	had map[adapter.Position]adapter.Position
}

// since returns what was stored in rooms after a join position, up to where the feed
// has come. The gate is shut meanwhile. The caller holds the right to change.
//
// Where there are several partitions, the node may have come to events of the rooms
// before it came to the command. What the socket had of them, as a member of other
// rooms, is found by reading these as well.
func (s *Socket) since(ctx context.Context, names []string, command *place) (missed backlog, err error) {
	a, list := s.ns.srv.adapter, inNamed(s.nsName, slices.Concat(names, command.older))
	s.mu.Lock()
	was := s.rooms.clone()
	s.mu.Unlock()
	at, err := command.marker.await(ctx, s)
	if err != nil {
		return missed, err
	}
	progress := adapter.NewProgress(command.seen) // in each partition up to the marker: later events are still to come
	end := command.seen
	for _, p := range at {
		end = progress.To(p)
	}
	var from map[rooms.Room]adapter.Cursor
	now := was.clone()
	for _, name := range names {
		now.confirm(name, command.at)
	}
	for _, name := range command.older {
		now.precede(name, command.at, adapter.Position{})
	}
	if command.due != (adapter.Position{}) {
		from = was.since(s.nsName, s.ID(), command.prior, adapter.Cursor{})
		for _, room := range list {
			from[room] = command.prior
		}
	} else {
		from = make(map[rooms.Room]adapter.Cursor, len(list))
		for _, room := range list {
			from[room] = command.at
		}
	}
	for ev, err := range a.Replay(ctx, from, end, 0) {
		if err == nil {
			err = wellFormed(&ev)
		}
		if err != nil {
			return missed, err
		}
		if !command.seen.Covers(ev.Position) {
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
				if missed.had == nil {
					missed.had = make(map[adapter.Position]adapter.Position)
				}
				missed.had[c.At] = ev.Position
			}
		case now.takes(&ev, id):
			missed.late = append(missed.late, s.ns.newDelivery(&ev))
		}
	}
	had := func(d *delivery) bool { _, had := missed.had[d.ev.Position]; return had }
	missed.late = slices.DeleteFunc(missed.late, had)
	return missed, nil
}

// Leave takes the socket out of rooms. Once it has returned nothing of them
// reaches the client. What the socket's own handlers have published to them before still
// does, if this node comes to it within a second. Rooms that it is not in are no error. The
// context bounds the wait for that and for other changes of the socket; the session store
// has some seconds of its own. If it
// returns an error of the store, the connection is closed: when its client is recovered
// it may be in the rooms still, with all that has come to them. It returns ErrDisconnected
// if the socket is not connected, as in a middleware, in OnDisconnecting and in
// OnDisconnect.
func (s *Socket) Leave(ctx context.Context, names ...string) error {
	return s.leaveThose(ctx, func() []string { return names })
}

// leaveThose is Leave for the rooms that those returns. It is called with s.mu
// held.
func (s *Socket) leaveThose(ctx context.Context, those func() []string) error {
	s.awaitPublished(ctx)
	f := &s.client.srv.feed
	var done func()
	for {
		var err error
		if done, err = s.changeLive(ctx); err != nil {
			return err
		}
		f.mu.Lock() // between two events, so that live delivery and replay agree
		s.mu.Lock()
		if !s.behind() {
			break
		}
		s.mu.Unlock()
		f.mu.Unlock()
		done()
	}
	defer done()
	if !s.placed {
		s.mu.Unlock()
		f.mu.Unlock()
		return ErrDisconnected
	}
	left := s.leave(those(), s.gate.given(f.cursor, s.rooms.born)) // what a replay gave counts as well
	// An event behind the leave has an offset that covers what the socket has not been given of
	// these rooms, and a recovery that does not know of the leave finds it in them. So the gate
	// is shut until the session is stored.
	shut := len(left) > 0 && s.pid != ""
	if shut {
		s.gate.shut++
	}
	s.mu.Unlock()
	f.mu.Unlock()
	if len(left) == 0 {
		return nil
	}
	s.left(left)
	stored, cancel := s.client.srv.store() // what has begun does not end with the caller
	defer cancel()
	err := s.save(stored)
	switch {
	case !shut:
	case err != nil:
		s.cut(err)
	default:
		s.mu.Lock()
		s.openGate()
		s.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("socketio: leave: %w", err)
	}
	return nil
}

// leave ends memberships at a position. s.mu is held.
func (s *Socket) leave(names []string, at adapter.Cursor) (left []string) {
	for _, name := range names {
		if st := s.rooms.current(name); st != nil && !st.pending {
			s.rooms.leave(name, at)
			s.unlist(name)
			left = append(left, name)
		}
	}
	return left
}

// unlist takes the socket out of the index for a room that it is not in any more. The
// feed may be handing out an event to members that it has looked up before. s.mu is
// held.
func (s *Socket) unlist(name string) {
	s.ns.index.Remove(rooms.InNamed(s.nsName, name), s)
	s.unlisted = true
}

// left does what follows a leave and needs no lock.
func (s *Socket) left(names []string) {
	s.ns.srv.adapter.Unsubscribe(inNamed(s.nsName, names)...)
	s.ns.tellRooms(s.ID(), false, names...)
}

// joinByCommand begins the join that an event in the order asks for. s.mu is
// held. If it can't be completed the socket is cut: it would miss events of a
// room that it is believed to be in. For the same reason there is no limit: who
// sends commands is the application, not a client.
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
	news := s.missing(names)
	if len(news) > 0 {
		s.enter(news)
	}
	if !s.rooms.command(names) && len(older) == 0 {
		return
	}
	if len(news) == 0 {
		s.gate.shut++
	}
	p := &place{
		at: at, due: due, prior: c.prior, older: older,
		cursor: d.ev.Cursor, before: c.before, seen: s.gate.given(d.ev.Cursor, s.rooms.born), marker: c.mark(s.ns),
	}
	if !p.before.SameHistory(p.cursor) {
		p.before = p.cursor
	}
	s.background(func(ctx context.Context) error { return s.settle(ctx, news, p) }, p.marker.release)
}

// leaveByCommand leaves at the position of the event that asks for it. s.mu is
// held.
//
// The feed may come to the command before it comes to what was published to the rooms
// before the command, in other partitions. Until it has, the node goes on hearing them.
//
// Nothing is delivered until the session is stored: an event behind the command has an
// offset that covers it, so nothing else would tell a recovery of the command.
func (s *Socket) leaveByCommand(d *delivery) {
	seen := s.gate.given(d.ev.Cursor, s.rooms.born)
	end := d.command.ends(seen)
	var left []string
	changed := false
	for _, name := range d.command.names {
		found, open := s.rooms.leaveAt(name, d.ev.Position, end, d.local)
		changed = changed || found
		if open {
			left = append(left, name)
		}
	}
	if !changed {
		return
	}
	unlist := func() {
		for _, name := range left {
			if s.rooms.current(name) == nil {
				s.unlist(name)
			}
		}
	}
	lingers := len(left) > 0 && !seen.Includes(end)
	var m *marker
	if lingers {
		s.lingering++
		m = d.command.mark(s.ns)
	} else {
		unlist()
	}
	s.gate.shut++
	s.background(func(ctx context.Context) error {
		s.ns.tellRooms(s.ID(), false, left...)
		err := s.save(ctx)
		if err != nil {
			return err // the gate stays shut, for the client has to come back
		}
		s.mu.Lock()
		s.openGate()
		s.mu.Unlock()
		if !lingers {
			return nil
		}
		if _, err = m.await(ctx, s); err != nil { // what it hears from here on is not all that is for it
			s.mu.Lock()
			s.gate.shut++
			s.mu.Unlock()
		}
		return err
	}, func() {
		if lingers {
			s.mu.Lock()
			s.lingering--
			unlist()
			s.mu.Unlock()
			m.release()
		}
		s.ns.srv.adapter.Unsubscribe(inNamed(s.nsName, left)...)
	})
}

// background changes the socket on a goroutine of its own, for a caller that may
// not wait, and calls finally in any case, unless that is nil. A failure cuts the
// socket.
func (s *Socket) background(f func(context.Context) error, finally func()) {
	srv := s.ns.srv
	srv.spawn(func() {
		ctx, cancel := srv.store()
		defer cancel()
		done, err := s.change(ctx)
		if err == nil {
			defer done()
			err = f(ctx)
		}
		if finally != nil {
			finally()
		}
		if err != nil && !errors.Is(err, ErrDisconnected) {
			s.cut(err)
		}
	})
}

// save writes the session, if there is one to write. Whoever calls it holds the
// right to change. A session that is gone or another's ends the socket. That of a
// socket that is gone is not written any more.
func (s *Socket) save(ctx context.Context) error {
	srv := s.ns.srv
	s.mu.Lock()
	n := int(s.rooms.count)
	s.mu.Unlock()
	ended, err := srv.writes.take(ctx, n)
	if err != nil {
		return err
	}
	defer ended()
	at := srv.feed.now()
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return ErrDisconnected
	}
	if s.pid == "" || s.fence == 0 {
		s.mu.Unlock()
		return nil
	}
	s.observe(at)
	snapshot := s.snapshot()
	s.mu.Unlock()
	err = srv.sessions.Save(ctx, snapshot, srv.opts.sessionLife())
	switch {
	case errors.Is(err, session.ErrFenced):
		s.overtaken()
	case errors.Is(err, session.ErrNotFound):
		s.cut(err)
	}
	return err
}

// snapshot returns the session as it is now. s.mu is held.
func (s *Socket) snapshot() session.Session {
	s.forget()
	snapshot := session.Session{
		PID: s.pid, ID: s.id, Namespace: s.nsName, User: s.user, Data: s.data, Epoch: s.rooms.born.Epoch,
		Rooms: s.rooms.save(), Owner: string(s.ns.srv.adapter.Node()), Fence: s.fence,
	}
	if s.receipt != nil {
		snapshot.Rooms = append(snapshot.Rooms, s.receipt.save())
	}
	return snapshot
}

// cut closes the connection in a way that its client comes back from. It does
// not wait, and may be called with s.mu held.
func (s *Socket) cut(cause error) {
	s.client.srv.log.Info("a client is cut and can come back", zap.String("namespace", s.nsName), zap.Error(cause))
	s.client.srv.spawn(s.Cut)
}

func inNamed(namespace string, names []string) []rooms.Room {
	list := make([]rooms.Room, len(names))
	for i, name := range names {
		list[i] = rooms.InNamed(namespace, name)
	}
	return list
}
