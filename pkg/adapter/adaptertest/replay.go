package adaptertest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Random events in three rooms, replayed by another node from and to random places: the result must
// match the rule, event by event.
func replayMergesRooms(t *testing.T, newCluster Maker) {
	const events, replays = 60, 100
	a, b := two(t, newCluster, Options{})
	rng := newRand(t)
	all := []rooms.Room{room("r"), room("s"), rooms.InEveryone("/")}
	published := []adapter.Event{{Cursor: a.head()}}
	for i := range events {
		e := event(fmt.Sprint(i), some(rng, all)...)
		e.Cursor = a.publish(e)
		published = append(published, e)
	}
	for range replays {
		upTo := published[rng.IntN(len(published))].Cursor
		after := make(map[rooms.Room]adapter.Cursor)
		for _, r := range some(rng, all) {
			after[r] = published[rng.IntN(len(published))].Cursor
		}
		var want []string
		for _, e := range published[1:] {
			missed := func(r rooms.Room) bool {
				c, asked := after[r]
				return asked && !c.Covers(e.Cursor.At)
			}
			if upTo.Covers(e.Cursor.At) && e.Target.Match(missed) {
				want = append(want, string(e.Data))
			}
		}
		b.expectReplay(after, upTo, want...)
	}

	everything, err := b.replay(map[rooms.Room]adapter.Cursor{all[0]: published[0].Cursor}, b.head())
	if err != nil {
		t.Fatalf("Replay: %v", err)
	}
	for _, e := range everything {
		if e.Cursor.At != e.Position || !e.Cursor.SameHistory(published[0].Cursor) || e.From != a.Node() || !e.Stored {
			t.Errorf("%q is replayed with the cursor %v, the position %v, from %q, stored %v", e.Data, e.Cursor, e.Position, e.From, e.Stored)
		}
	}
}

// some returns at least one of the rooms.
func some(rng *rand.Rand, all []rooms.Room) []rooms.Room {
	picked := slices.Clone(all)
	rng.Shuffle(len(picked), func(i, j int) { picked[i], picked[j] = picked[j], picked[i] })
	return picked[:1+rng.IntN(len(picked))]
}

func newRand(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func replayLeavesOutWhatIsNotStored(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{})
	r := room("r")
	start := a.subscribe(r)
	a.publish(event("1", r))
	a.publish(adapter.Event{Target: rooms.Target{To: []rooms.Room{r}}, Data: []byte("volatile")})
	a.publish(event("2", r))
	a.expect("1", "volatile", "2")
	b.expectReplay(map[rooms.Room]adapter.Cursor{r: start}, b.head(), "1", "2")
}

func replayRespectsTheLimit(t *testing.T, newCluster Maker) {
	const limit, events = 10, 45
	a, b := two(t, newCluster, Options{BacklogLimit: limit})
	r := room("r")
	cursors := []adapter.Cursor{a.head()}
	var data []string
	for i := range events {
		data = append(data, fmt.Sprint(i))
		cursors = append(cursors, a.publish(event(data[i], r)))
	}
	head := b.head()
	for i, c := range cursors {
		after := map[rooms.Room]adapter.Cursor{r: c}
		if events-i > limit {
			b.expectNoReplay(after, head, adapter.ErrTrimmed)
		} else {
			b.expectReplay(after, head, data[i:]...)
		}
		// With an end further back the missing events may or may not be lost; an answer must be
		// right in either case.
		end := min(i+limit, events)
		switch got, err := b.replay(after, cursors[end]); {
		case err == nil && !slices.Equal(payloads(got), data[i:end]):
			t.Errorf("after %d up to %d: replayed %q", i, end, payloads(got))
		case err != nil && !errors.Is(err, adapter.ErrTrimmed):
			t.Errorf("after %d up to %d: %v", i, end, err)
		}
	}
}

// A room with few events keeps all of them, regardless of other rooms.
func replayIgnoresOtherRooms(t *testing.T, newCluster Maker) {
	const limit = 10
	a, b := two(t, newCluster, Options{BacklogLimit: limit})
	quiet, busy := room("quiet"), room("busy")
	start := a.head()
	a.publish(event("1", quiet))
	for range 20 * limit {
		a.publish(event("x", busy))
	}
	a.publish(event("2", quiet))
	b.expectReplay(map[rooms.Room]adapter.Cursor{quiet: start}, b.head(), "1", "2")
	b.expectReplay(map[rooms.Room]adapter.Cursor{quiet: start, room("silent"): start}, b.head(), "1", "2")
	b.expectNoReplay(map[rooms.Room]adapter.Cursor{busy: start}, b.head(), adapter.ErrTrimmed)
}

