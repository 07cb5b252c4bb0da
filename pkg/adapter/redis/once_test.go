package redis

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// keyed makes an event whose once id and content are its data.
func keyed(data string, to ...rooms.Room) adapter.Event {
	e := event(data, to...)
	e.Once = &adapter.Once{}
	copy(e.Once.ID[:], data)
	copy(e.Once.Content[:], data)
	return e
}

// expectReceipt publishes an event and checks what its caller learns.
func expectReceipt(t *testing.T, a *Adapter, e adapter.Event, at adapter.Position, repeated bool) {
	t.Helper()
	r, err := a.Publish(deadline(t), e)
	if err != nil || r.Repeated != repeated || at.Ms > 0 && r.Cursor.At != at {
		t.Errorf("%s: Publish: %+v, %v, want repeated %v, at %v", a.Node(), r, err, repeated, at)
	}
}

// Redis has executed a call, and its answer is lost. The clock says that the call was executed. It
// does not say which of its events had been published before.
func TestLostReplyOfARepeatedEvent(t *testing.T) { eachWay(t, lostReplyOfARepeatedEvent) }

func lostReplyOfARepeatedEvent(t *testing.T, server *redistest.Server) {
	relay := newRelay(t, server.Addr)
	a := start(t, relay.url(), "a", Options{})
	b := start(t, server.URL(), "b", Options{})
	subscribe(t, b, room("r"))
	former := publish(t, b, keyed("former", room("r")))
	other := keyed("other", room("r"))
	publish(t, b, other)
	expect(t, b, "former", "other")
	other.Once.Content[0]++

	clock := b.partitions[0].names.clock(former.Epoch)
	calls := func() int64 { return server.Client().XLen(t.Context(), clock).Val() }
	var r adapter.Receipt
	lose := func(e adapter.Event) error {
		before, sent := calls(), make(chan error, 1)
		relay.answers(false)
		go func() {
			var err error
			r, err = a.Publish(deadline(t), e)
			sent <- err
		}()
		eventually(t, "the call is executed", func() bool { return calls() > before })
		relay.answers(true)
		relay.cut(publisher)
		return <-sent
	}
	if err := lose(keyed("former", room("r"))); err != nil || !r.Repeated || r.Cursor.At != former.At {
		t.Errorf("the repeated event: %+v, %v, want that at %v", r, err, former)
	}
	if err := lose(other); !errors.Is(err, adapter.ErrReused) {
		t.Errorf("an event with an id of another one: %+v, %v, want ErrReused", r, err)
	}
	if err := lose(keyed("new", room("r"))); err != nil || r.Repeated {
		t.Errorf("the new event: %+v, %v", r, err)
	}
	if e, err := b.Next(deadline(t)); err != nil || string(e.Data) != "new" || e.Position != r.Cursor.At {
		t.Errorf("the new event came at %v, %v, and its receipt is %+v", e.Position, err, r)
	}
	if n := a.Stats().Retries; n < 3 {
		t.Errorf("%d calls were searched for, want 3", n)
	}
	publish(t, a, event("end", room("r")))
	expect(t, b, "end")
}

// A node is killed before Redis has its call, or before it has the answer. Another node publishes
// the event with the same id, while the call of the first one may still arrive.
func TestOnceAcrossNodes(t *testing.T) {
	for name, kill := range map[string]func(*relay){
		"before the call":   func(r *relay) { r.hole(publisher) },
		"before the answer": func(r *relay) { r.answers(false) },
		"at any moment":     func(r *relay) { time.AfterFunc(time.Millisecond, func() { r.cut(publisher) }) },
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			b := start(t, server.URL(), "b", Options{})
			subscribe(t, b, room("r"))
			for i := range 5 {
				relay := newRelay(t, server.Addr)
				a := start(t, relay.url(), adapter.NodeID(fmt.Sprint("a", i)), Options{Timeout: 100 * time.Millisecond})
				e := keyed(fmt.Sprint("event ", i), room("r"))
				kill(relay)
				var sending sync.WaitGroup
				sending.Go(func() { _, _ = a.Publish(deadline(t), e) })
				for range 3 {
					publish(t, b, e)
				}
				sending.Wait()
				relay.cut(publisher)
				publish(t, b, e)
				expect(t, b, string(e.Data))
				_ = a.Close()
			}
			publish(t, b, event("end", room("r")))
			expect(t, b, "end")
		})
	}
}

