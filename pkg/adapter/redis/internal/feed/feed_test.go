package feed

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// The clock of these tests has the entries 10 (of call x), 12 and 20.
var seen = Look{Epoch: "e", Oldest: Entry{Ms: 10}, Newest: Entry{Ms: 20}, Found: map[string]Entry{
	"10-0": {Ms: 10, Call: "x"}, "12-0": {Ms: 12, Call: "y"}, "20-0": {Ms: 20, Call: "z"},
}}

func TestVerdict(t *testing.T) {
	for text, lost := range map[string]bool{
		"9": false, "9-5": false, "10": false, "10-5": false, "10-end": false, "10-1024": true,
		"11": true, "12-7": false, "20-end": false, "20-1024": true, "21": true,
	} {
		err := seen.Verdict(position(text))
		if lost != errors.Is(err, adapter.ErrHistoryLost) || lost != (err != nil) {
			t.Errorf("the verdict on %s is %v", text, err)
		}
	}
}

func TestLacks(t *testing.T) {
	for _, tt := range []struct {
		memory string
		proof  string
	}{
		{"", ""},
		{"0", ""},    // nothing is known
		{"9=a", ""},  // it may have been trimmed
		{"10=x", ""}, //
		{"10", ""},   // its call is not known
		{"10=a", "of another call"},
		{"11", "not in the clock"},
		{"21", "ahead of the clock"},
		{"10=x 12 20=z", ""},
		{"10=x 12 20=y", "of another call"},
		{"10=x 11", "not in the clock"},
	} {
		var memory []Entry
		for _, s := range strings.Fields(tt.memory) {
			memory = append(memory, entryIn(s))
		}
		if got := seen.Lacks(memory); (got == "") != (tt.proof == "") || !strings.Contains(got, tt.proof) {
			t.Errorf("%q: the proof is %q, want %q", tt.memory, got, tt.proof)
		}
	}
}

// All positions of a call belong to its entry, and to no other.
func TestEntries(t *testing.T) {
	for _, e := range []Entry{{Ms: 5}, {Ms: 5, Seq: 1}, {Ms: 6}, {Ms: math.MaxUint64, Seq: math.MaxUint64 / PerCall}} {
		for _, k := range []int{0, 1, PerCall - 1} {
			p := e.Position(3, k)
			if EntryOf(p) != e || p.Partition != 3 || e.End(3).Compare(p) < 0 {
				t.Errorf("position %d of %v is %v, and its end is %v", k, e, p, e.End(3))
			}
		}
	}
	a, b := Entry{Ms: 5, Seq: 1}, Entry{Ms: 6}
	if !a.Before(b) || b.Before(a) || a.Before(a) || !(Entry{Ms: 5}).Before(a) || a.ID() != "5-1" {
		t.Error("the order of entries")
	}
	if a.End(0).Compare(b.Position(0, 0)) >= 0 {
		t.Error("an entry ends after the next one begins")
	}
}

func TestFormerPrimary(t *testing.T) {
	tr := formerPrimary{}
	p := func(ms uint64) adapter.Position { return adapter.Position{Ms: ms} }
	stored := func(ms uint64) *adapter.Event { return &adapter.Event{Position: p(ms), Stored: true} }
	tr.confirm("s", p(10))
	for _, ms := range []uint64{12, 14} {
		tr.note(stored(ms))
	}
	tr.note(&adapter.Event{Position: p(15)})
	for _, tt := range []struct {
		server string
		heard  adapter.Position
		want   uint64
	}{
		{"s", p(0), 20}, {"s", p(15), 20}, // its own feed
		{"other", p(0), 10}, {"other", p(15), 15}, {"other", p(20), 20}, // events since then
		{"other", p(21), 20}, {"other", never, 20}, // after the tail
	} {
		if got := tr.from(tt.server, tt.heard, p(20)); got != p(tt.want) {
			t.Errorf("a room subscribed from %v is read with %s from %v, want %d", tt.heard, tt.server, got, tt.want)
		}
	}
	for ms, lacks := range map[uint64]bool{11: true, 12: false, 13: true, 14: false, 15: true} {
		if tr.lacks("other", stored(ms)) != lacks {
			t.Errorf("the feed lacks %d: %v", ms, !lacks)
		}
	}
	if tr.lacks("other", &adapter.Event{Position: p(11)}) || tr.lacks("s", stored(11)) {
		t.Error("it lacks an event that is not stored, or one of the same server")
	}
	// Events that do not fit count as not seen.
	for ms := uint64(20); ms < 20+maxDelivered; ms++ {
		tr.note(stored(ms))
	}
	if len(tr.delivered) != maxDelivered || !tr.lacks("other", stored(20+maxDelivered-1)) {
		t.Errorf("it remembers %d events", len(tr.delivered))
	}
	if tr.confirm("s", p(1<<20)); len(tr.delivered) > 0 {
		t.Errorf("it remembers %d events of before, want 0", len(tr.delivered))
	}
}

