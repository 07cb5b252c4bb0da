package adaptertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Random events in three rooms, replayed by another node from and to random
// places: what comes must be what the rule says, event by event.
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

func replayMindsTheLimit(t *testing.T, newCluster Maker) {
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
		// With an end further back what is missing may be gone or not; what counts
		// is that an answer is right.
		end := min(i+limit, events)
		switch got, err := b.replay(after, cursors[end]); {
		case err == nil && !slices.Equal(payloads(got), data[i:end]):
			t.Errorf("after %d up to %d: replayed %q", i, end, payloads(got))
		case err != nil && !errors.Is(err, adapter.ErrTrimmed):
			t.Errorf("after %d up to %d: %v", i, end, err)
		}
	}
}

// A room in which little happens keeps all of it, whatever happens elsewhere.
func replayDoesNotMindOtherRooms(t *testing.T, newCluster Maker) {
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

func replaySaysErrorsFirst(t *testing.T, newCluster Maker) {
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

func replayCanBeStopped(t *testing.T, newCluster Maker) {
	n := one(t, newCluster, Options{})
	r := room("r")
	start := n.head()
	for i := range 5 {
		n.publish(event(fmt.Sprint(i), r))
	}
	head := n.head()
	seen := 0
	for _, err := range n.Replay(deadline(t), map[rooms.Room]adapter.Cursor{r: start}, head) {
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