// A node is killed in the middle of an event with copies in several partitions. Another node publishes
// the copies that are missing, and each names the position of those before it.
func TestOnceAcrossPartitions(t *testing.T) {
	server := redistest.Start(t)
	list := []rooms.Room{room("0"), room("1"), room("2"), room("3"), room("4"), room("5")}
	b := start(t, server.URL(), "b", Options{Partitions: 3})
	subscribe(t, b, list...)
	for dies := range 4 { // before the copy with this number, or the answer to the last one
		relay := newRelay(t, server.Addr)
		a := start(t, relay.url(), adapter.NodeID(fmt.Sprint("a", dies)), Options{Partitions: 3, Timeout: 100 * time.Millisecond})
		e := keyed(fmt.Sprint("event ", dies), list...)
		said := 0
		relay.watch(func(w *wire, what []byte) {
			if bytes.Contains(what, e.Data) {
				said++
			}
			if said > dies {
				_ = w.server.Close()
				_ = w.client.Close()
			}
		})
		if dies == 3 {
			relay.answers(false)
		}
		if r, err := a.Publish(deadline(t), e); err == nil {
			t.Fatalf("the node was not killed: %+v", r)
		}
		var r adapter.Receipt
		var err error
		for range 2 {
			if r, err = b.Publish(deadline(t), e); err != nil || len(r.Copies) != 3 {
				t.Fatalf("after %d copies: %+v, %v", dies, r, err)
			}
		}
		if !r.Repeated {
			t.Error("the last call has published a copy")
		}
		for range 3 {
			e, err := b.Next(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			i := int(e.Position.Partition)
			if e.Position != r.Copies[i].At || len(e.Earlier) != i {
				t.Errorf("%q at %v names %v, and the copies are %v", e.Data, e.Position, e.Earlier, r.Copies)
			}
			for k, c := range e.Earlier {
				if c.At != r.Copies[k].At {
					t.Errorf("%q at %v names a copy at %v, want %v", e.Data, e.Position, c.At, r.Copies[k].At)
				}
			}
		}
		relay.watch(nil)
		_ = a.Close()
	}
	late := keyed("late", list...)
	late.Once.Window = time.Millisecond
	first := late
	first.Target.To = slices.DeleteFunc(slices.Clone(list), func(r rooms.Room) bool { return adapter.Home(name(r), 3) > 0 })
	publish(t, b, first)
	time.Sleep(10 * time.Millisecond)
	if _, err := b.Publish(deadline(t), late); !errors.Is(err, adapter.ErrIncomplete) {
		t.Errorf("a late completion: %v, want ErrIncomplete", err)
	}
	expect(t, b, "late")
	publish(t, b, event("end", list[0]))
	expect(t, b, "end")
}

// The servers of a Cluster have clocks of their own, and one of them may have jumped. An event that was
// published in part a moment ago is completed, and one that was published in part long ago is not.
func TestOnceWithDifferentClocks(t *testing.T) {
	for ahead := range 2 {
		t.Run(fmt.Sprint("partition ", ahead, " is ahead"), func(t *testing.T) {
			server := redistest.Start(t)
			list := []rooms.Room{room("0"), room("1"), room("2"), room("3")}
			b := start(t, server.URL(), "b", Options{Partitions: 2})
			subscribe(t, b, list...)
			p := b.partitions[ahead]
			at, err := p.Seen(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			later := fmt.Sprint(time.Now().Add(time.Hour).UnixMilli(), "-0")
			if err := server.Client().Do(t.Context(), "XADD", p.names.clock(at.Epoch), later, "c", "jump").Err(); err != nil {
				t.Fatal(err)
			}
			half := func(e adapter.Event) {
				e.Target.To = slices.DeleteFunc(slices.Clone(list), func(r rooms.Room) bool { return adapter.Home(name(r), 2) > 0 })
				publish(t, b, e)
			}
			soon, late := keyed("soon", list...), keyed("late", list...)
			soon.Once.Window, late.Once.Window = time.Minute, 50*time.Millisecond
			half(soon)
			expectReceipt(t, b, soon, adapter.Position{}, false)
			expectReceipt(t, b, soon, adapter.Position{}, true)
			half(late)
			time.Sleep(2 * late.Once.Window)
			if _, err := b.Publish(deadline(t), late); !errors.Is(err, adapter.ErrIncomplete) || !errors.Is(err, adapter.ErrUnavailable) {
				t.Errorf("late: %v, want ErrIncomplete and ErrUnavailable", err)
			}
		})
	}
}

// A restart, and a failover without a loss, keep events and ids. A failover that loses the event
// loses the id as well, and everything that follows is in a new history.
func TestOnceAcrossServers(t *testing.T) {
	t.Run("restart", func(t *testing.T) {
		server := redistest.Start(t)
		a := start(t, server.URL(), "a", Options{})
		at := publish(t, a, keyed("kept", room("r")))
		if err := server.Client().Save(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		server.Restart()
		eventually(t, "ready", func() bool { return a.Ready() == nil })
		expectReceipt(t, a, keyed("kept", room("r")), at.At, true)
	})
	t.Run("failover", func(t *testing.T) {
		t.Parallel()
		s := redistest.StartSentinels(t)
		a := start(t, s.URL(), "a", Options{})
		subscribe(t, a, room("r"))
		at := publish(t, a, keyed("kept", room("r")))
		expect(t, a, "kept")
		s.AwaitWatched()
		s.Handover()
		eventually(t, "published", func() bool {
			r, err := a.Publish(t.Context(), keyed("kept", room("r")))
			return err == nil && r.Repeated && r.Cursor.At == at.At
		})
		s.AwaitWatched()
		var lost adapter.Cursor
		s.LoseTail(func() { lost = publish(t, a, keyed("lost", room("r"))) })
		expectLoss(t, a)
		eventually(t, "published", func() bool {
			r, err := a.Publish(t.Context(), keyed("lost", room("r")))
			return err == nil && !r.Cursor.SameHistory(lost)
		})
		publish(t, a, event("end", room("r")))
		expect(t, a, "lost", "end")
	})
}

// Two nodes of a Cluster publish the same events to rooms in all partitions, each until it succeeds, while
// its masters change. Every room has each of them once, and each copy names those before it.
func TestOnceInACluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	nodes := []*Adapter{start(t, c.URL(), "a", Options{Partitions: 3}), start(t, c.URL(), "b", Options{Partitions: 3})}
	var list []rooms.Room // one of each partition
	for i := 0; len(list) < 3; i++ {
		if r := room(fmt.Sprint(i)); int(adapter.Home(name(r), 3)) == len(list) {
			list = append(list, r)
		}
	}
	const events = 1000
	receipts := [2][events]adapter.Receipt{}
	var sending sync.WaitGroup
	for n, a := range nodes {
		sending.Go(func() {
			for i := range events {
				e := keyed(fmt.Sprint("event ", i), list...)
				for r, err := a.Publish(deadline(t), e); ; r, err = a.Publish(deadline(t), e) {
					if receipts[n][i] = r; err == nil {
						break
					}
					if t.Context().Err() != nil || errors.Is(err, adapter.ErrReused) || errors.Is(err, adapter.ErrIncomplete) {
						t.Errorf("event %d: %v", i, err)
						return
					}
				}
			}
		})
	}
	for _, master := range c.Masters() {
		c.Failover(c.Replica(master))
	}
	sending.Wait()
	for k, r := range list {
		kept, _, err := nodes[0].History(deadline(t), r, adapter.Page{Events: 2 * events})
		if err != nil || len(kept) != events {
			t.Errorf("room %d has %d events, %v, want %d", k, len(kept), err, events)
		}
		for i, e := range kept {
			if a, b := receipts[0][i].Copies[k].At, receipts[1][i].Copies[k].At; string(e.Data) != fmt.Sprint("event ", i) || e.Position != a || a != b {
				t.Fatalf("room %d: %q at %v is where the receipts have event %d at %v and %v", k, e.Data, e.Position, i, a, b)
			}
		}
	}
}

// The id of an event that could not be stored in its room is free. If it is in some of its rooms, a
// repeated call gets the same error, and no room gets it twice.
func TestOnceWithAnUnusableBacklog(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	begin := subscribe(t, a, room("good"), room("bad"))
	bad := a.partitions[0].names.room(begin.Epoch, name(room("bad")))
	overwrite(t, server, bad)
	one, both := keyed("one", room("bad")), keyed("both", room("good"), room("bad"))
	for range 2 {
		if _, err := a.Publish(deadline(t), one); !errors.Is(err, adapter.ErrNotPublished) {
			t.Errorf("an event to the room: %v, want ErrNotPublished", err)
		}
		if _, err := a.Publish(deadline(t), both); !errors.Is(err, adapter.ErrUnavailable) {
			t.Errorf("an event to both rooms: %v, want ErrUnavailable", err)
		}
	}
	expect(t, a, "both")
	if err := server.Client().Del(t.Context(), bad).Err(); err != nil {
		t.Fatal(err)
	}
	expectReceipt(t, a, one, adapter.Position{}, false)
	expectReceipt(t, a, one, adapter.Position{}, true)
	expect(t, a, "one")
}

// The key of an id bears the epoch and has the TTL of the contract. An event whose key another
// program has overwritten is refused, and no other one is.
func TestOnceKeys(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	p := a.partitions[0]
	e := keyed("event", room("r"))
	at := publish(t, a, e)
	key := p.names.once(at.Epoch, e.Once.ID)
	if ttl := server.Client().PTTL(t.Context(), key).Val(); ttl > adapter.OnceTTL || ttl < adapter.OnceTTL-time.Minute {
		t.Errorf("the TTL of %s is %v, want %v", key, ttl, adapter.OnceTTL)
	}
	overwrite(t, server, key)
	if _, err := a.Publish(deadline(t), e); !errors.Is(err, adapter.ErrNotPublished) {
		t.Errorf("with an unusable key: %v, want ErrNotPublished", err)
	}
	expectReceipt(t, a, keyed("another", room("r")), adapter.Position{}, false)

	// A new history begins, and the keys of the old one are still there.
	if err := server.Client().Del(t.Context(), p.names.clock(at.Epoch), p.names.epoch()).Err(); err != nil {
		t.Fatal(err)
	}
	another := keyed("another", room("r"))
	eventually(t, "an event of the new history", func() bool {
		r, err := a.Publish(t.Context(), another)
		return err == nil && !r.Repeated && r.Cursor.Epoch != at.Epoch
	})
	expectReceipt(t, a, another, adapter.Position{}, true)
}
