package redis

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Events that wait behind a slow call are sent in full calls: with as many events as a call
// has positions, and about the maximum number of bytes.
func TestFullCalls(t *testing.T) {
	for name, of := range map[string]struct{ events, bytes int }{
		"Events": {2*feed.PerCall + 1, 10},
		"Bytes":  {9, callBytes * 2 / 5},
		"Large":  {2, callBytes * 3 / 2},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			relay := newRelay(t, server.Addr)
			a := start(t, relay.url(), "a", Options{BacklogLimit: 10 * feed.PerCall, Timeout: time.Minute})
			r := room("r")
			joined := subscribe(t, a, r)
			fill := relay.hole(publisher)
			want := make(map[adapter.Position]string)
			var mu sync.Mutex
			var all sync.WaitGroup
			waiting := func() int {
				n, _ := a.partitions[0].outbox.Pending()
				return n
			}
			underWay, once := make(chan struct{}), sync.Once{}
			relay.watch(func(_ *wire, said []byte) {
				if bytes.Contains(said, []byte("0..........")) {
					once.Do(func() { close(underWay) })
				}
			})
			for i := range of.events {
				if i == 1 { // the first is in a call by itself
					<-underWay
				}
				all.Go(func() {
					data := fmt.Sprint(i) + strings.Repeat(".", of.bytes)
					receipt, err := a.Publish(deadline(t), event(data, r))
					mu.Lock()
					defer mu.Unlock()
					if want[receipt.Cursor.At] = data; err != nil && len(want) == 1 {
						t.Error(err) // once is enough
					}
				})
			}
			eventually(t, "all wait", func() bool { return waiting() >= of.events-1 })
			fill()
			all.Wait()
			if len(want) != of.events {
				t.Fatalf("%d events have %d positions, want %d", of.events, len(want), of.events)
			}
			expectAll(t, a, want)
			n := 0
			head := publish(t, a, adapter.Event{Target: rooms.Target{To: []rooms.Room{r}}})
			for e, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{r: joined}, head, 0) {
				if n++; err != nil || want[e.Position] != string(e.Data) {
					t.Fatalf("replay: %.10q at %v, %v", e.Data, e.Position, err)
				}
			}
			if n != of.events {
				t.Errorf("got %d events in the replay, want %d", n, of.events)
			}
		})
	}
}

// A clock that no longer contains an old position proves nothing.
func TestTrimmedClock(t *testing.T) {
	server := redistest.Start(t, "stream-node-max-entries 1") // so trimming is exact
	relay := newRelay(t, server.Addr)
	o := Options{ClockTTL: time.Millisecond, ProbeInterval: 50 * time.Millisecond}
	a, b := start(t, relay.url(), "a", o), start(t, server.URL(), "b", o)
	r := room("r")
	subscribe(t, a, r)
	first := publish(t, b, event("first", r))
	expect(t, a, "first")
	fill := relay.hole(subscriber)
	relay.cut(subscriber, publisher)
	for i := range 100 {
		publish(t, b, event(fmt.Sprint(i), r))
	}
	eventually(t, "the clock has forgotten", func() bool {
		entries, err := server.Client().XRangeN(t.Context(), b.partitions[0].names.clock(first.Epoch), "-", "+", 1).Result()
		return err == nil && len(entries) == 1 && entries[0].ID > feed.EntryOf(first.At).ID()
	})
	fill()
	for i := range 100 {
		expect(t, a, fmt.Sprint(i))
	}
	if _, err := b.Head(deadline(t), first); err != nil {
		t.Errorf("Head of a cursor that is older than the clock: %v", err)
	}
}

// The rooms of an event are sent with it, and count in the outbox.
func TestRoomNamesCountInTheOutbox(t *testing.T) {
	it := &content{rooms: []string{strings.Repeat("x", 200), strings.Repeat("y", 200)}, payload: []byte("payload")}
	if n := it.size(); n != 407 {
		t.Errorf("%d bytes, want 407", n)
	}
}

// Special characters in names have no meaning.
func TestNamesWithSpecialCharacters(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	strange := []rooms.Room{
		rooms.InNamed("", ""), rooms.InNamed("/", ""), rooms.InNamed("/", "clock"), rooms.InNamed("/a,b", "c"), rooms.InNamed("/a", "b,c"),
		rooms.InNamed("/", "{0}"), rooms.InNamed("/", "\r\n\x00 $-1"), rooms.InNamed("/", "probe:a"), rooms.InNamed("/%2C", "x"), rooms.InNamed("/,", "x"),
		rooms.InNamed("/", strings.Repeat("long", 10_000)), rooms.InOwn("/", ""), rooms.InEveryone(""),
	}
	for i, r := range strange {
		subscribe(t, a, r)
		publish(t, a, event(fmt.Sprint(i), strange[i:]...))
		publish(t, a, event("only", r))
		expect(t, a, fmt.Sprint(i), "only")
		if kept, _, err := a.History(deadline(t), r, adapter.Page{Events: 2}); err != nil || len(kept) != 2 || string(kept[0].Data) != fmt.Sprint(i) {
			t.Errorf("History of %q: %d events, %v", r.Name, len(kept), err)
		}
	}
}

// A page that is bounded in bytes costs Redis and the node only its own bytes, even if the
// backlog is large.
func TestHistoryReadsAPageOnly(t *testing.T) {
	const size, events = 100_000, 40
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	r := room("r")
	for range events {
		publish(t, a, event(strings.Repeat("x", size), r))
	}
	sent := func() (n int) {
		info, err := server.Client().Info(t.Context(), "stats").Result()
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(info, "total_net_output_bytes:")
		fmt.Sscan(rest, &n)
		return n
	}
	before := sent()
	kept, more, err := a.History(deadline(t), r, adapter.Page{Events: 200, Bytes: 3*size + size/2})
	if err != nil || len(kept) != 3 || !more {
		t.Fatalf("%d events, more %v, %v", len(kept), more, err)
	}
	if n := sent() - before; n > 4*size {
		t.Errorf("Redis sent %d bytes for a page of %d, want at most %d", n, 3*size, 4*size)
	}
}

// A node is told when messages to it may have been lost: with each new connection of its subscriber.
func TestMessagesMayBeLostWithTheSubscriber(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{ProbeInterval: 100 * time.Millisecond})
	b := start(t, server.URL(), "b", Options{})
	eventually(t, "the node is ready", func() bool { return a.Ready() == nil })
	lost := make(chan struct{}, 100)
	a.OnMessagesLost(func() { lost <- struct{}{} })
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr})
	defer func() { _ = client.Close() }()
	if err := client.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lost:
	case <-deadline(t).Done():
		t.Fatal("the node is not told")
	}
	if err := b.Send(deadline(t), "a", adapter.Message{Data: []byte("later")}); err != nil {
		t.Fatal(err)
	}
	if m, err := a.Receive(deadline(t)); err != nil || string(m.Data) != "later" {
		t.Errorf("Receive: %q, %v", m.Data, err)
	}
}
