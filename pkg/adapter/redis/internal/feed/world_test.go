package feed

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A world is the environment of a feed in the model: servers with a clock, backlogs and
// subscribers, and one connection to one of them.
type world struct {
	now     uint64 // milliseconds, by the clock of the primary
	local   time.Time
	primary *server
	servers int // so far
	conn    *connection
	heard   map[string]bool // channels that the node subscribes to in each generation
}

// A server is a primary, or a former one, with one history.
type server struct {
	id    string
	epoch string
	clock []Entry
	log   []*record
}

// A record is a published event.
type record struct {
	at     adapter.Position
	rooms  []string
	stored bool
	listed bool
	bad    bool // it can't be decoded
}

// A connection has a server's channels, and the messages on them that have not arrived.
type connection struct {
	server     string
	epoch      string
	subscribed map[string]bool
	pending    []string // channels that are not subscribed yet
	late       []string // and those that were added since
	flight     []arrival
}

// An arrival is a message, or without a name the answer to a PING.
type arrival struct {
	Message
	garbled bool // its position can't be read
}

func newWorld() *world {
	w := &world{now: 1_000_000, local: start, heard: map[string]bool{Probes: true, Lists: true}}
	w.primary = &server{id: "s0", epoch: "e0"}
	w.tick()
	return w
}

// tick adds an entry to the clock.
func (w *world) tick() Entry {
	s := w.primary
	e := Entry{Ms: w.now, Seq: uint64(100 * w.servers), Call: fmt.Sprint("call", w.now, w.servers)}
	if n := len(s.clock); n > 0 && !s.clock[n-1].Before(e) {
		e.Ms, e.Seq = s.clock[n-1].Ms, s.clock[n-1].Seq+1
		e.Call += fmt.Sprint("-", e.Seq)
	}
	s.clock = append(s.clock, e)
	return e
}

func (s *server) newest() Entry { return s.clock[len(s.clock)-1] }

func (r *record) payload() string {
	text := "event"
	if r.bad {
		text = "!"
	}
	if r.listed {
		text = "&" + text
	}
	if !r.stored {
		text = "~" + text
	}
	return text
}

// publish publishes events in one call. Subscribers at the primary get them, and unless there is a
// hole those of a former primary, too.
func (w *world) publish(list []*record, hole bool) Entry {
	e := w.tick()
	for k, r := range list {
		r.at = e.Position(0, k)
		w.primary.log = append(w.primary.log, r)
		if hole {
			continue
		}
		if r.listed {
			w.send(Message{Name: Lists, At: r.at, Payload: "x"})
		}
		for i, room := range r.rooms {
			w.send(Message{Name: room, At: r.at, More: i < len(r.rooms)-1, Payload: r.payload()})
		}
	}
	return e
}

// send sends a message to the connection, if it is subscribed.
func (w *world) send(m Message) {
	if c := w.conn; c != nil && c.epoch == w.primary.epoch && c.subscribed[m.Name] {
		c.flight = append(c.flight, arrival{Message: m})
	}
}

// connect opens a connection to the primary, which subscribes to the channels one after another.
func (w *world) connect(epoch string) {
	w.conn = &connection{server: w.primary.id, epoch: epoch, subscribed: make(map[string]bool), pending: slices.Sorted(maps.Keys(w.heard))}
}

// former reports whether the connection is to a server that is no longer the primary.
func (w *world) former() bool { return w.conn != nil && w.conn.server != w.primary.id }

// look reads the clock, and looks for entries.
func (w *world) look(memory []Entry) *Look {
	l := &Look{Epoch: w.primary.epoch, Oldest: w.primary.clock[0], Newest: w.primary.newest(), Found: make(map[string]Entry)}
	for _, want := range memory {
		for _, e := range w.primary.clock {
			if e.ID() == want.ID() {
				l.Found[e.ID()] = e
			}
		}
	}
	return l
}

// backlogLimit is the number of events of a room that can be replayed.
const backlogLimit = 6

// read reads the backlogs of a plan. Those that have been silent for their lifetime are empty.
func (w *world) read(plan Plan) Reading {
	read := Reading{Now: time.UnixMilli(int64(w.now)), Broken: make(map[string]error)}
	for name, after := range plan.After {
		var events []*adapter.Event
		n, last := 0, uint64(0)
		for _, r := range w.primary.log {
			if !r.stored || !slices.Contains(r.rooms, name) {
				continue
			}
			if last = r.at.Ms; r.at.Compare(after) <= 0 {
				continue
			}
			if n++; r.at.Compare(plan.End) > 0 {
				continue
			}
			if r.bad {
				read.Broken[name] = adapter.ErrUndecodable
			}
			e := &adapter.Event{Position: r.at, Stored: true, Target: rooms.Target{To: []rooms.Room{room1(name)}}}
			events = append(events, e)
		}
		switch {
		case time.Duration(w.now-last)*time.Millisecond >= life: // it has expired
			delete(read.Broken, name)
		case n > backlogLimit:
			read.Broken[name] = adapter.ErrTrimmed
		case read.Broken[name] == nil:
			read.Events = append(read.Events, events)
		}
	}
	return read
}

// failover makes another server the primary, which lacks the newest entries of the clock, and
// whose time is behind.
func (w *world) failover(lost int, behind uint64) {
	w.servers++
	old := w.primary
	next := &server{id: fmt.Sprint("s", w.servers), epoch: old.epoch}
	next.clock = slices.Clone(old.clock[:max(1, len(old.clock)-lost)])
	for _, r := range old.log {
		if EntryOf(r.at).Before(next.newest()) || EntryOf(r.at).ID() == next.newest().ID() {
			next.log = append(next.log, r)
		}
	}
	w.primary = next
	w.now = max(w.now-min(behind, w.now), next.newest().Ms) + 1
}

// flush begins a new history, on a server whose time may be behind.
func (w *world) flush(behind uint64) {
	w.servers++
	w.primary = &server{id: w.primary.id, epoch: fmt.Sprint("e", w.servers)}
	w.now -= min(behind, w.now)
	w.tick()
}

func (r *record) String() string {
	return fmt.Sprintf("%s %s %q", showPosition(r.at), strings.Join(r.rooms, ","), r.payload())
}
