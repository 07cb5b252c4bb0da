package feed

import (
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// do executes an output, and gives the delivered events to members. Members with a loss join again
// where the feed continues.
func (n *node) do(out *Output) {
	for _, it := range out.Items {
		switch {
		case it.Event != nil:
			n.say("  -> %s %s", showPosition(it.Event.Position), showRooms(it.Event.Target.To))
			n.give(it.Event)
		case it.Lost != nil:
			n.say("  -> lost %s %s: %s", showRooms(it.Lost.Rooms), showPosition(it.At), it.Lost.Reason)
			n.lose(it, later(it.At, n.rejoin))
		case it.At.Compare(n.last) < 0:
			n.fail("the progress goes back")
		}
	}
	n.suspect = n.suspect || n.feed.Tail().Seq == forgedSeq
	n.queued += len(out.Items)
	if out.Ping {
		n.world.conn.flight = append(n.world.conn.flight, arrival{})
	}
	n.looking = n.looking || out.Look
	n.behind = n.behind || out.CatchUp
	if out.Stop != nil {
		n.cut()
	}
}

func (n *node) give(e *adapter.Event) {
	if e.Position.Compare(n.last) <= 0 {
		n.fail("it comes after %s", showPosition(n.last))
	}
	n.last = e.Position
	if n.forged[e.Position] {
		n.fail("it is ahead of the clock")
	}
	if len(e.Target.To) == 0 {
		n.fail("it is for no room")
	}
	if e.Position.Seq == forgedSeq { // it is not of the history
		return
	}
	for i, r := range e.Target.To {
		if slices.Contains(e.Target.To[:i], r) { // as a held event and as one that was read
			continue
		}
		if m := n.rooms[r.Name]; m != nil && m.joined && m.from.Compare(e.Position) < 0 {
			if m.got[e.Position] {
				n.fail("it is a repeat")
			}
			m.got[e.Position] = true
		}
	}
}

func (n *node) lose(it Item, at adapter.Position) {
	all := len(it.Lost.Rooms) == 0
	if all {
		if !n.excused {
			n.fail("a loss without a reason")
		}
		n.last, n.suspect = adapter.Position{}, n.world.former()
	}
	for _, r := range it.Lost.Rooms {
		if !n.excuses[r.Name] && !n.excused {
			n.fail("a loss without a reason")
		}
	}
	for name, m := range n.rooms {
		if m.joined && (all || slices.Contains(it.Lost.Rooms, room1(name))) {
			if m.epoch != it.Epoch {
				m.epoch, m.from = it.Epoch, adapter.Position{}
			}
			m.from, m.got = n.known(later(at, m.from)), make(map[adapter.Position]bool)
		}
	}
}

// known returns a position, or the newest of the clock if that is earlier, because no member
// joins later.
func (n *node) known(at adapter.Position) adapter.Position {
	if end := n.world.primary.newest().End(0); end.Compare(at) < 0 {
		return end
	}
	return at
}

// check makes sure that members have all events up to the feed's position.
func (n *node) check() {
	if n.suspect || n.world.primary.epoch != n.feed.Epoch() {
		return
	}
	for _, r := range n.world.primary.log {
		for _, name := range r.rooms {
			m := n.rooms[name]
			if m == nil || !m.joined || !r.stored || r.at.Compare(m.from) <= 0 || n.feed.Tail().Compare(r.at) < 0 {
				continue
			}
			if !m.got[r.at] {
				n.fail("members of %s miss %s, and the feed is at %s", name, r, showPosition(n.feed.Tail()))
			}
			if r.bad {
				n.fail("members of %s have %s", name, r)
			}
		}
	}
}

// checkLost makes sure that members have no event that the history has lost. A loss of a former
// primary is detected only if its feed has delivered nothing else since.
func (n *node) checkLost() {
	if n.world.primary.epoch != n.feed.Epoch() {
		return
	}
	for name, m := range n.rooms {
		for at := range m.got {
			if !n.fed[at] && !slices.ContainsFunc(n.world.primary.log, func(r *record) bool { return r.at == at && slices.Contains(r.rooms, name) }) {
				n.fail("members of %s have %s, which is lost", name, showPosition(at))
			}
		}
	}
}

// heal ends all faults and completes everything in flight. Afterwards all events arrive.
func (n *node) heal() {
	n.say("heal")
	n.cut()
	for range 3 { // the first attempts may find that the history is lost
		n.connected()
	}
	if !n.feed.Passing() || n.suspect {
		n.fail("the feed is not live")
	}
	n.check()
	for _, name := range roomNames {
		n.subscribe(slices.Index(roomNames, name))
		n.confirm(0)
		n.join(slices.Index(roomNames, name))
	}
	for i := range 4 {
		r := &record{stored: i%2 == 0, rooms: roomNames}
		n.published([]*record{r}, false)
		n.pass(100)
		for range 10 {
			n.queued = 0
			n.deliver(2)
			n.look(0)
		}
		if n.check(); n.last != r.at {
			n.fail("%s does not come", r)
		}
		for _, name := range roomNames {
			if !n.rooms[name].got[r.at] {
				n.fail("%s does not come for %s, who joined at %s", r, name, showPosition(n.rooms[name].from))
			}
		}
	}
}
