package socketio

import (
	"context"
	"fmt"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

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
