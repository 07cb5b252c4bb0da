package socketio

import (
	"maps"
	"math"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// Bits in the kind of a membership. Earlier versions ignore them and see an ordinary membership.
const (
	byCommand  = 1 << 7 // a command made it
	isDeferred = 1 << 6 // it is deferred
	isApart    = 1 << 5 // not a membership: it begins at a copy that is apart, and ends at the later one
	// isDue is not a membership either: the one before it is due to a command at another position
	// than that of its cursor. Earlier versions take it for a copy that is apart; see receipt.save.
	isDue = isApart | isDeferred
)

// manyStays is the number of stays, including ended ones, from which a session lists the rooms in
// their order, so that stores can send the difference to the previous write.
const manyStays = 32

// A lastCursor caches the cursor that was formatted last. Most of many memberships have the same,
// because rooms are joined together.
type lastCursor struct {
	cursor adapter.Cursor
	text   string
}

func (l *lastCursor) format(c adapter.Cursor) string {
	if c != l.cursor {
		l.cursor, l.text = c, c.String()
	}
	return l.text
}

// save returns the stays in the form of a session. Pending ones are omitted: they begin when the
// session that names them is stored.
func (m *memberships) save() []session.Membership {
	list := make([]session.Membership, 0, int(m.count)+len(m.apart)+3) // receipts follow
	list = append(list, session.Membership{Kind: uint8(rooms.Everyone), Join: m.born.String()})
	names := maps.Keys(m.named)
	if m.count >= manyStays {
		names = slices.Values(m.inOrder())
	}
	var last lastCursor
	at := func(p adapter.Position) string { return adapter.NewProgress(m.born).To(p).String() }
	for name := range names {
		for _, st := range m.named[name] {
			if st.pending {
				continue
			}
			kind := uint8(rooms.Named)
			if st.commanded {
				kind |= byCommand
			}
			if st.deferred() {
				kind |= isDeferred
			}
			list = append(list, session.Membership{Kind: kind, Name: name, Join: last.format(st.join), Leave: st.leave.String()})
			if st.deferred() && st.due != st.join.At {
				list = append(list, session.Membership{Kind: uint8(rooms.Named) | isDue, Join: at(st.due), Leave: never(m.born.Epoch)})
			}
		}
	}
	for p, later := range m.apart {
		list = append(list, session.Membership{Kind: uint8(rooms.Named) | isApart, Join: at(p), Leave: at(later)})
	}
	return list
}

// inOrder returns the rooms of named in their order: sorting a thousand long names takes longer
// than everything else that is done with them.
func (m *memberships) inOrder() []string {
	if m.order == nil {
		m.order = new([]string)
	}
	*m.order = slices.DeleteFunc(*m.order, func(name string) bool { return m.named[name] == nil })
	if len(*m.order) != len(m.named) {
		*m.order = slices.Sorted(maps.Keys(m.named))
	}
	return *m.order
}

// never returns a position that no client has received.
func never(epoch string) string {
	return adapter.Cursor{Epoch: epoch, At: adapter.Position{Ms: math.MaxUint64}}.String()
}

// restore reads what save wrote, and the receipts, if there are any.
func restore(list []session.Membership) (m memberships, r receipt, err error) {
	var order []string // of many rooms
	var last []stay    // of the room that was read last
	for _, s := range list {
		if s.Kind&isReceipt != 0 {
			if err = r.add(s); err != nil {
				return m, r, err
			}
			continue
		}
		if s.Kind&isKept != 0 {
			continue
		}
		join, err := adapter.ParseCursor(s.Join)
		if err != nil {
			return m, r, err
		}
		if m.partitions == 0 {
			m.partitions = int32(join.Partitions())
		}
		if rooms.Kind(s.Kind) == rooms.Everyone {
			m.born = join
			continue
		}
		if s.Kind&isDue == isDue {
			if n := len(last); n > 0 {
				last[n-1].due = join.At
			}
			continue
		}
		if s.Kind&isApart != 0 {
			later, err := adapter.ParseCursor(s.Leave)
			if err != nil {
				return m, r, err
			}
			m.had(join.At, later.At)
			continue
		}
		st := stay{join: join, open: s.Leave == "", commanded: s.Kind&byCommand != 0}
		if s.Kind&isDeferred != 0 {
			st.due = join.At
		}
		if !st.open {
			if st.leave, err = adapter.ParseCursor(s.Leave); err != nil {
				return m, r, err
			}
		}
		if len(list) >= manyStays && len(m.named[s.Name]) == 0 {
			order = append(order, s.Name)
		}
		last = append(m.named[s.Name], st)
		put(&m.named, s.Name, last)
		m.count++
		m.uncharged += m.stayCost(s.Name)
		if st.open {
			m.open++
		}
	}
	if order != nil {
		slices.Sort(order) // as it was written, in all likelihood
		m.order = &order
	}
	m.unsaved = false
	return m, r, nil
}
