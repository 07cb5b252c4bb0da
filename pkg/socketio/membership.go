package socketio

import (
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A stay is one membership of a room as an interval of positions: its member receives the events
// after join, up to and including leave. An open stay has not been left. A pending stay's join
// position is not known yet, so it says nothing about any event. A commanded stay was made by the
// server's application, and does not depend on the client's permissions.
type stay struct {
	join, leave adapter.Cursor
	pending     bool
	open        bool
	commanded   bool
	// due is the position of the command that began the stay, if the room's events between join and
	// the client's position at that time were given to it with the command; otherwise zero.
	due adapter.Position
}

func (st stay) holds(p adapter.Position) bool {
	return !st.pending && !st.join.Covers(p) && (st.open || st.leave.Covers(p))
}

// deferred reports whether a part of the stay was given to the client with a command.
func (st stay) deferred() bool { return st.due != adapter.Position{} }

// memberships are one socket's stays in rooms: those that it is in, and those that it has left
// within the recovery window, because a client that was cut before may still need events of them.
// The two implicit rooms, the namespace's and its own, are entered together at birth and never
// left.
type memberships struct {
	born  adapter.Cursor
	named map[string][]stay // by room name; the newest stay last
	// order lists the rooms of named in their order, and possibly removed ones. It is nil until
	// needed.
	order *[]string
	// apart are the positions of copies that are not for the member, although a command has joined
	// it to their room at an earlier position. By then the member had been given a later copy of
	// the same event, at the position that is the value here. May be nil.
	apart map[adapter.Position]adapter.Position
	// banned are stays in rooms that a recovered member may not keep. Until the replay has ended,
	// commands that remove or disconnect the member find it there: they were published while it was
	// in these rooms, and a token with fewer rights must not evade them.
	banned map[string][]stay
	count  int32 // of all stays in named
	open   int32 // of those that are open
	// partitions is the number of partitions of the history, for the cost of a stay; constant.
	partitions int32
	// uncharged is the part of the cost of all stays in named that is not counted in the server's
	// total: negative if some is reserved for future stays.
	uncharged int64
	// unsaved means that the stays differ from those that restore has read.
	unsaved bool
}

// in reports whether the socket with this id was in a room at a position.
func (m *memberships) in(r rooms.Room, id string, p adapter.Position) bool {
	switch r.Kind {
	case rooms.Everyone:
		return !m.born.Covers(p)
	case rooms.Own:
		return r.Name == id && !m.born.Covers(p)
	case rooms.Named:
		_, apart := m.apart[p]
		return !apart && slices.ContainsFunc(m.named[r.Name], func(st stay) bool { return st.holds(p) })
	}
	return false
}

// inNow is in for events without a position: those of this node.
func (m *memberships) inNow(r rooms.Room, id string) bool {
	return r.Kind == rooms.Everyone || r.Kind == rooms.Own && r.Name == id || m.current(r.Name) != nil && r.Kind == rooms.Named
}

// all yields every room with a stay.
func (m *memberships) all(namespace, id string) iter.Seq[rooms.Room] {
	return func(yield func(rooms.Room) bool) {
		if !yield(rooms.InEveryone(namespace)) || !yield(rooms.InOwn(namespace, id)) {
			return
		}
		for name := range m.named {
			if !yield(rooms.InNamed(namespace, name)) {
				return
			}
		}
	}
}

// current returns the open stay in a named room, pending or not, or nil.
func (m *memberships) current(name string) *stay {
	stays := m.named[name]
	if n := len(stays); n > 0 && stays[n-1].open {
		return &stays[n-1]
	}
	return nil
}

// enter opens a pending stay.
func (m *memberships) enter(name string) {
	put(&m.named, name, append(m.named[name], stay{open: true, pending: true}))
	if m.order != nil {
		if i, known := slices.BinarySearch(*m.order, name); !known {
			*m.order = slices.Insert(*m.order, i, name)
		}
	}
	m.count++
	m.open++
	m.uncharged += m.stayCost(name)
}

// stayCost is the approximate memory of a stay in bytes, including the node's memory for its room
// if it has no other members.
func stayCost(name string) int64 { return 640 + 16*int64(len(name)) }

// stayCost adds to that the positions of the join and of the leave in each partition, if there are
// several.
func (m *memberships) stayCost(name string) int64 {
	if m.partitions > 1 {
		return stayCost(name) + 2*16*int64(m.partitions)
	}
	return stayCost(name)
}

// cost returns the cost of all stays in named.
func (m *memberships) cost() (bytes int64) {
	for name, stays := range m.named {
		bytes += m.stayCost(name) * int64(len(stays))
	}
	return bytes
}

// confirm gives a pending stay its join position.
func (m *memberships) confirm(name string, at adapter.Cursor) {
	if st := m.current(name); st != nil && st.pending {
		st.join, st.pending = at, false
		m.unsaved = true
	}
}

// takes reports whether an event is for the member.
func (m *memberships) takes(ev *adapter.Event, id string) bool {
	return ev.For(func(r rooms.Room, at adapter.Position) bool {
		return m.in(r, id, at) || (ev.Kind == kindDisconnect || ev.Kind == kindLeave) && m.wasIn(r, at)
	})
}

// wasIn reports whether the member was at a position in a room that it may not keep.
func (m *memberships) wasIn(r rooms.Room, at adapter.Position) bool {
	return r.Kind == rooms.Named && slices.ContainsFunc(m.banned[r.Name], func(st stay) bool { return st.holds(at) })
}

// keep ends the stays in rooms that may does not allow, except commanded ones. With several
// partitions they end at the member's position, because it may have received a copy of an event of
// which another one is still to come. With one partition they are forgotten.
func (m *memberships) keep(may func(room string) bool, seen adapter.Cursor) {
	for name, stays := range m.named {
		if may(name) {
			continue
		}
		put(&m.banned, name, slices.DeleteFunc(slices.Clone(stays), func(st stay) bool { return st.commanded }))
		if st := m.current(name); st != nil && !st.commanded {
			m.open--
		}
		kept := slices.DeleteFunc(stays, func(st stay) bool { return !st.commanded && seen.Partitions() == 1 })
		for i := range kept {
			switch st := &kept[i]; {
			case st.commanded:
			case st.open:
				st.leave, st.open, m.unsaved = seen, false, true
			default:
				st.leave, m.unsaved = st.leave.Min(seen), true
			}
		}
		m.replace(name, kept)
	}
}

// leave ends the open stay of a room. A stay that was never confirmed is removed.
func (m *memberships) leave(name string, at adapter.Cursor) {
	st := m.current(name)
	switch {
	case st == nil:
	case st.pending:
		m.cancel(name)
	default:
		st.leave, st.open = at, false
		m.open--
		m.unsaved = true
	}
}

// newestJoin returns the newest join position of all stays.
func (m *memberships) newestJoin() adapter.Cursor {
	newest := m.born
	for _, stays := range m.named {
		for _, st := range stays {
			if !st.pending {
				newest = newest.Max(st.join)
			}
		}
	}
	return newest
}

// clone returns a copy that can be changed.
func (m *memberships) clone() memberships {
	c := *m
	c.named, c.banned = cloneStays(m.named), cloneStays(m.banned)
	if m.order != nil {
		order := slices.Clone(*m.order)
		c.order = &order
	}
	c.apart = maps.Clone(m.apart)
	return c
}

func cloneStays(all map[string][]stay) map[string][]stay {
	c := maps.Clone(all)
	for name, stays := range c {
		c[name] = slices.Clone(stays)
	}
	return c
}

// cancel undoes an enter.
func (m *memberships) cancel(name string) {
	stays := m.named[name]
	if n := len(stays); n > 1 {
		m.named[name] = stays[:n-1]
	} else {
		delete(m.named, name)
	}
	m.count--
	m.open--
	m.uncharged -= m.stayCost(name)
}

// forget drops stays that ended before a time and that no recovery needs: neither one that catches up
// from a position, nor one that begins where the client has been given everything.
func (m *memberships) forget(before time.Time, from *catchUp, given adapter.Cursor) {
	maps.DeleteFunc(m.apart, func(p, _ adapter.Position) bool {
		return p.Time().Before(before) && (from == nil || from.from.Covers(p))
	})
	for name, stays := range m.named {
		kept := slices.DeleteFunc(stays, func(st stay) bool {
			return !st.open && st.leave.At.Time().Before(before) && (from == nil || from.from.Includes(st.leave)) &&
				(given.IsZero() || given.Includes(st.leave))
		})
		if len(kept) < len(stays) {
			m.replace(name, kept)
		}
	}
}

// replace replaces a room's stays.
func (m *memberships) replace(name string, kept []stay) {
	gone := len(m.named[name]) - len(kept)
	if gone == 0 {
		return
	}
	m.count -= int32(gone)
	m.uncharged -= int64(gone) * m.stayCost(name)
	m.unsaved = true
	if len(kept) == 0 {
		delete(m.named, name)
	} else {
		m.named[name] = kept
	}
}

// names returns the rooms that the socket is in, in no order, because sorting a thousand long
// names takes as long as all other work with them.
func (m *memberships) names() []string {
	names := slices.Grow([]string(nil), int(m.open))
	for name := range m.named {
		if m.current(name) != nil {
			names = append(names, name)
		}
	}
	return names
}

// sorted returns the rooms that the socket is in, sorted.
func (m *memberships) sorted() []string {
	names := m.names()
	slices.Sort(names)
	return names
}

// since returns, for every room of any stay, the position after which its member has not seen it:
// the larger of the stay's beginning and seen. If the events that the member has seen are needed as
// well, prior is the position to start from; otherwise it is zero.
func (m *memberships) since(namespace, id string, seen, prior adapter.Cursor) map[rooms.Room]adapter.Cursor {
	low := seen
	if !prior.IsZero() {
		low = seen.Min(prior)
	}
	after := func(join adapter.Cursor) adapter.Cursor {
		if seen.IsZero() {
			return join
		}
		return join.Max(low)
	}
	since := make(map[rooms.Room]adapter.Cursor, 2+len(m.named)+len(m.banned))
	since[rooms.InEveryone(namespace)] = after(m.born)
	since[rooms.InOwn(namespace, id)] = after(m.born)
	for name, stays := range m.named {
		if stays[0].pending {
			continue
		}
		if !slices.ContainsFunc(stays, func(st stay) bool { return st.open || st.deferred() || low.IsZero() || !low.Includes(st.leave) }) {
			continue // it has received all of it
		}
		first := earliest(stays, after)
		for _, st := range stays {
			if st.deferred() && !seen.Covers(st.due) { // it had not been given anything yet
				first = first.Min(st.join)
			}
		}
		since[rooms.InNamed(namespace, name)] = first
	}
	for name, stays := range m.banned {
		if !slices.ContainsFunc(stays, func(st stay) bool { return st.open || low.IsZero() || !low.Includes(st.leave) }) {
			continue
		}
		room, first := rooms.InNamed(namespace, name), earliest(stays, after)
		if from, read := since[room]; read {
			first = first.Min(from)
		}
		since[room] = first
	}
	return since
}

// earliest returns the position from which a room with these stays is to be read. That need not be
// where the first one began: a command may have been published before the member joined the room
// and left it, and executed after that.
func earliest(stays []stay, after func(join adapter.Cursor) adapter.Cursor) adapter.Cursor {
	first := after(stays[0].join)
	for _, st := range stays[1:] {
		first = first.Min(after(st.join))
	}
	return first
}
