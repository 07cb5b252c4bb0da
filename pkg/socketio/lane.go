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

// lanes are the rest of a replay: a lane for each partition that has events.
type lanes []*lane

// of returns the lane of a partition, which may be new.
func (ls *lanes) of(partition uint16) *lane {
	for _, l := range *ls {
		if l.events[0].Position.Partition == partition {
			return l
		}
	}
	l := new(lane)
	*ls = append(*ls, l)
	return l
}

// queue adds an event to the lane of its partition.
func (ls *lanes) queue(ev *adapter.Event) {
	l := ls.of(ev.Position.Partition)
	l.events = append(l.events, *ev)
	if c := newCommand(ev); c != nil && c.spread() {
		l.commands = append(l.commands, c)
	}
}

// standIn puts a marker in the place of a command that a suspended stay is due to, just before the
// command itself. The command may not be read, or may no longer be for the client, for example
// because the client may not keep the room that the command was addressed to. Behind the command the
// client's position would already cover it and the events that the stay gives.
func (ls *lanes) standIn(due adapter.Position, join adapter.Cursor) {
	l := ls.of(due.Partition)
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
}

// take removes the next event and returns it.
func (ls *lanes) take() adapter.Event {
	i := ls.next()
	l := (*ls)[i]
	ev := l.events[0]
	if l.events = l.events[1:]; len(l.events) == 0 {
		*ls = slices.Delete(*ls, i, i+1)
	} else if l.events[0].Position == ev.Position {
		return ev // a stand-in before its command
	}
	if len(l.commands) > 0 && l.commands[0].at == ev.Position {
		l.commands = l.commands[1:]
	}
	return ev
}

// next returns the lane with the next event. A command follows the events that were published
// before it and precedes all others, as it does for a caller that waits for its return. Otherwise
// the oldest event is next.
func (ls lanes) next() int {
	oldest, free := -1, -1
	for i, l := range ls {
		at := l.events[0].Position
		older := func(than int) bool { return than < 0 || at.Compare(ls[than].events[0].Position) < 0 }
		if len(l.commands) > 0 && l.commands[0].at == at {
			if !slices.ContainsFunc(ls, func(o *lane) bool { return o != l && l.commands[0].head.Covers(o.events[0].Position) }) {
				return i
			}
			continue
		}
		if older(oldest) {
			oldest = i
		}
		waits := slices.ContainsFunc(ls, func(o *lane) bool {
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
