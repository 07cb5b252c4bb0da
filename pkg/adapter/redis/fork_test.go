package redis

import (
	"context"
	"errors"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Redis restarts with old data. Only the node can detect that, regardless of which of its
// connections reconnects first.
func TestLostTail(t *testing.T) {
	heard, elsewhere := room("r"), room("elsewhere") // of which it knows only as the publisher
	for name, of := range map[string]struct {
		late  role // whose connection reconnects later
		where rooms.Room
	}{
		"AllAtOnce":               {unknown, heard},
		"PublisherFirst":          {subscriber, heard},
		"PublisherFirst,Unheard":  {subscriber, elsewhere},
		"SubscriberFirst":         {publisher, heard},
		"SubscriberFirst,Unheard": {publisher, elsewhere},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			relay := newRelay(t, server.Addr)
			a := start(t, relay.url(), "a", Options{ProbeInterval: time.Hour})
			subscribe(t, a, heard)
			publish(t, a, event("kept", heard))
			if err := server.Client().Save(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			old := publish(t, a, event("lost", of.where))
			expect(t, a, "kept")
			if of.where == heard {
				expect(t, a, "lost")
			}

			fill := func() {}
			if of.late != unknown {
				fill = relay.hole(of.late)
			}
			server.Restart()
			if of.late == subscriber {
				eventually(t, "publishing works", func() bool {
					_, err := a.Publish(deadline(t), event("new", elsewhere))
					return err == nil
				})
			}
			fill()
			if before := expectLoss(t, a); len(before) > 0 {
				t.Errorf("%q came before the loss was said", before)
			}
			eventually(t, "a new history has begun", func() bool { return a.Stats().Epoch != old.Epoch && a.Ready() == nil })
			end := publish(t, a, event("end", heard))
			for e := (adapter.Event{}); e.Position != end.At; {
				var err error
				if e, err = a.Next(deadline(t)); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Events that a node has only received count as well as replies.
func TestLostTailOfOthers(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{ProbeInterval: time.Hour})
	b := start(t, server.URL(), "b", Options{ProbeInterval: time.Hour})
	subscribe(t, a, room("r"))
	publish(t, b, event("kept", room("r")))
	if err := server.Client().Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	publish(t, b, event("lost", room("r")))
	expect(t, a, "kept", "lost")
	_ = b.Close()
	server.Restart()
	expectLoss(t, a)
}

// All nodes have died with the primary. Only a client's offset proves the loss.
func TestLostTailThatOnlyClientsKnow(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	publish(t, a, event("kept", room("r")))
	if err := server.Client().Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	offset := publish(t, a, event("lost", room("r")))
	server.Kill()
	_ = a.Close()
	server.Restart()
	b := start(t, server.URL(), "b", Options{})
	subscribe(t, b, room("r"))
	publish(t, b, event("new", room("r")))
	if _, err := b.Head(deadline(t), offset); !errors.Is(err, adapter.ErrHistoryLost) {
		t.Errorf("Head of a lost cursor: %v, want ErrHistoryLost", err)
	}
	if err := b.Condemn(deadline(t), offset); err != nil {
		t.Fatal(err)
	}
	expectLoss(t, b)
	if now := publish(t, b, event("end", room("r"))); now.SameHistory(offset) {
		t.Error("the lost history continues")
	}
}

// When one node detects the loss all are notified: here by its announcement, because no
// connection breaks.
func TestNewHistoryIsAnnounced(t *testing.T) {
	server := redistest.Start(t)
	slow := Options{ProbeInterval: time.Hour} // its own probe would detect it only in an hour
	a, b := start(t, server.URL(), "a", slow), start(t, server.URL(), "b", slow)
	subscribe(t, b, room("r"))
	old := publish(t, a, event("old", room("r")))
	expect(t, b, "old")
	if err := server.Client().FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	now := publish(t, a, event("between", room("r")))
	if now.SameHistory(old) {
		t.Errorf("published at %v after %v: no new history", now, old)
	}
	for _, n := range []*Adapter{a, b} {
		expectLoss(t, n)
	}
	if _, err := b.Head(deadline(t), old); !errors.Is(err, adapter.ErrHistoryLost) {
		t.Errorf("Head of a cursor of the lost history: %v, want adapter.ErrHistoryLost", err)
	}
}

// A server restarts with a history that the nodes have left since, for example when an
// empty server was used for a moment before the failover had ended. Events acknowledged in
// between are lost, so the old history must not continue.
func TestAFormerHistoryDoesNotComeBack(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	subscribe(t, a, room("r"))
	first := publish(t, a, event("first", room("r")))
	redis, ctx := server.Client(), deadline(t)
	names := a.partitions[0].names
	clock, err := redis.Dump(ctx, names.clock(first.Epoch)).Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := redis.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	expectLoss(t, a)
	second := publish(t, a, event("second", room("r")))

	// In one transaction, so that no node sees a part of it.
	_, err = redis.TxPipelined(ctx, func(tx goredis.Pipeliner) error {
		tx.Del(ctx, names.clock(second.Epoch))
		tx.Restore(ctx, names.clock(first.Epoch), 0, clock)
		tx.Set(ctx, names.epoch(), first.Epoch, 0)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	expectLoss(t, a)
	third := publish(t, a, event("third", room("r")))
	if third.Epoch == first.Epoch || third.Epoch == second.Epoch {
		t.Errorf("the node continues in %s, after %s and %s", third.Epoch, first.Epoch, second.Epoch)
	}
	if now, err := redis.Get(ctx, names.epoch()).Result(); err != nil || now != third.Epoch {
		t.Errorf("Redis is in %s, %v, want %s", now, err, third.Epoch)
	}
}
