package redis

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/batch"
	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A shared key that another program has overwritten makes the node unready until it is
// deleted, and the error names the key. A node does not start with such a key.
func TestSharedKeysOfTheWrongType(t *testing.T) {
	for _, kind := range []string{"epoch", "clock", "lists", "sizes", "leases", "about", "partitions"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			a := start(t, server.URL(), "a", Options{ProbeInterval: 50 * time.Millisecond})
			p := a.partitions[0]
			key := map[string]string{
				"epoch": p.names.epoch(), "clock": p.names.clock(p.history()), "lists": p.names.in(p.history()) + listsName, "sizes": p.names.sizes(p.history()),
				"leases": p.names.leases(), "about": p.names.about(), "partitions": p.names.partitions(),
			}[kind]
			overwrite(t, server, key)
			if kind != "partitions" { // which is read by nodes that start
				eventually(t, "the node is not ready and names the key", func() bool {
					err := a.Ready()
					return err != nil && strings.Contains(err.Error(), key)
				})
			}
			o := options(t, server.URL(), "b", Options{Timeout: 200 * time.Millisecond})
			if kind != "lists" { // which no node reads at its start
				b, err := New(deadline(t), o)
				if err == nil {
					_ = b.Close()
				}
				if err == nil || !strings.Contains(err.Error(), key) {
					t.Errorf("New: %v, want an error that names %s", err, key)
				}
			}
			if err := server.Client().Del(t.Context(), key).Err(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the node is ready again", func() bool { return a.Ready() == nil })
		})
	}
}

// overwrite replaces a key by a set, a type that the project does not use.
func overwrite(t *testing.T, server *redistest.Server, key string) {
	t.Helper()
	c := server.Client()
	if err := c.Del(t.Context(), key).Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.SAdd(t.Context(), key, "x").Err(); err != nil {
		t.Fatal(err)
	}
}

// A room whose backlog can't be written or read fails alone: events that share its call
// are published, and rooms that share its reads are read.
func TestUnusableBacklogFailsAlone(t *testing.T) {
	for kind, spoil := range map[string]func(*testing.T, *redistest.Server, string){
		"wrong type": overwrite,
		"entry in the future": func(t *testing.T, server *redistest.Server, key string) {
			if err := server.Client().Do(t.Context(), "XADD", key, "99999999999999-0", "e", "x").Err(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			relay := newRelay(t, server.Addr)
			a, b := start(t, relay.url(), "a", Options{}), start(t, server.URL(), "b", Options{})
			r, s := room("r"), room("s")
			begin := subscribe(t, a, r, s)
			key := b.partitions[0].names.room(begin.Epoch, name(r))
			spoil(t, server, key)

			const n = 50
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() {
					if _, err := b.Publish(deadline(t), event(fmt.Sprint(i), s)); err != nil {
						t.Errorf("publish to another room: %v", err)
					}
				})
				all.Go(func() {
					_, err := b.Publish(deadline(t), event("bad", r))
					if !errors.Is(err, adapter.ErrNotPublished) || !strings.Contains(err.Error(), key) {
						t.Errorf("publish to the room: %v, want ErrNotPublished and the key", err)
					}
				})
			}
			all.Wait()
			if err := b.Ready(); err != nil {
				t.Errorf("Ready: %v", err)
			}
			if _, err := b.Publish(deadline(t), event("both", r, s)); !errors.Is(err, adapter.ErrUnavailable) {
				t.Errorf("publish to both rooms: %v, want ErrUnavailable", err)
			}
			if got := b.Stats().NotStored; got != n+1 {
				t.Errorf("%d events not stored, want %d", got, n+1)
			}
			volatile := adapter.Event{Target: rooms.Target{To: []rooms.Room{r}}, Data: []byte("volatile")}
			end := publish(t, b, volatile)
			var got []string
			for range n + 2 {
				e, err := a.Next(deadline(t))
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, string(e.Data))
			}
			if slices.Contains(got, "bad") || !slices.Equal(got[n:], []string{"both", "volatile"}) {
				t.Errorf("the feed has %q", got)
			}

			read := 0
			for _, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{s: begin}, end, 0) {
				if read++; err != nil {
					t.Fatalf("replay of the other room: %v", err)
				}
			}
			if read != n+1 {
				t.Errorf("%d events replayed, want %d", read, n+1)
			}
			if kind == "wrong type" {
				for e, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{r: begin, s: begin}, end, 0) {
					if !errors.Is(err, adapter.ErrUndecodable) {
						t.Errorf("replay of the room: %q, %v, want ErrUndecodable", e.Data, err)
					}
				}
				if _, _, err := a.History(deadline(t), r, adapter.Page{Events: 5}); !errors.Is(err, adapter.ErrUndecodable) {
					t.Errorf("history of the room: %v, want ErrUndecodable", err)
				}
				fill := relay.hole(subscriber)
				relay.cut(subscriber)
				publish(t, b, event("missed", s))
				fill()
				expectRoomsLost(t, a, r)
				expect(t, a, "missed")
			}
			if err := server.Client().Del(t.Context(), key).Err(); err != nil {
				t.Fatal(err)
			}
			publish(t, b, event("again", r))
			expect(t, a, "again")
		})
	}
}

// An event to several rooms whose lists can't be stored fails alone and completely.
func TestUnusableListsFailAlone(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	r, s := room("r"), room("s")
	begin := subscribe(t, a, r, s)
	key := a.partitions[0].names.in(begin.Epoch) + listsName
	overwrite(t, server, key)
	listed := event("listed", r, s)
	for i := range 20 {
		listed.Target.Except = append(listed.Target.Except, room(fmt.Sprint("except", i)))
	}
	if _, err := a.Publish(deadline(t), listed); err == nil || !strings.Contains(err.Error(), key) {
		t.Errorf("Publish: %v, want an error that names %s", err, key)
	}
	publish(t, a, event("other", s))
	expect(t, a, "other")
}

// A call whose answer was lost and that is found in the clock reports which of its events
// could not be stored.
func TestFoundCallReportsEventsThatAreNotStored(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{ProbeInterval: time.Minute})
	p := a.partitions[0]
	begin := subscribe(t, a, room("r"))
	overwrite(t, server, p.names.room(begin.Epoch, name(room("r"))))
	l, err := p.current(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	newCall := func() *call {
		c := &call{id: "the id", epoch: begin.Epoch, since: feed.EntryOf(begin.At)}
		outbox := batch.New[content, outcome](t.Context(), batch.Options{})
		for _, to := range []string{"s", "r", "t"} {
			e := event(to, room(to))
			payload, _ := encodeEvent(&e, 1)
			it, err := outbox.Put(t.Context(), content{rooms: []string{name(room(to))}, stored: true, payload: payload}, 0)
			if err != nil {
				t.Fatal(err)
			}
			c.events = append(c.events, it)
		}
		return c
	}
	first, again := newCall(), newCall()
	sent, found := slices.Clone(first.events), slices.Clone(again.events)
	if err := p.attempt(deadline(t), l, first); err != nil {
		t.Fatal(err)
	}
	if err := p.find(deadline(t), l, again); err != nil {
		t.Fatal(err)
	}
	for i := range sent {
		before, errBefore := sent[i].Wait()
		after, errAfter := found[i].Wait()
		if err := errors.Join(errBefore, errAfter); err != nil {
			t.Fatal(err)
		}
		if (before.err != nil) != (i == 1) || (after.err != nil) != (i == 1) || before.err == nil && before.cursor != after.cursor {
			t.Errorf("event %d: %+v, found as %+v", i, before, after)
		}
	}
}