func replayReturnsErrorsFirst(t *testing.T, newCluster Maker) {
	const limit = 5
	n := one(t, newCluster, Options{BacklogLimit: limit})
	start := n.head()
	n.publish(event("fine", room("fine")))
	for range 10 * limit {
		n.publish(event("x", room("trimmed")))
	}
	n.publish(event("fine", room("also fine")))
	after := map[rooms.Room]adapter.Cursor{room("fine"): start, room("trimmed"): start, room("also fine"): start}
	n.expectNoReplay(after, n.head(), adapter.ErrTrimmed)
}

func replayKeepsToOneHistory(t *testing.T, newCluster Maker) {
	n := one(t, newCluster, Options{})
	r := room("r")
	start := n.head()
	n.publish(event("1", r))
	head := n.head()
	elsewhere := head
	elsewhere.Epoch = "elsewhere"
	n.expectNoReplay(map[rooms.Room]adapter.Cursor{r: elsewhere}, head, adapter.ErrHistoryLost)
	n.expectNoReplay(map[rooms.Room]adapter.Cursor{r: start}, elsewhere, adapter.ErrHistoryLost)
	n.expectNoReplay(map[rooms.Room]adapter.Cursor{r: start, room("s"): {}}, head, adapter.ErrHistoryLost)
	n.expectReplay(map[rooms.Room]adapter.Cursor{r: start}, head, "1")
}

func replayWithoutBacklogs(t *testing.T, newCluster Maker) {
	n := one(t, newCluster, Options{BacklogLimit: -1})
	r := room("r")
	start := n.subscribe(r)
	end := n.publish(event("1", r))
	n.expect("1")
	n.expectNoReplay(map[rooms.Room]adapter.Cursor{r: start}, n.head(), adapter.ErrTrimmed)
	n.expectReplay(map[rooms.Room]adapter.Cursor{r: end}, end)
	if kept, more, err := n.History(deadline(t), r, adapter.Page{Events: 10}); err != nil || len(kept) > 0 || more {
		t.Errorf("History: %q, %v, %v", payloads(kept), more, err)
	}
}

// A room whose backlog has expired looks like one without events. So a cursor from before that must
// not be taken for proof that nothing was missed, also if the backlog has begun anew.
func replayRefusesExpiredCursors(t *testing.T, newCluster Maker) {
	const ttl = 2 * time.Second
	n := one(t, newCluster, Options{BacklogTTL: ttl})
	r, silent := room("r"), room("silent")
	before := map[rooms.Room]adapter.Cursor{r: n.head()}
	n.publish(event("1", r))
	n.expectReplay(before, n.head(), "1")
	time.Sleep(ttl + ttl/4)
	n.expectNoReplay(before, n.head(), adapter.ErrTrimmed)
	now := n.publish(event("2", r))
	n.expectNoReplay(before, n.head(), adapter.ErrTrimmed)
	n.publish(event("3", r))
	n.expectReplay(map[rooms.Room]adapter.Cursor{r: now, silent: now}, n.head(), "3")
	if a, ok := n.Adapter.(adapter.CursorExpirer); ok && (a.CursorTTL() > ttl || a.CursorTTL() < ttl/2) {
		t.Errorf("CursorTTL is %v, want at most %v", a.CursorTTL(), ttl)
	}
}

func replayCanBeStopped(t *testing.T, newCluster Maker) {
	n := one(t, newCluster, Options{})
	r := room("r")
	start := n.head()
	for i := range 5 {
		n.publish(event(fmt.Sprint(i), r))
	}
	head := n.head()
	seen := 0
	for _, err := range n.Replay(deadline(t), map[rooms.Room]adapter.Cursor{r: start}, head, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen == 2 {
			n.publish(event("published in the middle of it", r)) // nothing is locked
			break
		}
	}
	n.expectReplay(nil, head)
	n.expectReplay(map[rooms.Room]adapter.Cursor{r: head}, head)
	n.expectReplay(map[rooms.Room]adapter.Cursor{r: head}, start)
	n.expectReplay(map[rooms.Room]adapter.Cursor{r: start}, head, "0", "1", "2", "3", "4")
}

