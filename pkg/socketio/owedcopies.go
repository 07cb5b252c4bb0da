package socketio

import (
	"math"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// maxOwed is the maximum number of copies that a socket remembers as owed. The feed of a partition
// must be behind by as many events for one of them to be forgotten.
const maxOwed = 1024

// An owedCopy is a copy of an event that a member will be given instead of a later copy, which it has
// passed over. Without this record, a member that leaves the room before its node has reached the
// copy would get neither.
type owedCopy struct {
	at   adapter.Position
	room string // the room of the copy; "" if the room cannot be left
}

// copyInstead returns the copy that a member takes instead of a later one, given its position.
func copyInstead(ev *adapter.Event, at adapter.Position, m *memberships, id string) owedCopy {
	for _, c := range ev.Earlier {
		if c.At != at {
			continue
		}
		in := func(r rooms.Room) bool { return m.in(r, id, at) }
		if i := slices.IndexFunc(c.To, in); i >= 0 && c.To[i].Kind == rooms.Named {
			return owedCopy{at, c.To[i].Name}
		}
	}
	return owedCopy{at: at}
}

// passOver records the copy that the socket will be given instead of this later one. s.mu is
// held.
func (s *Socket) passOver(d *delivery) {
	if len(d.ev.Earlier) == 0 {
		return
	}
	reached := s.gate.given(d.ev.Cursor, s.rooms.born)
	if at, found := d.instead(&s.rooms, s.id); found && !reached.Covers(at) {
		s.owe(reached, copyInstead(d.ev, at, &s.rooms, s.id))
	}
}

// owe notes copies that the socket is to be given, of which those up to reached have been. s.mu is
// held.
func (s *Socket) owe(reached adapter.Cursor, list ...owedCopy) {
	if len(list) == 0 {
		return
	}
	o := s.ordered()
	o.owed = slices.DeleteFunc(append(o.owed, list...), func(c owedCopy) bool { return reached.Covers(c.at) })
	if n := len(o.owed) - maxOwed; n > 0 {
		o.owed = slices.Delete(o.owed, 0, n)
	}
}

// owed returns the copies that the socket is to be given once the feed has reached them. s.mu is held.
func (s *Socket) owed() []owedCopy {
	if o := s.order.Load(); o != nil {
		return o.owed
	}
	return nil
}

// stillOwed returns those that the client's position does not cover: an earlier part of its replay has
// passed over later copies.
func (s *Socket) stillOwed(seen adapter.Cursor) []owedCopy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.owed()), func(c owedCopy) bool { return seen.Covers(c.at) })
}

// single reports whether the stay holds one position alone; see memberships.owe.
func (st stay) single() bool { return !st.open && preceding(st.leave.At) == st.join.At }

// endsBehind reports whether the member has left a room, at a position that a cursor does not cover.
func (m *memberships) endsBehind(name string, c adapter.Cursor) bool {
	return m.current(name) == nil && slices.ContainsFunc(m.named[name], func(st stay) bool { return !c.Includes(st.leave) })
}

// owe keeps the copies that the member is to be given, although it has left their rooms at positions
// before them: each as a stay that holds this position alone, in front of the newest one. It reports
// whether there are any that the member's node has not reached.
func (m *memberships) owe(list []owedCopy, reached adapter.Cursor) (owed bool) {
	for _, c := range list {
		if !reached.Covers(c.at) && m.owes(c) {
			owed = true
		}
	}
	return owed
}

// oweAhead keeps these copies before the member leaves their rooms.
func (m *memberships) oweAhead(list []owedCopy) {
	for _, c := range list {
		if st := m.current(c.room); st != nil && !st.pending && !st.join.Covers(c.at) {
			m.only(c, st.join)
		}
	}
}

func (m *memberships) owes(c owedCopy) bool {
	stays := m.named[c.room]
	n := len(stays) - 1
	if n < 0 || stays[n].open || stays[n].leave.Covers(c.at) {
		return false
	}
	m.only(c, stays[n].leave)
	return true
}

// settle drops the copies that the member has been given in rooms that it has not left.
func (m *memberships) settle(given adapter.Cursor) {
	was := func(st stay) bool { return st.single() && given.Includes(st.leave) }
	for name, stays := range m.named {
		if m.current(name) != nil && slices.ContainsFunc(stays, was) {
			m.replace(name, slices.DeleteFunc(slices.Clone(stays), was))
		}
	}
}

// only adds a stay that holds the position of a copy alone. base does not cover it.
func (m *memberships) only(c owedCopy, base adapter.Cursor) {
	stays := m.named[c.room]
	join := adapter.NewProgress(base).To(preceding(c.at))
	st := stay{join: join, leave: adapter.NewProgress(join).To(c.at), commanded: stays[len(stays)-1].commanded}
	if slices.ContainsFunc(stays, func(known stay) bool { return known.leave == st.leave && known.join == st.join }) {
		return
	}
	m.named[c.room] = slices.Insert(stays, len(stays)-1, st)
	m.count++
	m.uncharged += m.stayCost(c.room)
	m.unsaved = true
}

// preceding returns the position before another one.
func preceding(p adapter.Position) adapter.Position {
	if p.Seq > 0 {
		p.Seq--
	} else {
		p.Ms, p.Seq = p.Ms-1, math.MaxUint64
	}
	return p
}
