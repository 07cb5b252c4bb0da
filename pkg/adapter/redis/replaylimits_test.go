package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// The entries that a replay reads are limited, in all of its rooms and partitions together, and one
// with more is refused before all of them are read.
func TestReplayEntries(t *testing.T) {
	const most, roomCount, events = 400, 40, 50
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			server := redistest.Start(t)
			a := start(t, server.URL(), "a", Options{Partitions: partitions, ReplayEntries: most})
			begin, err := a.Head(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			all, few := make([]rooms.Room, roomCount), make(map[rooms.Room]adapter.Cursor)
			many := make(map[rooms.Room]adapter.Cursor)
			for i := range all {
				all[i] = room(fmt.Sprint("r", i))
				many[all[i]] = begin
				if len(few) < most/events {
					few[all[i]] = begin
				}
			}
			for i := range events {
				publish(t, a, event(fmt.Sprint(i), all...))
			}
			end, err := a.Head(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, err := range a.Replay(deadline(t), few, end, 1000) {
				if err != nil {
					t.Fatalf("as many as are allowed: %v", err)
				}
				n++
			}
			if n != events*partitions { // the copies in a partition have one position
				t.Errorf("got %d events, want %d", n, events*partitions)
			}
			before := netOutput(t, server)
			var got error
			for _, err := range a.Replay(deadline(t), many, end, 1000) {
				got = err
			}
			if !errors.Is(got, adapter.ErrTooMany) {
				t.Errorf("more than are allowed: %v", got)
			}
			if read := netOutput(t, server) - before; read > (partitions+2)*most*250 {
				t.Errorf("%d bytes are read of them, want at most %d", read, (partitions+2)*most*250)
			}
		})
	}
}

// The lists of events to many rooms, which are stored once for each partition, are limited as well.
func TestReplayLists(t *testing.T) {
	const partitions, events = 6, 60
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{Partitions: partitions})
	begin, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	all := make([]rooms.Room, 999)
	for i := range all {
		all[i] = room(fmt.Sprint(i, strings.Repeat("n", 180)))
	}
	for range events {
		publish(t, a, event("x", all...))
	}
	end, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	after := make(map[rooms.Room]adapter.Cursor)
	for _, r := range all[:2*partitions] {
		after[r] = begin
	}
	before := netOutput(t, server)
	var got error
	for _, err := range a.Replay(deadline(t), after, end, 1000) {
		got = err
	}
	if !errors.Is(got, adapter.ErrTooMany) {
		t.Errorf("more lists than are allowed: %v", got)
	}
	if read := netOutput(t, server) - before; read > 2*sharedBytes {
		t.Errorf("%d bytes are read of them, want at most %d", read, 2*sharedBytes)
	}
}

// Events with long exceptions count by their lists, and useless reads do not count.
func TestReplayListsUpToTheLimit(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	begin, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	to := []rooms.Room{room("r"), room("s")}
	const events = 34 // of about 205 kB each
	for range events {
		publish(t, a, listed("x", to...))
	}
	for _, more := range []int{0, 10} {
		for range more {
			publish(t, a, listed("x", to...))
		}
		end, err := a.Head(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		var got error
		for _, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{to[0]: begin, to[1]: begin}, end, 1000) {
			got = err
			n++
		}
		if more == 0 && (got != nil || n != events) {
			t.Errorf("%d events: %v", n, got)
		}
		if more > 0 && !errors.Is(got, adapter.ErrTooMany) {
			t.Errorf("%d more: %v", more, got)
		}
	}
}

// A replay holds, and reads, no more in several partitions than in one.
func TestReplayPayloadIsDivided(t *testing.T) {
	const partitions, roomCount, events, size, payload = 6, 60, 30, 4000, 256 << 10
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{Partitions: partitions})
	begin, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	after := make(map[rooms.Room]adapter.Cursor)
	for i := range roomCount {
		r := room(fmt.Sprint("r", i))
		after[r] = begin
		for range events {
			publish(t, a, event(strings.Repeat("x", size), r))
		}
	}
	end, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	var read atomic.Int64
	held, n := 0, 0
	for e, err := range a.Replay(adapter.OnRead(deadline(t), func(bytes int) { read.Add(int64(bytes)) }), after, end, payload) {
		if err != nil {
			t.Fatal(err)
		}
		held += len(e.Data)
		n++
	}
	if n != events*roomCount || held > payload {
		t.Errorf("%d events, of which %d bytes are held, want %d, at most %d", n, held, events*roomCount, payload)
	}
	if most := int64(readBytes + 4*payload + n*150); read.Load() > most { // XRANGE reads more than is held
		t.Errorf("%d bytes are read, want at most %d", read.Load(), most)
	}
}

