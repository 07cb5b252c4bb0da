package redis

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// TestCatchUpGivesUpTheLargestRooms: a catch-up that reads more than it may hold gives up the rooms with
// the most, and copies count their payload once.
func TestCatchUpGivesUpTheLargestRooms(t *testing.T) {
	at := uint64(0)
	events := func(n, size int) []*adapter.Event {
		list := make([]*adapter.Event, n)
		for i := range list {
			at++
			list[i] = &adapter.Event{Position: adapter.Position{Ms: at}, Data: make([]byte, size)}
		}
		return list
	}
	const most = 1 << 20
	r := reread{most: most}
	broken := r.add("quiet", events(1, 10))
	copied := events(5, 100_000)
	for i := range 50 {
		broken = append(broken, r.add(fmt.Sprint("copies ", i), copied)...)
	}
	if len(broken) > 0 {
		t.Fatalf("%q are given up for the copies of five events", broken)
	}
	for i := range 100 {
		broken = append(broken, r.add(fmt.Sprint("loud ", i), events(10, 60_000+i))...)
		broken = append(broken, r.add(fmt.Sprint("another quiet ", i), events(1, 10))...)
	}
	if slices.ContainsFunc(broken, func(name string) bool { return strings.Contains(name, "quiet") }) || len(broken) < 99 {
		t.Errorf("%q are given up", broken)
	}
	counted, data := 0, make(map[*byte]bool)
	for _, list := range r.events() {
		for _, e := range list {
			if counted += eventOverhead; !data[&e.Data[0]] {
				data[&e.Data[0]] = true
				counted += len(e.Data)
			}
		}
	}
	if counted != r.bytes || counted > most {
		t.Errorf("%d bytes are held, and counted as %d of %d", counted, r.bytes, most)
	}
}

// TestRoomsGivenUpDoNotCutOthers: after an interruption of a node's subscription, members of
// rooms with more events than it may read are cut, and members of other rooms get their
// events.
func TestRoomsGivenUpDoNotCutOthers(t *testing.T) {
	server := redistest.Start(t)
	relay := newRelay(t, server.Addr)
	a, b := start(t, relay.url(), "a", Options{ReplayBytes: 1 << 20}), start(t, server.URL(), "b", Options{})
	loud := make(map[string]bool)
	for i := range 10 {
		loud[fmt.Sprint("loud ", i)] = true
		subscribe(t, a, room(fmt.Sprint("loud ", i)))
	}
	subscribe(t, a, room("quiet"), room("quiet, too"))
	fill := relay.hole(subscriber) // also for the next connection
	relay.cut(subscriber)
	publish(t, b, event("missed", room("quiet")))
	for name := range loud {
		for range 4 {
			publish(t, b, event(strings.Repeat("x", 100_000), room(name)))
		}
	}
	last := publish(t, b, event("missed", room("quiet, too")))
	fill()
	var got []string
	for {
		e, err := a.Next(deadline(t))
		if lost := (*adapter.LostError)(nil); errors.As(err, &lost) {
			if len(lost.Rooms) == 0 {
				t.Fatal("all members are cut")
			}
			for _, r := range lost.Rooms {
				if !loud[r.Name] {
					t.Errorf("members of %q are cut", r.Name)
				}
				delete(loud, r.Name)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Data) == "missed" {
			got = append(got, e.Target.To[0].Name)
		}
		if e.Position == last.At {
			break
		}
	}
	if want := []string{"quiet", "quiet, too"}; !slices.Equal(got, want) || len(loud) == 0 || len(loud) == 10 {
		t.Errorf("%q are repaired, want %q, and of the loud rooms %d of 10", got, want, len(loud))
	}
}
