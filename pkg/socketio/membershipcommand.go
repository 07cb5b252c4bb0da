package socketio

import (
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// suspend disables deferred stays whose command the member has not received, and copies in apart
// whose later copy it has not received.
func (m *memberships) suspend(seen adapter.Cursor) {
	for p, later := range m.apart {
		if seen.IsZero() || !seen.Covers(later) {
			delete(m.apart, p)
			m.unsaved = true
		}
	}
	for _, stays := range m.named {
		for i := range stays {
			if st := &stays[i]; st.deferred() && (seen.IsZero() || !seen.Covers(st.due)) {
				st.pending = true
			}
		}
	}
}

// suspended returns the positions of the commands that the suspended stays are due to, with the
// beginning that the stays of one command have in common: a command that arrived late has begun some
// of them.
func (m *memberships) suspended() map[adapter.Position]adapter.Cursor {
	var joins map[adapter.Position]adapter.Cursor
	for _, stays := range m.named {
		for _, st := range stays {
			if !st.deferred() || !st.pending {
				continue
			}
			join := st.join
			if other, known := joins[st.due]; known {
				join = join.Min(other)
			}
			put(&joins, st.due, join)
		}
	}
	return joins
}

// resume enables the suspended stays that are due to a command at a position. It returns their
// rooms.
func (m *memberships) resume(command adapter.Position) (names []string) {
	for name, stays := range m.named {
		for i := range stays {
			if st := &stays[i]; st.deferred() && st.pending && st.due == command {
				st.pending = false
				names = append(names, name)
			}
		}
	}
	return names
}

// defers sets the command that an open stay is due to, unless that is zero.
func (m *memberships) defers(name string, due adapter.Position) {
	if st := m.current(name); st != nil && due != (adapter.Position{}) {
		st.due, m.unsaved = due, true
	}
}

// had records that a copy is not for the member, because it has been given a later one.
func (m *memberships) had(at, later adapter.Position) {
	put(&m.apart, at, later)
	m.unsaved = true
}

// command marks the open stays in some rooms as commanded, and reports whether any was not marked
// before.
func (m *memberships) command(names []string) (changed bool) {
	for _, name := range names {
		if st := m.current(name); st != nil && !st.commanded {
			st.commanded, m.unsaved, changed = true, true, true
		}
	}
	return changed
}

// enterAt applies a command of the past: it begins a stay at the command's position, unless a known
// stay is newer than the command or includes it. A stay that is due to a command does not count
// until resume.
func (m *memberships) enterAt(name string, at adapter.Cursor, due adapter.Position) bool {
	stays, command, deferred := m.named[name], commandAt(at, due), due != adapter.Position{}
	switch n := len(stays) - 1; {
	case n >= 0 && stays[n].open && m.precedes(name, at, due):
		m.precede(name, at, due)
		stays = m.named[name]
		stays[n].pending = deferred
		m.command([]string{name})
		return true
	case n >= 0 && (stays[n].join.Covers(command) || stays[n].leave.Covers(command)):
		return false
	case n >= 0 && stays[n].open:
		m.command([]string{name})
		return false
	}
	m.enter(name)
	m.confirm(name, at)
	m.command([]string{name})
	if st := m.current(name); deferred {
		st.due, st.pending = due, true
	}
	return true
}

// commandAt returns the position of the command that has begun a stay.
func commandAt(join adapter.Cursor, due adapter.Position) adapter.Position {
	if due == (adapter.Position{}) {
		return join.At
	}
	return due
}

// precedes reports whether a command has joined an open room before the member has joined it: the
// room's events in between are for the member.
func (m *memberships) precedes(name string, at adapter.Cursor, due adapter.Position) bool {
	stays, command := m.named[name], commandAt(at, due)
	n := len(stays) - 1
	if stays[n].join.IsZero() || !stays[n].join.Covers(command) || at.Includes(stays[n].join) {
		return false
	}
	for n--; n >= 0 && stays[n].single(); n-- { // beside the memberships
	}
	if n < 0 {
		return true
	}
	left := stays[n].leave // if that covers the command, it has left the room after it
	return at.Includes(left) && !left.Covers(command)
}

// precede puts a stay that a command has begun before the open one.
func (m *memberships) precede(name string, at adapter.Cursor, due adapter.Position) {
	if m.current(name) == nil {
		return
	}
	stays := m.named[name]
	n := len(stays) - 1
	m.named[name] = slices.Insert(stays, n, stay{join: at, leave: stays[n].join, commanded: true, due: due})
	m.count++
	m.uncharged += m.stayCost(name)
	m.unsaved = true
}

// leaveAt ends the open stay of a room for a command, unless the stay is newer than the command.
// Then it ends a stay that precede has put before it. Local commands have no position: they end the
// open stay in any case.
func (m *memberships) leaveAt(name string, command adapter.Position, at adapter.Cursor, local bool) (found, open bool) {
	for i := range m.banned[name] {
		if st := &m.banned[name][i]; st.open && !st.join.Covers(command) {
			st.leave, st.open = at, false
		}
	}
	stays := m.named[name]
	for i := range stays {
		switch st := &stays[i]; {
		case st.pending || !local && st.join.Covers(command):
		case st.open:
			m.leave(name, at)
			return true, true
		case st.commanded && st.leave.Covers(command) && i+1 < len(stays) && st.leave == stays[i+1].join:
			st.leave, m.unsaved, found = st.leave.Min(at), true, true
		}
	}
	return found, false
}