// For a payload that does not fit, a replay returns its size, and Fetch returns the payload.
func replayBoundsPayloads(t *testing.T, newCluster Maker) {
	const events, size = 30, 1000
	a, b := two(t, newCluster, Options{})
	all := []rooms.Room{room("r"), room("s"), rooms.InOwn("/", "c")}
	start := a.head()
	var want []string
	for i := range events {
		e := event(fmt.Sprint(i, strings.Repeat("x", i*size/events)), all[i%len(all)])
		e.Kind, e.Flags, e.Target.Except = 3, 1, []rooms.Room{rooms.InOwn("/", "d")}
		e.Attachments = [][]byte{bytes.Repeat([]byte{byte(i)}, i)}
		a.publish(e)
		want = append(want, string(e.Data))
	}
	head, after := b.head(), make(map[rooms.Room]adapter.Cursor)
	for _, r := range all {
		after[r] = start
	}
	for _, payload := range []int{0, 1, 2 * size, 100 * size} {
		var got []adapter.Event
		var omitted []adapter.Place
		held := 0
		for e, err := range b.Replay(deadline(t), after, head, payload) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Omitted > 0 {
				omitted = append(omitted, adapter.Place{Room: e.Target.To[0], At: e.Position})
			}
			if (e.Omitted > 0) != (e.Data == nil) || e.Kind != 3 || e.Flags != 1 || !e.Stored || len(e.Target.Except) != 1 {
				t.Fatalf("with %d bytes: %+v", payload, e)
			}
			held += len(e.Data)
			for _, attachment := range e.Attachments {
				held += len(attachment)
			}
			got = append(got, e)
		}
		switch payload {
		case 0, 100 * size:
			if len(omitted) > 0 {
				t.Errorf("with %d bytes: %d events without payload, want 0", payload, len(omitted))
			}
		default:
			if held > payload || len(omitted) == 0 || payload > size && held < payload/2 {
				t.Errorf("with %d bytes: %d are held, %d events are without payload", payload, held, len(omitted))
			}
		}
		fetched, err := b.Fetch(deadline(t), head, omitted)
		if err != nil || len(fetched) != len(omitted) {
			t.Fatalf("Fetch: %d events of %d, %v", len(fetched), len(omitted), err)
		}
		for i, e := range got {
			if e.Omitted > 0 {
				f := fetched[0]
				fetched = fetched[1:]
				if f.Position != e.Position || f.Kind != 3 || f.Flags != 1 || f.From != e.From || f.Target.To[0] != e.Target.To[0] || f.Omitted != 0 {
					t.Fatalf("fetched %+v for %+v", f, e)
				}
				if sum := len(f.Data) + len(f.Attachments[0]); sum != int(e.Omitted) {
					t.Errorf("got %d bytes fetched, want %d as reported", sum, e.Omitted)
				}
				e.Data, e.Attachments = f.Data, f.Attachments
			}
			if n := slices.Index(want, string(e.Data)); n < 0 || len(e.Attachments[0]) != n {
				t.Errorf("with %d bytes: event %d is %q", payload, i, e.Data)
			}
		}
		if len(got) != events {
			t.Errorf("with %d bytes: %d events, want %d", payload, len(got), events)
		}
	}
}

func fetchReportsMissingEvents(t *testing.T, newCluster Maker) {
	const limit = 5
	n := one(t, newCluster, Options{BacklogLimit: limit})
	r, quiet := room("r"), room("quiet")
	place := func(r rooms.Room, c adapter.Cursor) adapter.Place { return adapter.Place{Room: r, At: c.At} }
	gone, there := n.publish(event("gone", r)), n.publish(event("there", quiet))
	for range 30 * limit {
		n.publish(event("x", r))
	}
	last := n.publish(event("last", r))
	fetched, err := n.Fetch(deadline(t), last, []adapter.Place{place(r, last), place(quiet, there)})
	if got := payloads(fetched); err != nil || !slices.Equal(got, []string{"last", "there"}) {
		t.Errorf("Fetch gave %q, %v", got, err)
	}
	if fetched, err := n.Fetch(deadline(t), last, nil); err != nil || len(fetched) > 0 {
		t.Errorf("Fetch of nothing gave %q, %v", payloads(fetched), err)
	}
	other := last
	other.Epoch = "elsewhere"
	for name, tt := range map[string]struct {
		history adapter.Cursor
		places  []adapter.Place
		want    error
	}{
		"trimmed":         {last, []adapter.Place{place(quiet, there), place(r, gone)}, adapter.ErrTrimmed},
		"never there":     {last, []adapter.Place{place(r, there)}, adapter.ErrTrimmed},
		"other history":   {other, []adapter.Place{place(quiet, there)}, adapter.ErrHistoryLost},
		"unknown room":    {last, []adapter.Place{place(room("unknown"), last)}, adapter.ErrTrimmed},
		"unknown history": {adapter.Cursor{}, []adapter.Place{place(quiet, there)}, adapter.ErrHistoryLost},
	} {
		if fetched, err := n.Fetch(deadline(t), tt.history, tt.places); !errors.Is(err, tt.want) {
			t.Errorf("%s: Fetch gave %q, %v, want %v", name, payloads(fetched), err, tt.want)
		}
	}
}
