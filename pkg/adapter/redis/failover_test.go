package redis

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A planned failover without a loss has no effect on members; one that loses a tail is
// reported.
func TestFailover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t)
	o := Options{ProbeInterval: time.Hour} // they detect it nevertheless, and add nothing to the history
	nodes := []*Adapter{start(t, s.URL(), "a", o), start(t, s.URL(), "b", o)}
	r := room("r")
	for _, n := range nodes {
		subscribe(t, n, r)
	}
	for i := range 2 {
		if i > 0 {
			s.AwaitWatched()
			s.Handover()
		}
		for j, n := range nodes {
			var data string
			eventually(t, "publishing works", func() bool {
				data += fmt.Sprintf("%d %d", i, j) // another one each time, because the last one may have been published
				_, err := n.Publish(t.Context(), event(data, r))
				return err == nil
			})
			for _, n := range nodes {
				for got := ""; got != data; {
					e, err := n.Next(deadline(t))
					if err != nil {
						t.Fatalf("%s: Next: %v, though nothing was lost", n.Node(), err)
					}
					got = string(e.Data)
				}
			}
		}
	}

	s.AwaitWatched()
	s.LoseTail(func() {
		publish(t, nodes[0], event("lost", r))
	})
	for _, n := range nodes {
		expectLoss(t, n)
	}
}

// The primary is demoted by hand, so that its clients are not cut: it continues to feed the
// subscriber from its new primary, after a silent hole.
func TestDemotedPrimaryWhoseSubscribersStay(t *testing.T) {
	t.Parallel()
	old, next := redistest.Start(t), redistest.Start(t)
	replicate := func(s, of *redistest.Server) {
		t.Helper()
		host, port, _ := net.SplitHostPort(of.Addr)
		if err := s.Client().ReplicaOf(t.Context(), host, port).Err(); err != nil {
			t.Fatal(err)
		}
	}
	relay := newRelay(t, old.Addr) // the name of the current primary
	a := start(t, relay.url(), "a", Options{ProbeInterval: time.Second})
	r := room("r")
	subscribe(t, a, r)
	replicate(next, old)
	publish(t, a, event("before", r))
	expect(t, a, "before")
	if n, err := old.Client().Wait(t.Context(), 1, patience).Result(); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	eventually(t, "a probe has just arrived", func() bool { return a.Stats().ProbeAge < 50*time.Millisecond })

	// The other server takes over without a subscriber: this is the hole.
	if err := next.Client().ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	relay.move(next.Addr)
	b := start(t, next.URL(), "b", Options{})
	publish(t, b, event("in the hole", r))
	if err := old.Client().Set(t.Context(), "other", "x", 0).Err(); err != nil { // so it can't simply continue to read
		t.Fatal(err)
	}
	replicate(old, next)
	eventually(t, "the old one follows", func() bool {
		info, err := old.Client().Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	publish(t, b, event("behind the hole", r))
	for {
		e, err := a.Next(deadline(t))
		switch {
		case errors.As(err, new(*adapter.LostError)):
			t.Log("said", err)
			return // a loss is reported
		case err != nil:
			t.Fatal(err)
		case string(e.Data) == "in the hole":
			expect(t, a, "behind the hole")
			t.Log("repaired")
			return // it is repaired
		case string(e.Data) == "behind the hole":
			t.Log("it has come behind the hole")
			if before := expectLoss(t, a); len(before) > 0 {
				t.Errorf("got %q before the loss, want nothing", before)
			}
			return
		}
	}
}

// A former primary does not know later events.
func TestReadsAreThePrimarys(t *testing.T) {
	old, next := redistest.Start(t), redistest.Start(t)
	relay := newRelay(t, old.Addr)
	a := start(t, relay.url(), "a", Options{ProbeInterval: time.Hour})
	host, port, _ := net.SplitHostPort(old.Addr)
	if err := next.Client().ReplicaOf(t.Context(), host, port).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other one follows", func() bool {
		info, err := next.Client().Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	if err := next.Client().ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	relay.move(next.Addr)
	if err := old.Client().ReplicaOf(t.Context(), "127.0.0.1", "1").Err(); err != nil { // which does not answer
		t.Fatal(err)
	}
	b := start(t, next.URL(), "b", Options{})
	at := publish(t, b, event("new", room("r")))
	if head, err := a.Head(deadline(t)); err != nil || !head.Covers(at.At) {
		t.Errorf("Head: %v, %v, though %v has been published", head, err, at)
	}
}