// live returns a feed that passes events of room a, with its clock at 10 s.
func live() *Feed {
	f := newFeed()
	f.Adopt("", "e", Entry{Ms: 10_000}, start)
	f.Subscribe("a", room1("a"))
	f.From("a", position("10000-end"))
	f.Begin("e", "s")
	f.CatchUp()
	_, _ = f.Plan(look("e", "1..10000", []string{"10000"}))
	f.Release(Reading{})
	return f
}

var space = Space{1 << 20, 1 << 30}

// Messages ahead of the clock beyond the limits are read again: too many messages, or too
// many bytes.
func TestAheadIsBounded(t *testing.T) {
	for _, tt := range []struct{ messages, bytes int }{{AheadMessages, 1}, {16, aheadBytes / 16}} {
		f := live()
		forged := Message{Name: "a", At: position("99000"), Payload: strings.Repeat("x", tt.bytes)}
		for i := range tt.messages {
			if out := f.Arrived(forged, start, space); out.CatchUp || out.Look != (i == 0) {
				t.Fatalf("at message %d: %+v", i, out)
			}
		}
		if out := f.Arrived(forged, start, space); !out.CatchUp || len(out.Notes) != 1 || out.Notes[0].What != Overflow {
			t.Fatalf("beyond %d: %+v", tt.messages, out)
		}
		if a := &f.gen.ahead; len(a.messages) != 0 || a.bytes != 0 || a.asked != 0 {
			t.Errorf("%d messages with %d bytes are held afterwards", len(a.messages), a.bytes)
		}
		if out := f.Looked("e", Entry{Ms: 10_001}, start, space); out.Look || len(out.Items) > 0 || f.gen.ahead.looking {
			t.Errorf("the look afterwards: %+v", out)
		}
	}
}

// The horizon does not overflow, and does not go back when the clock does.
func TestHorizon(t *testing.T) {
	f := live()
	for _, tt := range []struct {
		known   uint64
		after   time.Duration
		horizon uint64
	}{
		{20_000, 0, 21_000}, {20_000, 5 * time.Second, 26_000}, {20_000, -5 * time.Second, 21_000},
		{math.MaxUint64 - 500, 0, math.MaxUint64}, {math.MaxUint64, time.Hour, math.MaxUint64},
	} {
		f.know(Entry{Ms: tt.known}, start)
		if f.moveHorizon(start.Add(tt.after)); f.horizon != tt.horizon {
			t.Errorf("%v after %d the horizon is %d, want %d", tt.after, tt.known, f.horizon, tt.horizon)
		}
	}
}

// A node does not go back to a history that it has left, and remembers a bounded number of them.
func TestHasLeft(t *testing.T) {
	f := newFeed()
	const n = 2 * leftHistories
	for i := range n {
		f.Adopt(f.Epoch(), fmt.Sprint(i), Entry{Ms: 1}, start)
	}
	if len(f.left) != leftHistories || !f.HasLeft(fmt.Sprint(n-2)) || f.HasLeft(fmt.Sprint(n-1)) || f.HasLeft("0") {
		t.Errorf("it has left %v", f.left)
	}
}

// A node without backlogs reads none at first, and later finds that they are missing.
func TestNothingIsStored(t *testing.T) {
	f := live()
	f.config.Stored, f.begun = false, false
	for _, begun := range []bool{false, true} {
		f.CatchUp()
		plan, err := f.Plan(look("e", "1..10000", []string{"10000"}))
		if err != nil || (len(plan.After) > 0) != begun {
			t.Errorf("the plan is %v, %v", plan, err)
		}
		f.Release(Reading{})
	}
}

// A message costs only the decoding of its event; the output is reused unless it was large.
func TestArrivedDoesNotAllocate(t *testing.T) {
	f := live()
	f.config.Decode = func(string, []rooms.Room) (*adapter.Event, bool, error) { return &adapter.Event{}, false, nil }
	f.config.Size = func(*adapter.Event) int { return 10 }
	at := position("10001")
	got := testing.AllocsPerRun(100, func() {
		at.Seq++
		if out := f.Arrived(Message{Name: "a", At: at, Payload: "hello"}, start, space); len(out.Items) != 1 {
			t.Fatalf("got %+v, want one item", out)
		}
	})
	if got != 1 {
		t.Errorf("%v allocations beside the event's", got-1)
	}
	f.CatchUp()
	var events []*adapter.Event
	for range 2000 {
		at.Seq++
		events = append(events, &adapter.Event{Position: at})
	}
	if out := f.Release(Reading{Events: [][]*adapter.Event{events}}); len(out.Items) != len(events) {
		t.Fatalf("%d events are released, want %d", len(out.Items), len(events))
	}
	if out := f.Pong(space); cap(out.Items) > 1024 {
		t.Errorf("space for %d items is kept, want at most 1024", cap(out.Items))
	}
}
