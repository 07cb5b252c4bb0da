package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A connection that ends between two copies of an event has not delivered it: the next
// generation reads it again, for all its rooms.
func TestCutBetweenTwoCopies(t *testing.T) {
	server := redistest.Start(t)
	a, b := start(t, server.URL(), "a", Options{}), start(t, server.URL(), "b", Options{})
	subscribe(t, a, room("r"), room("s"), room("t"))
	var cut atomic.Bool
	testCopy = func(g *generation) {
		if g.p.node == "a" && !cut.Swap(true) {
			g.stop(errors.New("cut by the test"))
		}
	}
	t.Cleanup(func() {
		_ = a.Close()
		_ = b.Close()
		testCopy = nil
	})
	publish(t, b, event("several", room("r"), room("s"), room("t")))
	publish(t, b, event("one", room("s")))
	e, err := a.Next(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"r", "s", "t"} {
		if !slices.Contains(e.Target.To, room(name)) {
			t.Errorf("%q comes for %v", e.Data, e.Target.To)
		}
	}
	if string(e.Data) != "several" {
		t.Errorf("first comes %q", e.Data)
	}
	expect(t, a, "one")
	if !cut.Load() || a.Stats().Generations == 0 {
		t.Error("the connection was not cut")
	}
}

// An event whose last copies are for rooms without a subscription is delivered as soon as
// others: it does not wait for the next event or probe.
func TestLastCopyIsForOthers(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{ProbeInterval: time.Minute})
	subscribe(t, a, room("r"))
	for i := range 20 {
		publish(t, a, event(fmt.Sprint(i), room("r"), room("s")))
		expect(t, a, fmt.Sprint(i))
	}
}

// version1 encodes an event as releases before 0.4 did.
func version1(e adapter.Event) []byte {
	b := []byte{1, e.Kind, e.Flags, 1}
	b = appendString(b, e.From)
	b = appendString(b, e.Ask)
	b = appendRooms(b, e.Target.To)
	b = appendLists(b, &e)
	b = appendString(b, e.Data)
	return binary.AppendUvarint(b, 0)
}

// foreign publishes data encoded by another version.
func foreign(t *testing.T, a *Adapter, payload []byte, to ...rooms.Room) adapter.Position {
	t.Helper()
	it := content{stored: true, payload: payload}
	for _, r := range to {
		it.rooms = append(it.rooms, name(r))
	}
	o := a.partitions[0].send(deadline(t), it)
	if o.err != nil {
		t.Fatal(o.err)
	}
	return o.cursor.At
}

// Events stored and published by version 1 are read: live, in a replay and in a history.
func TestVersion1IsRead(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	begin := subscribe(t, a, room("r"), room("s"))
	old := event("old", room("r"), room("s"))
	old.Target.Except = []rooms.Room{room("x")}
	foreign(t, a, version1(old), room("r"), room("s"))
	end := publish(t, a, event("new", room("s")))
	expect(t, a, "old", "new")
	var got []string
	for e, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{room("r"): begin, room("s"): begin}, end, 0) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(string(e.Data), len(e.Target.Except)))
	}
	if want := []string{"old1", "new0"}; !slices.Equal(got, want) {
		t.Errorf("replayed: %v, want %v", got, want)
	}
	if kept, _, err := a.History(deadline(t), room("r"), adapter.Page{Events: 5}); err != nil || len(kept) != 1 {
		t.Errorf("History: %v, %v", kept, err)
	}
}

// expectRoomsLost reads the feed up to a loss in one room.
func expectRoomsLost(t *testing.T, a *Adapter, r rooms.Room) {
	t.Helper()
	e, err := a.Next(deadline(t))
	if lost := (*adapter.LostError)(nil); !errors.As(err, &lost) || !slices.Equal(lost.Rooms, []rooms.Room{r}) {
		t.Fatalf("Next: %q, %v, want a loss in %v", e.Data, err, r)
	}
}

