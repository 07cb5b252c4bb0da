package adaptertest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Members of several rooms of an event get it once: live, and with any offset after a reconnect.
// Event.For decides, with the results of Next and Replay.
func aMemberTakesAnEventOnce(t *testing.T, newCluster Maker) {
	const events, members, all = 25, 6, 8
	rng := newRand(t)
	publisher, n := two(t, newCluster, Options{})
	var list []rooms.Room
	for i := range all {
		list = append(list, room(fmt.Sprint("r", i)))
	}
	start := n.subscribe(list...)
	joined := make([]map[rooms.Room]bool, members)
	for i := range joined {
		joined[i] = make(map[rooms.Room]bool)
		for _, r := range some(rng, list) {
			joined[i][r] = true
		}
	}
	in := func(m int) func(rooms.Room, adapter.Position) bool {
		return func(r rooms.Room, at adapter.Position) bool { return joined[m][r] && !start.Covers(at) }
	}

	want := make([][]string, members)
	var end adapter.Cursor
	for i := range events {
		e := event(fmt.Sprint(i), some(rng, list)...)
		if i%3 == 0 {
			e.Target.Except = list[rng.IntN(all):][:1]
		}
		end = publisher.publish(e)
		for m := range members {
			if e.Target.Match(func(r rooms.Room) bool { return joined[m][r] }) {
				want[m] = append(want[m], string(e.Data))
			}
		}
	}
	last, err := publisher.Publish(deadline(t), adapter.Event{Target: rooms.Target{To: list}, Data: []byte("end")})
	if err != nil {
		t.Fatalf("Publish: %v", err)
	}

	live := make([][]string, members)
	offsets := []adapter.Cursor{start}
	taken := make([][]int, members) // number of live events at each offset
	for m := range members {
		taken[m] = []int{0}
	}
	for ends := max(1, len(last.Copies)); ends > 0; { // one in each partition; partitions differ in pace
		e := n.next()
		if string(e.Data) == "end" {
			ends--
			continue
		}
		for m := range members {
			if e.For(in(m)) {
				live[m] = append(live[m], string(e.Data))
			}
			taken[m] = append(taken[m], len(live[m]))
		}
		offsets = append(offsets, e.Cursor)
	}
	end = end.Max(n.head())
	for m := range members {
		if !sameEvents(live[m], want[m]) {
			t.Errorf("a member of %v got %q live, want %q", joined[m], live[m], want[m])
		}
		for i, offset := range offsets {
			after := make(map[rooms.Room]adapter.Cursor)
			for r := range joined[m] {
				after[r] = offset
			}
			missed, err := n.replay(after, end)
			if err != nil {
				t.Fatalf("replay: %v", err)
			}
			got := slices.Clone(live[m][:taken[m][i]])
			for _, e := range missed {
				if e.For(in(m)) {
					got = append(got, string(e.Data))
				}
			}
			if !sameEvents(got, want[m]) {
				t.Fatalf("a member of %v that reconnects with %v got %q, want %q", joined[m], offset, got, want[m])
			}
		}
	}
}

// A receipt names each position at which a node that is subscribed to all rooms gets the event,
// with its rooms there. It names none if there is only one position.
func aReceiptNamesEveryCopy(t *testing.T, newCluster Maker) {
	publisher, n := two(t, newCluster, Options{})
	var list []rooms.Room
	for i := range 16 {
		list = append(list, room(fmt.Sprint("r", i)))
	}
	n.subscribe(list...)
	for _, to := range [][]rooms.Room{list, list[:1], list[:4]} {
		r, err := publisher.Publish(deadline(t), event("several", to...))
		if err != nil {
			t.Fatal(err)
		}
		copies := r.Copies
		if copies == nil {
			copies = []adapter.Copy{{At: r.Cursor.At, To: to}}
		} else if len(copies) == 1 {
			t.Errorf("one copy is listed: %v", copies)
		}
		named := 0
		for _, c := range copies {
			if named += len(c.To); !r.Cursor.Covers(c.At) {
				t.Errorf("the cursor %v does not cover the copy at %v", r.Cursor, c.At)
			}
		}
		if named != len(to) {
			t.Errorf("the copies name %d rooms, want %d", named, len(to))
		}
		for range copies {
			e := n.next()
			i := slices.IndexFunc(copies, func(c adapter.Copy) bool { return c.At == e.Position })
			if i < 0 || len(copies[i].To) != len(e.Target.To) {
				t.Errorf("at %v it came for %d rooms, and the copies are %v", e.Position, len(e.Target.To), copies)
			}
		}
		expectNothingElse(publisher, n)
	}
}

// sameEvents compares events in any order, because each partition has its own order.
func sameEvents(got, want []string) bool {
	got, want = slices.Clone(got), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	return slices.Equal(got, want)
}

func tooLargeEventsAreNotPublished(t *testing.T, newCluster Maker) {
	n := one(t, newCluster, Options{})
	start := n.subscribe(room("r"))
	many := make([]rooms.Room, adapter.MaxRooms+3)
	for i := range many {
		many[i] = room(fmt.Sprint(i))
	}
	many[0] = room("r")
	for _, e := range []adapter.Event{
		event("rooms", many...),
		{Target: rooms.Target{To: many[:2], Except: many[2:]}, Stored: true},
		{Target: rooms.Target{To: many[:3]}, Stored: true, Data: make([]byte, adapter.MaxCopies/3+1)},
		{Target: rooms.Target{To: many[:1]}, Stored: true, Attachments: make([][]byte, adapter.MaxAttachments+1)},
	} {
		if _, err := n.Publish(deadline(t), e); !errors.Is(err, adapter.ErrTooLarge) || errors.Is(err, adapter.ErrUnavailable) {
			t.Errorf("Publish: %v, want ErrTooLarge", err)
		}
	}
	// The maximum number takes a while if all are in one slot of a Cluster.
	end := n.publish(event("many", many[:adapter.MaxRooms/10]...))
	n.expect("many")
	expectNothingElse(n)
	n.expectReplay(map[rooms.Room]adapter.Cursor{room("r"): start}, end, "many")
}
