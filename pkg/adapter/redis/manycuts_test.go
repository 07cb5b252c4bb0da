package redis

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Each member of several rooms gets events to many rooms once and in order, live or
// replayed, while the subscriber is cut between and after copies, also if the events' lists
// are stored separately.
func TestManyRoomsUnderCuts(t *testing.T) {
	for _, partitions := range []int{1, 4, 8} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			const events, all, members = 60, 100, 10
			rng := rand.New(rand.NewPCG(1, uint64(partitions)))
			server := redistest.Start(t)
			relay := newRelay(t, server.Addr)
			o := Options{Partitions: partitions}
			a, b := start(t, relay.url(), "a", o), start(t, server.URL(), "b", o)
			list := make([]rooms.Room, all)
			for i := range list {
				list[i] = room(fmt.Sprintf("a rather long name of a room %d", i))
			}
			some := func(n int) []rooms.Room {
				picked := slices.Clone(list)
				rng.Shuffle(len(picked), func(i, j int) { picked[i], picked[j] = picked[j], picked[i] })
				return picked[:n]
			}
			heard := list[:70] // the other rooms are others'
			begin := subscribe(t, a, heard...)
			joined := make([]map[rooms.Room]bool, members)
			for i := range joined {
				joined[i] = make(map[rooms.Room]bool)
				for range 1 + rng.IntN(12) {
					joined[i][heard[rng.IntN(len(heard))]] = true
				}
			}
			in := func(m int) func(rooms.Room, adapter.Position) bool {
				return func(r rooms.Room, at adapter.Position) bool { return joined[m][r] && !begin.Covers(at) }
			}
			want := make([][]string, members)
			for i := range events {
				if i%10 == 5 {
					relay.cut(subscriber)
				}
				e := event(fmt.Sprint(i), some(1+rng.IntN(all))...)
				e.Target.Except = some(rng.IntN(8))
				for m := range members {
					if e.Target.Match(func(r rooms.Room) bool { return joined[m][r] }) {
						want[m] = append(want[m], string(e.Data))
					}
				}
				publish(t, b, e)
			}
			last, err := b.Publish(deadline(t), adapter.Event{Target: rooms.Target{To: heard}, Stored: true, Data: []byte("end")})
			if err != nil {
				t.Fatal(err)
			}
			live := make([][]string, members)
			offsets := []adapter.Cursor{begin}
			taken := [][]int{make([]int, members)}
			left := max(len(last.Copies), 1)
			for left > 0 {
				e, err := a.Next(deadline(t))
				if err != nil {
					t.Fatal(err)
				}
				if string(e.Data) == "end" {
					left--
					continue
				}
				x := adapter.NewTargetIndex(&e)
				now := make([]int, members)
				for m := range members {
					meant := e.For(in(m))
					if x != nil {
						own := func(yield func(rooms.Room) bool) {
							for r := range joined[m] {
								if !yield(r) {
									return
								}
							}
						}
						if x.For(in(m), own) != meant {
							t.Fatalf("the index says %v", !meant)
						}
					}
					if meant {
						live[m] = append(live[m], string(e.Data))
					}
					now[m] = len(live[m])
				}
				taken, offsets = append(taken, now), append(offsets, e.Cursor)
			}
			same := func(got, want []string) bool {
				if partitions > 1 {
					got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
				}
				return slices.Equal(got, want)
			}
			end, err := a.Head(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			for m := range members {
				if !same(live[m], want[m]) {
					t.Fatalf("live: %q\nwant %q", live[m], want[m])
				}
				for i := rng.IntN(len(offsets)); i < len(offsets); i += 1 + rng.IntN(len(offsets)/4) {
					after := make(map[rooms.Room]adapter.Cursor)
					for r := range joined[m] {
						after[r] = offsets[i]
					}
					got := slices.Clone(live[m][:taken[i][m]])
					for e, err := range a.Replay(deadline(t), after, end, 0) {
						if err != nil {
							t.Fatal(err)
						}
						if string(e.Data) != "end" && e.For(in(m)) {
							got = append(got, string(e.Data))
						}
					}
					if !same(got, want[m]) {
						t.Fatalf("from offset %d: %q\nwant %q", i, got, want[m])
					}
				}
			}
			if a.Stats().Generations == 0 {
				t.Error("no connection was cut")
			}
		})
	}
}

// If the lists of an event expire before its copies, which an active room keeps for longer,
// a replay is refused and a catch-up is a loss. A history does not need them.
func TestLostListsFailTheReplay(t *testing.T) {
	server := redistest.Start(t)
	relay := newRelay(t, server.Addr)
	a, b := start(t, relay.url(), "a", Options{}), start(t, server.URL(), "b", Options{})
	r, s := room("r"), room("s")
	begin := subscribe(t, a, r)
	other := subscribe(t, a, room("t"))
	fill := relay.hole(subscriber)
	relay.cut(subscriber)
	e := event("listed", r, s)
	for i := range 40 {
		e.Target.Except = append(e.Target.Except, room(fmt.Sprint("spared ", i)))
	}
	end := publish(t, b, e)
	p := a.partitions[0]
	if n, err := server.Client().Del(t.Context(), p.names.in(end.Epoch)+listsName).Result(); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	var got error
	for _, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{r: begin}, end, 0) {
		got = err
	}
	if !errors.Is(got, adapter.ErrTrimmed) {
		t.Errorf("Replay: %v, want adapter.ErrTrimmed", got)
	}
	for _, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{room("t"): other}, end, 0) {
		t.Errorf("Replay of another room: %v", err)
	}
	newer := publish(t, b, event("newer", r))
	kept, more, err := a.History(deadline(t), r, adapter.Page{Events: 5})
	if err != nil || more || len(kept) != 2 || kept[1].Position != newer.At { // lists are not part of it
		t.Errorf("History: %v, %v, %v, want both events", kept, more, err)
	}
	fill()
	expectRoomsLost(t, a, r)
	publish(t, b, event("next", r))
	expect(t, a, "next")
}

// The lists of events count in the feed's limit in bytes: events beyond it wait in Redis.
func TestListsCountInTheFeed(t *testing.T) {
	const events = feedBytes/(adapter.MaxRooms*roomSize) + 20
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	r, s := room("r"), room("s")
	subscribe(t, a, r, s)
	e := event("", r, s)
	for i := range adapter.MaxRooms - 2 {
		e.Target.Except = append(e.Target.Except, room(fmt.Sprint("spared ", i)))
	}
	for i := range events {
		e.Data = []byte(fmt.Sprint(i))
		publish(t, a, e)
	}
	eventually(t, "the feed is full", func() bool { return a.Stats().Gaps > 0 })
	for i := range events {
		expect(t, a, fmt.Sprint(i))
	}
}
