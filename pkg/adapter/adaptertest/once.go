package adaptertest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// keyed makes a stored event with a once id.
func keyed(id string, data string, to ...rooms.Room) adapter.Event {
	e := event(data, to...)
	e.Once = &adapter.Once{}
	copy(e.Once.ID[:], id)
	copy(e.Once.Content[:], data)
	return e
}

// An event with a once id is published by one of all calls, and all get its positions.
func aOnceIDIsPublishedOnce(t *testing.T, newCluster Maker) {
	const calls = 8
	nodes := join(t, newCluster(t, Options{}), "a", "b", "c")
	list := []rooms.Room{room("r"), room("s"), room("t"), room("u"), room("v")}
	for _, n := range nodes {
		n.subscribe(list...)
	}
	for round, to := range [][]rooms.Room{list[:1], list, list[1:3], list[2:]} {
		e := keyed(fmt.Sprint("id ", round), fmt.Sprint("round ", round), to...)
		e.Stored = round < 3
		receipts := make([]adapter.Receipt, calls)
		var all sync.WaitGroup
		for i := range receipts {
			all.Go(func() {
				var err error
				if receipts[i], err = nodes[i%2].Publish(deadline(t), e); err != nil {
					t.Errorf("Publish: %v", err)
				}
			})
		}
		all.Wait()
		again, err := nodes[2].Publish(deadline(t), e)
		if err != nil || !again.Repeated || again.Receivers > 0 || again.NewRooms > 0 {
			t.Errorf("again: %+v, %v, want a repeated one", again, err)
		}
		published := 0
		for _, r := range receipts {
			if !r.Repeated {
				published++
			}
			expectSamePlace(t, r, again)
		}
		// The copies of one event may be published by different calls.
		if most := max(1, len(again.Copies)); published < 1 || published > most {
			t.Errorf("round %d: %d calls have published, want 1 to %d", round, published, most)
		}
		for _, n := range nodes {
			expectCopies(n, e, again)
		}
		expectNothingElse(nodes...)
		if kept, _, err := nodes[0].History(deadline(t), to[0], adapter.Page{Events: 1, Bytes: 1}); err != nil || len(kept) > 1 || len(kept) == 1 && kept[0].Once != nil {
			t.Errorf("History: %+v, %v", kept, err)
		}
	}
}

func expectSamePlace(t *testing.T, got, want adapter.Receipt) {
	t.Helper()
	if got.Cursor.At != want.Cursor.At || len(got.Copies) != len(want.Copies) {
		t.Errorf("published at %v in %d copies, want %v in %d", got.Cursor.At, len(got.Copies), want.Cursor.At, len(want.Copies))
		return
	}
	for i, c := range got.Copies {
		if c.At != want.Copies[i].At || !got.Cursor.Covers(c.At) {
			t.Errorf("copy %d is at %v, want %v", i, c.At, want.Copies[i].At)
		}
	}
}

// expectCopies reads the copies of an event from a feed: each once, and naming those before it.
func expectCopies(n *node, want adapter.Event, r adapter.Receipt) {
	n.t.Helper()
	copies := r.Copies
	if copies == nil {
		copies = []adapter.Copy{{At: r.Cursor.At, To: want.Target.To}}
	}
	came := make(map[adapter.Position]bool)
	for range copies {
		e := n.next()
		if came[e.Position] || string(e.Data) != string(want.Data) || e.Once != nil {
			n.t.Errorf("%s: %q comes at %v, want %q once", n.Node(), e.Data, e.Position, want.Data)
		}
		came[e.Position] = true
		for i, earlier := range e.Earlier {
			if i >= len(copies) || earlier.At != copies[i].At {
				n.t.Errorf("%s: the copy at %v names %v, and the copies are %v", n.Node(), e.Position, e.Earlier, copies)
			}
		}
	}
	for _, c := range copies {
		if !came[c.At] {
			n.t.Errorf("%s: the copy at %v is missing", n.Node(), c.At)
		}
	}
}

// Another event with the id is refused.
func aOnceIDIsOfOneEvent(t *testing.T, newCluster Maker) {
	n := one(t, newCluster, Options{})
	n.subscribe(room("r"))
	first := n.publish(keyed("id", "first", room("r")))
	if r, err := n.Publish(deadline(t), keyed("id", "other", room("r"))); !errors.Is(err, adapter.ErrReused) || errors.Is(err, adapter.ErrUnavailable) || r.Repeated {
		t.Errorf("another event: %+v, %v, want ErrReused", r, err)
	}
	n.publish(keyed("ID", "first", room("r")))
	n.publish(event("first", room("r")))
	if r, err := n.Publish(deadline(t), keyed("id", "first", room("r"))); err != nil || !r.Repeated || r.Cursor.At != first.At {
		t.Errorf("the same event: %+v, %v, want that at %v", r, err, first)
	}
	n.expect("first", "first", "first")
	expectNothingElse(n)
}

// What is not published has no id.
func aRefusedEventKeepsNoOnceID(t *testing.T, newCluster Maker) {
	n := one(t, newCluster, Options{})
	n.subscribe(room("r"))
	large := keyed("id", "large", many(adapter.MaxRooms+3)...)
	if _, err := n.Publish(deadline(t), large); !errors.Is(err, adapter.ErrTooLarge) {
		t.Errorf("a large event: %v, want ErrTooLarge", err)
	}
	if r, err := n.Publish(deadline(t), keyed("id", "nobody")); err != nil || r.Repeated || !r.Cursor.IsZero() {
		t.Errorf("without a target: %+v, %v, want nothing", r, err)
	}
	if r, err := n.Publish(deadline(t), keyed("id", "next", room("r"))); err != nil || r.Repeated {
		t.Errorf("Publish: %+v, %v", r, err)
	}
	n.expect("next")
}

func many(n int) []rooms.Room {
	list := make([]rooms.Room, n)
	for i := range list {
		list[i] = room(fmt.Sprint(i))
	}
	return list
}

// A history that has lost an event has lost its id.
func aOnceIDEndsWithItsHistory(t *testing.T, newCluster Maker) {
	c := newCluster(t, Options{})
	n := join(t, c, "a")[0]
	n.subscribe(room("r"))
	e := keyed("id", "event", room("r"))
	old := n.publish(e)
	n.expect("event")
	c.Reset()
	expectLost(n, old)
	var r adapter.Receipt
	eventually(t, "an event of the new history", func() bool {
		var err error
		r, err = n.Publish(deadline(t), e)
		return err == nil
	})
	if r.Repeated || r.Cursor.SameHistory(old) {
		t.Errorf("Publish: %+v after the history %v, want a new event", r, old)
	}
	if again, err := n.Publish(deadline(t), e); err != nil || !again.Repeated || again.Cursor.At != r.Cursor.At {
		t.Errorf("again: %+v, %v, want that at %v", again, err, r.Cursor)
	}
	n.expect("event")
	expectNothingElse(n)
}
