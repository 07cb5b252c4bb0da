package integration

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

// TestHonesty: recovered is false for exactly the clients that miss something.
// Every test with a fleet checks that no recovery is refused without a cause.
func TestHonesty(t *testing.T) {
	t.Parallel()
	t.Run("FLUSHALL", testFlushAll)
	t.Run("lost tail that no node has seen", testUnseenTail)
	t.Run("limits", testLimits)
}

// testFlushAll: all clients are cut, none reconnects with recovered=true, and
// events flow again.
func testFlushAll(t *testing.T) {
	const clients = 20
	f := &fleet{t: t, cluster: startCluster(t, 2)}
	ctx, cancel := context.WithCancel(t.Context())
	defer f.clients.Wait()
	defer cancel()
	for i := range clients {
		f.roam(ctx, fmt.Sprint("client ", i), 0, fmt.Sprint("room ", i%4))
	}
	f.awaitJoined()
	over, stop := context.WithCancel(ctx)
	defer stop()
	for i := range 4 {
		f.publish(over, &publisher{name: fmt.Sprint("p", i), pause: 10 * time.Millisecond, rooms: []string{fmt.Sprint("room ", i)}})
	}
	f.strike("FLUSHALL", destroys, func() {
		if err := f.redis.Client().FlushAll(ctx).Err(); err != nil {
			t.Error(err)
		}
		f.await("not everybody has been cut", func(w *witness) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.refused == 0 || !w.joined {
				return fmt.Errorf("refused %d times, in its rooms: %v", w.refused, w.joined)
			}
			return nil
		})
	})
	stop()
	f.settle()
	if r, _, _, _ := f.counts(); r.refused != clients || r.recovered > 0 {
		t.Errorf("%d refused and %d recovered, of %d", r.refused, r.recovered, clients)
	}
}

// testUnseenTail: an event reaches one client and is lost with Redis and all nodes.
// Only the client's offset proves it; when the client presents it, all clients get
// new sessions.
func testUnseenTail(t *testing.T) {
	s := redistest.StartSentinels(t)
	c := startOver(t, s.URL(), 2)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	client := func(node int, room string) *listener {
		l := listen(c.nodes[node].node)
		t.Cleanup(l.Cut)
		if err := l.Connect(ctx); err != nil {
			t.Fatal(err)
		}
		if room != "" {
			if _, err := call(ctx, l.Client, "join", room); err != nil {
				t.Fatal(err)
			}
		}
		return l
	}
	publish := func(l *listener, room string, number int) {
		t.Helper()
		if _, err := call(ctx, l.Client, "to", room, "n", number); err != nil {
			t.Fatal(err)
		}
	}
	hears := func(l *listener, want ...int) {
		t.Helper()
		if heard, err := l.all(ctx, want[len(want)-1]); err != nil || !slices.Equal(heard, want) {
			t.Fatalf("got %v, want %v: %v", heard, want, err)
		}
	}
	one, other, speaker := client(0, "one"), client(1, "other"), client(0, "")
	publish(speaker, "one", 0)
	publish(speaker, "other", 0)
	hears(one, 0)
	hears(other, 0)
	if n, err := s.Primary().Client().Wait(ctx, 1, patience).Result(); n != 1 || err != nil {
		t.Fatalf("%d replicas have it: %v", n, err)
	}
	s.LoseTail(func() {
		publish(speaker, "one", 1)
		hears(one, 0, 1)
		for _, n := range c.nodes {
			n.kill()
		}
	})
	for _, l := range []*listener{one, other, speaker} {
		l.Cut()
	}
	for _, n := range c.nodes {
		n.restart()
	}

	again := client(0, "")
	publish(again, "one", 2)
	publish(again, "other", 2)
	other.Roam(wsURL(c.nodes[1].public))
	if err := other.Connect(ctx); err != nil || !other.Recovered() {
		t.Fatalf("got recovered %v before any loss was reported: %v", other.Recovered(), err)
	}
	hears(other, 0, 2)
	reconnect(t, one) // all clients are cut, including the one that proved the loss
	if one.Recovered() {
		t.Fatal("recovered with an offset that is not in the history")
	}
	select {
	case <-other.Ended():
	case <-ctx.Done():
		t.Fatal("the others are not cut")
	}
	if reconnect(t, other); other.Recovered() {
		t.Fatal("recovered in a history that is over")
	}
	for _, l := range []*listener{one, other} {
		if _, err := call(ctx, l.Client, "join", "one"); err != nil {
			t.Fatal(err)
		}
	}
	again = client(1, "")
	publish(again, "one", 3)
	hears(one, 0, 1, 3)
	hears(other, 0, 2, 3)
}

// reconnect tries until it has connected.
func reconnect(t *testing.T, l *listener) {
	t.Helper()
	if !eventually(t, "it can't connect", func() error { return bounded(t.Context(), l.Connect) }) {
		t.FailNow()
	}
}

// testLimits: clients within the limits are recovered, clients beyond them are
// not.
func testLimits(t *testing.T) {
	const limit = 10
	c := startCluster(t, 1, "REJOIN_RECOVERY_WINDOW=8s", fmt.Sprint("REJOIN_BACKLOG_LIMIT=", limit), fmt.Sprint("REJOIN_REPLAY_LIMIT=", limit+5))
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	n := c.nodes[0].node
	speaker := listen(n)
	defer speaker.Cut()
	reconnect(t, speaker) // a slow machine may store its session later than the window allows
	for _, test := range []struct {
		reason      string // of the refusal; "" is none
		one, two    int    // events missed in each of two rooms
		beyondLimit bool   // of the window
	}{
		{one: limit, two: 5},
		{reason: "trimmed", one: limit + 1},
		{reason: "too_many_events", one: limit, two: 6},
		{reason: "unknown_session", beyondLimit: true},
	} {
		l := listen(n)
		t.Cleanup(l.Cut)
		reconnect(t, l)
		rooms := []string{"one of " + test.reason, "two of " + test.reason}
		if _, err := call(ctx, l.Client, "join", rooms); err != nil {
			t.Fatal(err)
		}
		l.Cut()
		for i := range test.one + test.two {
			room := rooms[0]
			if i >= test.one {
				room = rooms[1]
			}
			if _, err := call(ctx, speaker.Client, "to", room, "n", i); err != nil {
				t.Fatal(err)
			}
		}
		if test.beyondLimit {
			eventually(t, "the session does not end", func() error {
				keys, err := c.redis.Client().Keys(ctx, "rejoin:s:*").Result()
				if err == nil && len(keys) > 1 { // the speaker's
					err = fmt.Errorf("there are %v", keys)
				}
				return err
			})
		}
		if err := l.Connect(ctx); err != nil || l.Recovered() != (test.reason == "") {
			t.Errorf("%+v: recovered %v, error %v", test, l.Recovered(), err)
		}
		if test.reason == "" {
			if heard, err := l.all(ctx, limit+4); err != nil || !slices.Equal(heard, numbers(0, limit+5)) {
				t.Errorf("got %v: %v", heard, err)
			}
		} else if sum(n.metrics(), "rejoin_recoveries_total", `reason="`+test.reason+`"`) != 1 {
			t.Errorf("%+v: the node counts %v", test, n.metrics())
		}
		l.Cut()
	}
}
