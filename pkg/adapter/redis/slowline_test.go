package redis

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A catch-up may take longer than a call to Redis may, as long as the calls do not: what is to be read
// does not depend on the line. A recovery, which has a deadline, reads between its calls.
func TestCatchUpOnANarrowLine(t *testing.T) {
	const size, rate = 200 << 10, 8 << 20 // 30 MB take four seconds; a call may take one
	server := redistest.Start(t)
	relay := newRelay(t, server.Addr)
	a := start(t, relay.url(), "a", Options{Timeout: time.Second})
	b := start(t, server.URL(), "b", Options{})
	var list []rooms.Room
	for i := range 10 {
		list = append(list, room(fmt.Sprint("r", i)))
	}
	subscribe(t, a, list...)
	begin, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, event("small", room("small")))
	end, err := b.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	fill := relay.hole(subscriber)
	relay.cut(subscriber)
	var want []string
	for i := range 15 {
		for _, r := range list {
			data := fmt.Sprint(i, r.Name, strings.Repeat("x", size))
			publish(t, b, event(data, r))
			want = append(want, data)
		}
	}
	relay.narrow(rate)
	fill()
	eventually(t, "the catch-up is slow", func() bool { return a.partitions[0].pace.page() < sharedBytes })
	n := 0
	for _, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{room("small"): begin}, end, 0) {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if s := a.Stats(); n != 1 || s.Repaired > 0 {
		t.Errorf("got %d events when %d had been repaired, want one before the end of the catch-up", n, s.Repaired)
	}
	expect(t, a, want...)
	if s := a.Stats(); s.Losses > 0 || s.Repaired != uint64(len(want)) {
		t.Errorf("%+v", s)
	}
}

// Nor does it depend on the line how many lists, or how many partitions, are read concurrently.
func TestReadsShrinkOnANarrowLine(t *testing.T) {
	const timeout = 500 * time.Millisecond
	large := func(data string, to ...rooms.Room) adapter.Event {
		return event(data+strings.Repeat("x", 40<<10), to...)
	}
	for _, tt := range []struct {
		name       string
		partitions int
		rate       int // what one read takes by itself fits in the timeout; what is read concurrently does not
		events     int
		rooms      int
		make       func(data string, to ...rooms.Room) adapter.Event
	}{
		{"lists", 1, 1 << 20, 8, 2, listed},
		{"lists in partitions", 4, 1 << 20, 4, 16, listed},
		{"partitions", 8, 4 << 20, 12, 32, large},
	} {
		o := Options{Timeout: timeout, Partitions: tt.partitions}
		t.Run(tt.name, func(t *testing.T) {
			server := redistest.Start(t)
			relay := newRelay(t, server.Addr)
			a, b := start(t, relay.url(), "a", o), start(t, server.URL(), "b", o)
			begin, list := make(map[rooms.Room]adapter.Cursor), make([]rooms.Room, tt.rooms)
			for i := range list {
				list[i] = room(fmt.Sprint("r", i))
			}
			subscribe(t, a, list...)
			head, err := a.Head(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range list {
				begin[r] = head
			}
			fill := relay.hole(subscriber)
			relay.cut(subscriber)
			for i := range tt.events {
				publish(t, b, tt.make(fmt.Sprint(i), list...))
			}
			end, err := b.Head(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			relay.narrow(tt.rate)
			fill()
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
			defer cancel()
			for n := range tt.events * tt.partitions {
				if _, err := a.Next(ctx); err != nil {
					t.Fatalf("after %d events: %v", n, err)
				}
			}
			s := a.Stats()
			t.Logf("caught up in %v: %+v", time.Since(began), s)
			if s.Losses > 0 || s.Generations > uint64(2*tt.partitions) { // each has been cut once
				t.Errorf("got %d losses, %d generations, want 0, at most %d", s.Losses, s.Generations, uint64(2*tt.partitions))
			}
			began = time.Now()
			for range 3 { // as its client would
				n := 0
				for _, err = range a.Replay(ctx, begin, end, 0) {
					n++
				}
				if err == nil {
					t.Logf("%d events replayed in %v", n, time.Since(began))
					return
				}
			}
			t.Errorf("the last of three replays has failed: %v", err)
		})
	}
}
