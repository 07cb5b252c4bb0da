package adaptertest

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

func eventsArriveAsTheyWerePublished(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{})
	r := rooms.InNamed("/chat", "röom 1")
	a.subscribe(r)
	b.subscribe(r)
	binary := make([]byte, 1024)
	for i := range binary {
		binary[i] = byte(i)
	}
	for _, sent := range []adapter.Event{
		{Target: rooms.Target{To: []rooms.Room{r}}, Data: []byte("{}")},
		{Target: rooms.Target{To: []rooms.Room{r}}, Stored: true},
		{
			Target: rooms.Target{
				To:     []rooms.Room{r, rooms.InOwn("/chat", "s1"), rooms.InEveryone("/chat")},
				Except: []rooms.Room{rooms.InOwn("/chat", ""), rooms.InNamed("/chat", "\x00\xff:\n")},
			},
			Stored: true, Kind: 255, Flags: 129, Ask: "question\x00\xfe",
			Data:        binary,
			Attachments: [][]byte{bytes.Repeat(binary, 100), {}, {0}, binary},
		},
		// Fields that the publisher does not set:
		{
			Target: rooms.Target{To: []rooms.Room{r}}, Stored: true, Data: []byte("<&>"),
			From: "x", Position: adapter.Position{Ms: 1}, Cursor: adapter.Cursor{Epoch: "x"}, Earlier: []adapter.Copy{{To: []rooms.Room{r}}},
		},
	} {
		want := sent
		want.From, want.Cursor, want.Earlier = a.Node(), a.publish(sent), nil
		want.Position = want.Cursor.At
		want.Target.To = []rooms.Room{r} // of its rooms the one that the nodes are subscribed to
		for _, n := range []*node{a, b} {
			expectSame(t, n.next(), want)
		}
		if sent.Stored {
			kept, _, err := b.History(deadline(t), r, adapter.Page{Events: 1})
			if err != nil || len(kept) != 1 {
				t.Fatalf("History: %d events, %v, want 1", len(kept), err)
			}
			expectSame(t, kept[0], want)
		}
	}
}

// expectSame compares events, for which empty and nil slices are the same.
func expectSame(t *testing.T, got, want adapter.Event) {
	t.Helper()
	if !bytes.Equal(got.Data, want.Data) || !slices.EqualFunc(got.Attachments, want.Attachments, bytes.Equal) {
		t.Errorf("got payload %.80q %.80q, want %.80q %.80q", got.Data, got.Attachments, want.Data, want.Attachments)
	}
	if !slices.Equal(got.Target.To, want.Target.To) || !slices.Equal(got.Target.Except, want.Target.Except) {
		t.Errorf("the target is %v, want %v", got.Target, want.Target)
	}
	for _, e := range []*adapter.Event{&got, &want} {
		e.Data, e.Attachments, e.Target = nil, nil, rooms.Target{}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the event is %+v, want %+v", got, want)
	}
}

func everyNodeSeesOneOrder(t *testing.T, newCluster Maker) {
	const publishers, each = 6, 60
	nodes := join(t, newCluster(t, Options{}), "a", "b", "c")
	r, s := room("r"), room("s")
	for _, n := range nodes {
		n.subscribe(r, s)
	}
	ctx := deadline(t)
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			n := nodes[p%len(nodes)]
			for i := range each {
				// To one, to the other, and to both.
				to := [][]rooms.Room{{r}, {s}, {r, s}}[i%3]
				if _, err := n.Publish(ctx, event(fmt.Sprintf("%d %d", p, i), to...)); err != nil {
					t.Errorf("%s: Publish: %v", n.Node(), err)
				}
			}
		})
	}
	wg.Wait()

	var order []adapter.Event
	for _, n := range nodes {
		var events []adapter.Event
		for range publishers * each {
			events = append(events, n.next())
		}
		switch {
		case order == nil:
			order = events
		case !slices.Equal(payloads(events), payloads(order)):
			t.Fatalf("%s sees another order than %s", n.Node(), nodes[0].Node())
		}
	}
	var newest adapter.Position
	next := make(map[int]int)
	for _, e := range order {
		if e.Position.Compare(newest) <= 0 {
			t.Fatalf("%q is at %v, which is not after %v", e.Data, e.Position, newest)
		}
		newest = e.Position
		if !e.Cursor.Covers(e.Position) {
			t.Fatalf("the cursor %v of %q does not cover it", e.Cursor, e.Data)
		}
		var p, i int
		if _, err := fmt.Sscan(string(e.Data), &p, &i); err != nil || next[p] != i {
			t.Fatalf("publisher %d: event %d comes where %d should", p, i, next[p])
		}
		next[p]++
	}
}

func anEventComesOncePerNode(t *testing.T, newCluster Maker) {
	nodes := join(t, newCluster(t, Options{}), "both", "first", "none")
	both, first, none := nodes[0], nodes[1], nodes[2]
	r, s := room("r"), room("s")
	both.subscribe(r, s, rooms.InEveryone("/"))
	first.subscribe(r)
	none.subscribe(room("elsewhere"), rooms.InOwn("/", "r"), rooms.InNamed("/other", "r"))

	none.publish(event("several", r, s, r, rooms.InEveryone("/")))
	none.publish(event("second", s))
	none.publish(event("first", r))

	both.expect("several", "second", "first")
	first.expect("several", "first")
	expectNothingElse(nodes...)

	// An event is once in each backlog, even if a room is named several times.
	kept, _, err := none.History(deadline(t), r, adapter.Page{Events: 10})
	if got := payloads(kept); err != nil || !slices.Equal(got, []string{"several", "first"}) {
		t.Errorf("History: %q, %v", got, err)
	}
}

func eventWithoutTargetIsNotPublished(t *testing.T, newCluster Maker) {
	n := one(t, newCluster, Options{})
	n.subscribe(room("r"))
	receipt, err := n.Publish(deadline(t), adapter.Event{
		Target: rooms.Target{Except: []rooms.Room{room("r")}}, Stored: true, Data: []byte("nobody"),
	})
	if !receipt.Cursor.IsZero() || receipt.Receivers != 0 || receipt.Copies != nil || err != nil {
		t.Errorf("Publish: %+v, %v, want nothing", receipt, err)
	}
	expectNothingElse(n)
}

func receiversAreCounted(t *testing.T, newCluster Maker) {
	nodes := join(t, newCluster(t, Options{}), "a", "b", "c")
	for want, n := range nodes {
		// In an idle cluster the hint is right.
		r, err := nodes[0].Publish(deadline(t), event("x", room("r")))
		if err != nil || r.Receivers != want {
			t.Errorf("Publish: %d receivers, %v, want %d", r.Receivers, err, want)
		}
		n.subscribe(room("r"))
	}
}

func newRoomsAreCounted(t *testing.T, newCluster Maker) {
	n := join(t, newCluster(t, Options{}), "a")[0]
	n.subscribe(room("heard"))
	made := []rooms.Room{room("heard"), room("1"), room("2"), room("3")}
	volatile := event("x", room("4"))
	volatile.Stored = false
	for _, step := range []struct {
		e    adapter.Event
		want int
	}{
		{event("x", made[0]), 0},
		{event("x", made[1]), 1},
		{event("x", made[1]), 0},
		{event("x", made...), 2},
		{event("x", made...), 0},
		{volatile, 0},
	} {
		if r, err := n.Publish(deadline(t), step.e); err != nil || r.NewRooms != step.want {
			t.Errorf("%v: %d new rooms, %v, want %d", step.e.Target.To, r.NewRooms, err, step.want)
		}
	}
}
