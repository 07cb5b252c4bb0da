package socketio

import (
	"context"
	"fmt"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Leave takes the socket out of rooms. Rooms that it is not in are not an error. After Leave has
// returned the client receives no event of these rooms, with two exceptions: events that the
// socket's own handlers published to them before, if this node reaches these within a second; and,
// with several partitions, events that were published before and are for several rooms of the
// socket. The context bounds the waits for these events and for other changes of the socket; the
// session store has its own timeout of some seconds. If Leave returns an error of the store, the
// connection is closed: when its client is recovered it may still be in the rooms, with all their
// events. Leave returns ErrDisconnected once the socket has ended, as in OnDisconnecting and
// OnDisconnect.
func (s *Socket) Leave(ctx context.Context, names ...string) error {
	return s.leaveThose(ctx, func() []string { return names })
}

// KeepRooms takes the socket out of the named rooms for which keep returns false, except those
// that a command such as SocketsJoin put it into. It returns as Leave does.
//
// keep is called without any lock. A panic in it propagates to the caller.
func (s *Socket) KeepRooms(ctx context.Context, keep func(room string) bool) error {
	checkFunc("KeepRooms", keep)
	done, err := s.changeLive(ctx) // joins in flight end first
	if err != nil {
		return err
	}
	done()
	drop := slices.DeleteFunc(s.Rooms(), keep)
	return s.leaveThose(ctx, func() []string {
		return slices.DeleteFunc(drop, func(name string) bool {
			st := s.rooms.current(name)
			return st == nil || st.commanded
		})
	})
}

// leaveThose is Leave for the rooms that the function those returns. The caller holds s.mu.
func (s *Socket) leaveThose(ctx context.Context, those func() []string) error {
	f := &s.client.srv.feed
	wait, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	var done func()
	for {
		s.awaitPublished(wait, false)
		var err error
		if done, err = s.changeLive(ctx); err != nil {
			return err
		}
		f.mu.Lock() // between two events, so that live delivery and replay agree
		s.mu.Lock()
		awaits := s.awaits(f.cursor) && wait.Err() == nil // since it has waited
		if !awaits && !s.behind() {
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
	reached := s.gate.given(f.cursor, s.rooms.born) // events that a replay gave count as well
	left := s.leave(those(), reached)
	l := s.beginLeave(&command{names: left}, left, len(left) > 0 && s.rooms.owe(s.owed(), reached))
	// An event after the leave has an offset that covers events of these rooms that the socket has
	// not been given, and a recovery that does not know of the leave finds the socket in them. So
	// the gate is shut until the session is stored.
	if len(left) > 0 {
		s.observe(reached)
		s.gate.shut++
	}
	s.mu.Unlock()
	f.mu.Unlock()
	if len(left) == 0 {
		return nil
	}
	s.ns.reportRooms(s.ID(), false, left...)
	defer s.finishLeave(l)                                                          // once it is stored
	stored, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout) // the leave does not end with the caller's context
	defer cancel()
	if err := s.saveAndOpen(stored); err != nil {
		s.cut(err)
		return fmt.Errorf("socketio: leave: %w", err)
	}
	return nil
}

// leave ends memberships at a position. s.mu is held.
func (s *Socket) leave(names []string, at adapter.Cursor) (left []string) {
	for _, name := range names {
		if st := s.rooms.current(name); st != nil && !st.pending {
			s.rooms.leave(name, at)
			left = append(left, name)
		}
	}
	return left
}

// unlist removes the socket from the index for a room that it has left. The feed may be handing out
// an event to members that it has looked up before. s.mu is held.
func (s *Socket) unlist(name string) {
	s.ns.index.Remove(rooms.InNamed(s.nsName, name), s)
	s.unlisted = true
}

// leaveByCommand leaves at the position of the command. s.mu is held.
//
// The feed may reach the command before it reaches earlier events to the rooms in other partitions.
// Until it has reached them, the node keeps its subscriptions.
//
// Nothing is delivered until the session is stored: an event after the command has an offset that
// covers it, so a recovery would not know the command otherwise.
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
	owed := s.rooms.owe(s.owed(), seen)
	l := s.beginLeave(d.command, left, len(left) > 0 && (owed || !seen.Includes(end)))
	if !d.late {
		s.observe(seen)
	}
	s.gate.shut++
	s.background(func(ctx context.Context) error {
		s.ns.reportRooms(s.ID(), false, left...)
		if err := s.saveAndOpen(ctx); err != nil {
			return err
		}
		return s.awaitLeave(ctx, l)
	}, func() { s.endLeave(l) })
}

// saveAndOpen writes the session and then removes one reason for the gate to be shut. If the write
// fails the gate stays shut, because the client must reconnect.
func (s *Socket) saveAndOpen(ctx context.Context) error {
	if err := s.save(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.openGate()
	return nil
}

// A leaving is a leave of rooms. The socket may linger in them, listed and subscribed, because
// events for it are left that its node or a replay has not reached yet.
type leaving struct {
	marker *marker // nil if it does not linger
	names  []string
}

// beginLeave unlists the socket from rooms that it has left, unless it lingers
// there until endLeave. s.mu is held.
func (s *Socket) beginLeave(c *command, names []string, lingers bool) leaving {
	if !lingers {
		s.unlistLeft(names)
		return leaving{names: names}
	}
	s.lingering++
	return leaving{c.mark(s.ns), names}
}

// finishLeave ends a leave once the feed has reached what is still to come.
func (s *Socket) finishLeave(l leaving) {
	if l.marker == nil {
		s.endLeave(l)
		return
	}
	s.background(func(ctx context.Context) error { return s.awaitLeave(ctx, l) }, func() { s.endLeave(l) })
}

// awaitLeave waits, if the socket lingers in the rooms, until the feed has reached everything that
// the command covers in them.
func (s *Socket) awaitLeave(ctx context.Context, l leaving) error {
	if l.marker == nil {
		return nil
	}
	_, err := l.marker.await(ctx, s)
	if err != nil { // events received from here on may be incomplete
		s.mu.Lock()
		s.gate.shut++
		s.mu.Unlock()
	}
	return err
}

// endLeave unlists the socket from the rooms, if it lingers there, and unsubscribes it.
func (s *Socket) endLeave(l leaving) {
	if l.marker != nil {
		s.mu.Lock()
		s.lingering--
		s.unlistLeft(l.names)
		s.mu.Unlock()
		l.marker.release()
	}
	s.ns.srv.adapter.Unsubscribe(inNamed(s.nsName, l.names)...)
}

// unlistLeft removes the socket from the index for those rooms that it has not joined again. s.mu is
// held.
func (s *Socket) unlistLeft(names []string) {
	for _, name := range names {
		if s.rooms.current(name) == nil {
			s.unlist(name)
		}
	}
}
