package socketio

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// Everything that a broadcast publishes is published once under its key, and counted once.
func TestKeyed(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	w := n.client(t)
	for name, publish := range map[string]func(b Broadcast) error{
		"emit":       func(b Broadcast) error { return b.Emit(t.Context(), "n", 1) },
		"volatile":   func(b Broadcast) error { return b.To("nobody").Volatile().Emit(t.Context(), "n", 1) },
		"join":       func(b Broadcast) error { return b.SocketsJoin(t.Context(), "r") },
		"leave":      func(b Broadcast) error { return b.SocketsLeave(t.Context(), "r") },
		"disconnect": func(b Broadcast) error { return b.To("nobody").DisconnectSockets(t.Context(), false) },
	} {
		before := n.Stats().EventsOut
		first, again, other := Once{ID: name}, Once{ID: name}, Once{ID: name, Content: "another"}
		must(t, publish(n.Everyone().Keyed(&first)))
		must(t, publish(n.Everyone().Keyed(&again)))
		if first.Repeated || !again.Repeated {
			t.Errorf("%s: the first one is repeated: %v, the second one: %v", name, first.Repeated, again.Repeated)
		}
		if err := publish(n.Everyone().Keyed(&other)); !errors.Is(err, ErrReused) || other.Repeated {
			t.Errorf("%s, another one: %v, want ErrReused", name, err)
		}
		must(t, publish(n.Everyone().Keyed(&other).Keyed(nil)))
		if got := n.Stats().EventsOut - before; got != 2 {
			t.Errorf("%s: %d events are counted, want 2", name, got)
		}
	}
	local := Once{ID: "local"}
	for range 2 {
		must(t, n.Everyone().Local().Keyed(&local).Emit(t.Context(), "n", 2))
	}
	got := []string{w.event(), w.event(), w.event(), w.event()} // the local ones do not wait for the feed
	slices.Sort(got)
	if want := []string{numbered(1), numbered(1), numbered(2), numbered(2)}; !slices.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	w.quiet()
}

// With several partitions, an event is published in one of them and completed later. Each member gets it
// once, also if it has left or joined a room in between.
func TestCompletedEvent(t *testing.T) {
	c := newSlowCluster(t)
	n, other, _, _ := c.two(t)
	first, second := c.room(0, 0), c.room(1, 0)
	both, leaves, joins, waits := n.member(t, first, second), n.member(t, first, second), n.member(t, second), n.member(t, second)
	publish := func(rooms ...string) (repeated bool) {
		t.Helper()
		o := Once{ID: "id"}
		must(t, other.To(rooms...).Keyed(&o).Emit(t.Context(), "n", 1))
		return o.Repeated
	}
	publish(first)
	both.want(numbered(1))
	leaves.want(numbered(1))
	must(t, n.Socket(leaves.sid).Leave(t.Context(), first))
	must(t, n.Socket(joins.sid).Join(t.Context(), first))
	if publish(first, second) {
		t.Error("the second copy counts as repeated")
	}
	joins.want(numbered(1))
	waits.want(numbered(1))
	if !publish(first, second) {
		t.Error("a complete event is published again")
	}
	for _, w := range []*wire{both, leaves, joins, waits} {
		w.quiet()
		other.back(t, w).quiet()
	}
}

// The key of the adapter depends on the id alone.
func TestOnceKey(t *testing.T) {
	a, b := (&Once{ID: "a", Content: "x"}).key(0), (&Once{ID: "b", Content: "x"}).key(0)
	if again := (&Once{ID: "a", Content: "y", Repeated: true}).key(1); a.ID != again.ID || a.Content == again.Content {
		t.Errorf("%+v and %+v, want the same id and different contents", a, again)
	}
	if a.ID == b.ID || a.Content != b.Content {
		t.Errorf("%+v and %+v, want different ids and the same content", a, b)
	}
	if (*Once)(nil).key(0) != nil {
		t.Error("no key is a key")
	}
}

// A member remembers the rooms that it has left for longer than events are completed.
func TestCompletionEndsBeforeMemory(t *testing.T) {
	for _, o := range []Options{{}, {RecoveryWindow: -1}} {
		n := start(t, o)
		if o := &n.opts; o.completion() <= 0 || o.completion()+o.Engine.PingTimeout > o.memory() {
			t.Errorf("completed for %v, remembered for %v", o.completion(), o.memory())
		}
	}
}

func ExampleBroadcast_Keyed() {
	var srv *Server // of the program
	order := "order-1-shipped"
	shipped := func(ctx context.Context) error {
		once := Once{ID: order}
		for {
			err := srv.To("order 1").Keyed(&once).Emit(ctx, "shipped")
			if !errors.Is(err, adapter.ErrUnavailable) && !errors.Is(err, adapter.ErrNotPublished) || ctx.Err() != nil {
				return err // nil: it is published, by this program or by one that was killed
			}
		}
	}
	_ = shipped
}