// A client that misses little of a room is charged little, even if others in the same read
// miss much.
func TestSharesFollowWhatIsMissed(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	p := a.partitions[0]
	var last adapter.Position
	for i := range 500 {
		publish(t, a, event(strings.Repeat("x", 1000), room("r")))
		if i == 494 {
			h, err := a.Head(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			last = h.At
		}
	}
	for _, others := range []int{0, 1, 20} {
		var charged, theirs atomic.Int64
		little := request(t, p, manyEntries, "r")
		little.ctx = adapter.OnRead(t.Context(), func(n int) { charged.Add(int64(n)) })
		little.after[name(room("r"))] = last
		batch := []*backlogRequest{little}
		for range others {
			r := request(t, p, manyEntries, "r")
			r.ctx = adapter.OnRead(context.Background(), func(n int) { theirs.Add(int64(n)) })
			batch = append(batch, r)
		}
		_, errs := answered(t, p, batch...)
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		if n := charged.Load(); n < 50 || n > 7000 {
			t.Errorf("beside %d others 5 events of 1 kB cost %d bytes, want at least 50, at most 7000", others, n)
		}
		if others > 0 && theirs.Load() < 100_000 {
			t.Errorf("%d others pay %d bytes for 500 events", others, theirs.Load())
		}
	}
}

// The number of rooms that an event in Redis may list bounds the memory of its decoding.
func TestListedRoomsAreBounded(t *testing.T) {
	list := func(n int) []rooms.Room {
		all := make([]rooms.Room, n)
		for i := range all {
			all[i] = rooms.Room{Kind: rooms.Named}
		}
		return all
	}
	for _, tt := range []struct {
		except, earlier int
		good            bool
	}{
		{adapter.MaxRooms + 2, adapter.MaxRooms + 2, true},
		{adapter.MaxRooms + 3, adapter.MaxRooms + 2, false},
		{0, 600_000, false},
		{600_000, 0, false},
	} {
		e := adapter.Event{Target: rooms.Target{Except: list(tt.except)}, Earlier: []adapter.Copy{{To: list(tt.earlier)}}}
		_, lists := encodeEvent(&e, 1<<20)
		var got adapter.Event
		if err := decodeLists(string(lists), &got); (err == nil) != tt.good {
			t.Errorf("%d and %d rooms: %v", tt.except, tt.earlier, err)
		}
	}
}

// Lists are read once for a catch-up, and for a replay, however many rooms their events went to.
func TestListsAreReadOnce(t *testing.T) {
	const roomCount, events = 6 * readRooms, 10 // with lists of 200 kB
	server := redistest.Start(t)
	relay := newRelay(t, server.Addr)
	a, b := start(t, relay.url(), "a", Options{}), start(t, server.URL(), "b", Options{})
	list, after := make([]rooms.Room, roomCount), make(map[rooms.Room]adapter.Cursor)
	for i := range list {
		list[i] = room(fmt.Sprint("r", i))
	}
	begin := subscribe(t, a, list...)
	for _, r := range list {
		after[r] = begin
	}
	fill := relay.hole(subscriber) // also for the next connection
	relay.cut(subscriber)
	for i := range events {
		publish(t, b, listed(fmt.Sprint(i), list...))
	}
	end, err := b.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	const entries = roomCount * events * 150
	before := netOutput(t, server)
	fill()
	for i := range events {
		e, err := a.Next(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Data) != fmt.Sprint(i) || len(e.Target.To) != roomCount || len(e.Target.Except) != 1000 {
			t.Errorf("%q to %d rooms, except %d", e.Data, len(e.Target.To), len(e.Target.Except))
		}
	}
	if read := netOutput(t, server) - before; read > entries+events*300_000 {
		t.Errorf("%d bytes are read for a catch-up, want at most %d", read, entries+events*300_000)
	}
	before = netOutput(t, server)
	n := 0
	for e, err := range a.Replay(deadline(t), after, end, 1000) {
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Target.Except) != 1000 {
			t.Errorf("%q except %d, want 1000", e.Data, len(e.Target.Except))
		}
		n++
	}
	if n != events {
		t.Errorf("got %d events, want %d", n, events)
	}
	if read := netOutput(t, server) - before; read > entries+events*300_000 {
		t.Errorf("%d bytes are read for a replay, want at most %d", read, entries+events*300_000)
	}
}
