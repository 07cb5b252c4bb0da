package socketio

import (
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A lane is the rest of a replay in one partition.
type lane struct {
	events   []adapter.Event
	commands []*command // among them, those that carry their position in the other partitions
}

// of returns the lane of a partition, which may be new.
func of(lanes []*lane, partition uint16) ([]*lane, *lane) {
	for _, l := range lanes {
		if l.events[0].Position.Partition == partition {
			return lanes, l
		}
	}
	l := new(lane)
	return append(lanes, l), l
}

// queue adds an event to the lane of its partition.
func queue(lanes []*lane, ev *adapter.Event) []*lane {
	lanes, l := of(lanes, ev.Position.Partition)
	l.events = append(l.events, *ev)
	if c := newCommand(ev); c != nil && c.spread() {
		l.commands = append(l.commands, c)
	}
	return lanes
}

// standIn puts a marker in the place of a command that a suspended stay is due to, just before the
// command itself. The command may not be read, or may no longer be for the client, for example
// because the client may not keep the room that the command was addressed to. Behind the command the
// client's position would already cover it and the events that the stay gives.
func standIn(lanes []*lane, due adapter.Position, join adapter.Cursor) []*lane {
	lanes, l := of(lanes, due.Partition)
	i := 0
	for i < len(l.events) && l.events[i].Position.Compare(due) < 0 {
		i++
	}
	if i == len(l.events) || l.events[i].Position != due { // its order is the command's
		k := 0
		for k < len(l.commands) && l.commands[k].at.Compare(due) < 0 {
			k++
		}
		l.commands = slices.Insert(l.commands, k, &command{at: due, head: join})
	}
	l.events = slices.Insert(l.events, i, adapter.Event{Kind: kindMarker, Position: due})
	return lanes
}

func (l *lane) take() adapter.Event {
	ev := l.events[0]
	l.events = l.events[1:]
	last := len(l.events) == 0 || l.events[0].Position != ev.Position // not a stand-in before its command
	if last && len(l.commands) > 0 && l.commands[0].at == ev.Position {
		l.commands = l.commands[1:]
	}
	return ev
}

// next returns the lane with the next event. A command follows the events that were published
// before it and precedes all others, as it does for a caller that waits for its return. Otherwise
// the oldest event is next.
func next(lanes []*lane) int {
	oldest, free := -1, -1
	for i, l := range lanes {
		at := l.events[0].Position
		older := func(than int) bool { return than < 0 || at.Compare(lanes[than].events[0].Position) < 0 }
		if len(l.commands) > 0 && l.commands[0].at == at {
			if !slices.ContainsFunc(lanes, func(o *lane) bool { return o != l && l.commands[0].head.Covers(o.events[0].Position) }) {
				return i
			}
			continue
		}
		if older(oldest) {
			oldest = i
		}
		waits := slices.ContainsFunc(lanes, func(o *lane) bool {
			return o != l && len(o.commands) > 0 && !o.commands[0].head.Covers(at)
		})
		if !waits && older(free) {
			free = i
		}
	}
	if free < 0 { // they wait for each other, because they were published concurrently
		return max(oldest, 0)
	}
	return free
}
