package redis

import (
	"cmp"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A reread holds the events that a catch-up has read, by room. If they are too large, the rooms
// with the most are given up, so that the members of the others lose no events.
type reread struct {
	most, bytes int
	rooms       []heldRoom
	shared      map[adapter.Position]*heldCopies
}

type heldRoom struct {
	name   string
	events []*adapter.Event
	bytes  int
}

// heldCopies are the copies of an event in several rooms. They share one payload.
type heldCopies struct {
	first *adapter.Event
	rooms int
}

func sharedSize(e *adapter.Event) int { return payloadSize(e) + listsSize(e) }

// add adds the missed events of a room, and returns the rooms that are given up.
func (h *reread) add(name string, events []*adapter.Event) (broken []string) {
	if h.shared == nil {
		h.shared = make(map[adapter.Position]*heldCopies)
	}
	room := heldRoom{name: name, events: slices.Clone(events)}
	for i, e := range events {
		room.bytes += eventOverhead + sharedSize(e)
		h.bytes += eventOverhead
		copies := h.shared[e.Position]
		if copies == nil {
			h.shared[e.Position] = &heldCopies{e, 1}
			h.bytes += sharedSize(e)
			continue
		}
		copies.rooms++
		one := *e
		one.Data, one.Attachments = copies.first.Data, copies.first.Attachments
		one.Target.Except, one.Earlier = copies.first.Target.Except, copies.first.Earlier
		room.events[i] = &one
	}
	h.rooms = append(h.rooms, room)
	if h.bytes <= h.most {
		return nil
	}
	// A quarter is given up, so that this is not repeated for each later room.
	slices.SortFunc(h.rooms, func(a, b heldRoom) int { return cmp.Compare(a.bytes, b.bytes) })
	for h.bytes > h.most/4*3 {
		last := h.rooms[len(h.rooms)-1]
		h.rooms = h.rooms[:len(h.rooms)-1]
		for _, e := range last.events {
			h.bytes -= eventOverhead
			copies := h.shared[e.Position]
			if copies.rooms--; copies.rooms == 0 {
				h.bytes -= sharedSize(copies.first)
				delete(h.shared, e.Position)
			}
		}
		broken = append(broken, last.name)
	}
	return broken
}

// events returns the held events, room by room.
func (h *reread) events() [][]*adapter.Event {
	all := make([][]*adapter.Event, len(h.rooms))
	for i := range h.rooms {
		all[i] = h.rooms[i].events
	}
	return all
}