// An event that a node can't decode is a gap in its room: live, in a catch-up, in a replay
// and in a history. Other rooms are not affected.
func TestUndecodableEventsAreGaps(t *testing.T) {
	for _, tt := range []struct {
		name    string
		payload []byte
		newer   bool
	}{
		{"newer version", []byte{version + 1, 'w', 'h', 'o'}, true},
		{"malformed", []byte{version, 0, 0, 1, 200}, false},
		{"no version", []byte{0}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := redistest.Start(t)
			relay := newRelay(t, server.Addr)
			a, b := start(t, relay.url(), "a", Options{}), start(t, server.URL(), "b", Options{})
			r, s := room("r"), room("s")
			begin := subscribe(t, a, r, s)
			at := func() adapter.Cursor { return publish(t, b, event("end", s)) }

			publish(t, b, event("1", s, r))
			foreign(t, b, tt.payload, r)
			end := at()
			expect(t, a, "1")
			expectRoomsLost(t, a, r)
			expect(t, a, "end")
			if err := a.Ready(); errors.Is(err, adapter.ErrNewerVersion) != tt.newer {
				t.Errorf("Ready: %v", err)
			}
			if got := a.Stats(); (got.NewerVersion > 0) != tt.newer || got.Malformed == 0 {
				t.Errorf("newer %d, malformed %d", got.NewerVersion, got.Malformed)
			}
			for e, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{r: begin, s: begin}, end, 0) {
				if !errors.Is(err, adapter.ErrUndecodable) || errors.Is(err, adapter.ErrNewerVersion) != tt.newer {
					t.Errorf("Replay: %q, %v", e.Data, err)
				}
			}
			for e, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{r: end, s: begin}, end, 0) {
				if err != nil {
					t.Errorf("Replay of decodable events: %q, %v", e.Data, err)
				}
			}
			if kept, _, err := a.History(deadline(t), r, adapter.Page{Events: 5}); !errors.Is(err, adapter.ErrUndecodable) {
				t.Errorf("History: %d events, %v, want adapter.ErrUndecodable", len(kept), err)
			}

			fill := relay.hole(subscriber)
			relay.cut(subscriber)
			publish(t, b, event("2", r, s))
			foreign(t, b, tt.payload, r)
			at()
			fill()
			expectRoomsLost(t, a, r)
			expect(t, a, "2", "end")
			publish(t, b, event("3", r))
			expect(t, a, "3")
		})
	}
}

// A message of a newer version makes a node unready, too.
func TestNewerMessage(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	p := a.partitions[0]
	o := p.send(deadline(t), content{inbox: p.names.inbox("a"), payload: []byte{version + 1, 1, 2, 3}})
	if o.err != nil {
		t.Fatal(o.err)
	}
	eventually(t, "the node is not ready", func() bool { return errors.Is(a.Ready(), adapter.ErrNewerVersion) })
	p.newer.Store(time.Now().Add(-newerFor).UnixNano())
	if err := a.Ready(); err != nil {
		t.Errorf("when nothing newer has come for long: %v", err)
	}
}

// A node does not join while the cluster has a node of a release that would silently lose
// its events.
func TestOldPeerIsAwaited(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	names, client := a.partitions[0].names, server.Client()
	for _, err := range []error{
		client.ZAdd(t.Context(), names.leases(), goredis.Z{Score: 1e15, Member: "old"}).Err(),
		client.HSet(t.Context(), names.about(), "old", `0123456789abcdef{"generation":1}`).Err(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for wait := time.Second; ; wait *= 2 { // a slow machine may not detect the old node in time
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		b, err := New(ctx, options(t, server.URL(), "b", Options{}))
		ended := ctx.Err() != nil
		cancel()
		if b == nil && errors.Is(err, ErrOldPeer) {
			break
		}
		if b != nil || !ended || wait > patience {
			t.Fatalf("New beside an old node: %v", err)
		}
	}
	if err := client.ZAdd(t.Context(), names.leases(), goredis.Z{Score: 1, Member: "old"}).Err(); err != nil {
		t.Fatal(err)
	}
	start(t, server.URL(), "b", Options{})
}
