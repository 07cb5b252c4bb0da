package feed

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A catch-up reads the events that the feed has missed. It is complete because of the order of its
// steps. First, all earlier subscriptions are confirmed, so that later events arrive. Then the end
// is fixed. Only then are the rooms listed, because a room joined since has its events after that
// end. Events that arrived meanwhile come last.

// CatchUp begins a catch-up: messages that arrive from here on are held. It returns the entries
// that the clock must contain.
func (f *Feed) CatchUp() []Entry {
	if f.gen == nil {
		return nil
	}
	f.gen.flow, f.gen.memory = holding, f.Memory()
	return f.gen.memory
}

// A Plan says which rooms a catch-up reads.
type Plan struct {
	After map[string]adapter.Position // the rooms, and the position after which each is read
	End   adapter.Position            // up to which they are read
	Lost  string                      // if not empty, the proof that the history has lost something
}

// Plan fixes the end of the catch-up at the newest entry of a clock that was read after CatchUp,
// and lists its rooms.
func (f *Feed) Plan(seen *Look) (Plan, error) {
	g := f.gen
	if g == nil || seen.Epoch != f.epoch {
		return Plan{}, ErrNewHistory
	}
	if lost := seen.Lacks(g.memory); lost != "" {
		return Plan{Lost: lost}, nil
	}
	g.end = seen.Newest.End(f.config.Partition)
	plan := Plan{After: make(map[string]adapter.Position, len(f.rooms)), End: g.end}
	if f.begun || f.config.Stored {
		for name, r := range f.rooms {
			plan.After[name] = f.former.from(g.server, r.from, f.tail)
		}
	}
	return plan, nil
}

// A Reading is the result of a catch-up's reads.
type Reading struct {
	Events  [][]*adapter.Event // room by room
	Broken  map[string]error   // rooms whose events cannot be returned, by name
	Trimmed error              // none can be returned
	Now     time.Time          // by the clock of Redis, after the read
}

// Release delivers missed and held events, in one order, and lets events pass from here on. If more have
// arrived meanwhile than can be held, the next catch-up continues from the end of this one.
func (f *Feed) Release(read Reading) *Output {
	if !f.input(Space{}) {
		return &f.out
	}
	g := f.gen
	if e := g.coming.event; e != nil && e.Position.Compare(g.end) <= 0 {
		f.complete() // if it is stored, its other copies have been read
	}
	f.reportLosses(&read)
	f.merge(append(read.Events, g.held))
	if g.newest = (adapter.Position{}); g.end.Compare(f.tail) < 0 {
		g.newest = f.tail // of a held message
	}
	f.tail = later(f.tail, g.end)
	f.former.confirm(g.server, f.tail)
	g.held, g.unknown, g.bytes, f.begun = nil, nil, 0, true
	if g.flow == holding {
		g.flow, f.out.Live = passing, true
	}
	return &f.out
}

// reportLosses reports the gaps that the catch-up cannot repair. That precedes the events that
// follow them.
func (f *Feed) reportLosses(read *Reading) {
	// A backlog with an event after the tail may have expired, and would look like a room without
	// events. Only Redis' own time shows that; the newest entry of the clock may be much older.
	lag := read.Now.Sub(f.tail.Time())
	if f.begun && read.Trimmed == nil && lag >= f.config.Life {
		read.Trimmed = fmt.Errorf("%w: feed is %v behind, backlogs are kept for %v", adapter.ErrTrimmed, lag, f.config.Life)
	}
	if read.Trimmed != nil {
		f.note(Note{What: Unrepaired, Err: read.Trimmed})
		f.lose("feed gap not repaired: "+read.Trimmed.Error(), nil, f.gen.end)
		read.Events = nil
	}
	for _, name := range slices.Sorted(maps.Keys(read.Broken)) {
		err := read.Broken[name]
		f.note(Note{What: Unrepaired, Name: name, Err: err})
		if r, ok := f.rooms[name]; ok {
			f.lose("feed gap not repaired: "+err.Error(), r.to, f.tail)
		}
	}
	if list := f.gen.unknown; len(list) > 0 {
		f.lose(adapter.ErrUndecodable.Error(), list, f.tail)
	}
}

// merge delivers the events after the tail, and compares the others with those that the feed of a
// former primary has delivered.
func (f *Feed) merge(events [][]*adapter.Event) {
	g, repaired, hole := f.gen, 0, false
	for e := range adapter.Merge(events) {
		switch {
		case e.Position.Compare(f.tail) > 0:
			f.put(adapter.Item{Event: e}, f.config.Size(e))
			f.tail = e.Position
			repaired++
		case g.end.Compare(e.Position) < 0: // held behind one that was ahead of the clock
			f.reveal(e.Position)
		case !hole && f.former.lacks(g.server, e):
			hole = true
			f.lose("the feed of a former primary had a hole", nil, g.end)
		}
	}
	if f.begun {
		f.note(Note{What: Repaired, N: repaired})
	}
}
