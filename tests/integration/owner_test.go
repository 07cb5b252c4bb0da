package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestOneOwner: clients of a stopped node reconnect to another one, while their old
// connections stay open. When the old node resumes it does not change their
// sessions, sends them nothing more and reports no disconnect, whether it is
// notified of the move or finds the new fence.
func TestOneOwner(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stands  time.Duration // how long the node stands still
		pings   time.Duration
		untold  bool // it does not get the message
		changes bool // messages that it reads when it resumes would change the sessions
	}{
		"at once":                        {stands: 0, pings: 5 * time.Second, changes: true},
		"after the ping's time":          {stands: 5 * time.Second, pings: 2 * time.Second},
		"untold, and finds out by pings": {stands: 5 * time.Second, pings: 2 * time.Second, untold: true},
		"untold, and tries to write":     {stands: 0, pings: 5 * time.Second, untold: true, changes: true},
		"untold, and refreshes":          {stands: 0, pings: 5 * time.Second, untold: true},
	} {
		t.Run(name, func(t *testing.T) {
			o := &ownership{t: t, cluster: startCluster(t, 2,
				fmt.Sprint("REJOIN_PING_INTERVAL=", test.pings), fmt.Sprint("REJOIN_PING_TIMEOUT=", test.pings), "REJOIN_RECOVERY_WINDOW=4s")}
			o.check(test.stands, test.untold, test.changes)
		})
	}
}

type ownership struct {
	t *testing.T
	*cluster
	speaker *listener
	clients []*listener
	next    int // number to be published
}

func (o *ownership) check(stands time.Duration, untold, changes bool) {
	const clients = 10
	t, a, b := o.t, o.nodes[0], o.nodes[1]
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	connect := func(n *clusterNode) *listener {
		l := listen(n.node)
		t.Cleanup(l.Cut)
		if err := l.Connect(ctx); err != nil {
			t.Fatal(err)
		}
		return l
	}
	o.speaker = connect(b)
	for range clients {
		l := connect(a)
		if _, err := call(ctx, l.Client, "join", "kept"); err != nil {
			t.Fatal(err)
		}
		o.clients = append(o.clients, l)
	}
	o.publish(ctx, "kept")

	a.pause()
	paused := time.Now()
	if untold {
		if err := o.redis.Client().Do(ctx, "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
			t.Fatal(err)
		}
	}
	b.awaitReady()
	for _, l := range o.clients {
		for _, change := range [][2]string{{"join", "late"}, {"leave", "kept"}} {
			if !changes {
				break
			}
			if err := l.Emit(change[0], change[1]); err != nil {
				t.Fatal(err)
			}
		}
		l.Vanish()
		o.comeBack(ctx, l, b)
	}
	o.publish(ctx, "kept")
	before := o.sessions(ctx)
	wait(ctx, time.Until(paused.Add(stands)))
	a.resume()
	o.publish(ctx, "kept")
	eventually(t, "the old node keeps its sockets", func() error {
		if n := sum(a.metrics(), "rejoin_sockets"); n > 0 {
			return fmt.Errorf("%v of them", n)
		}
		return nil
	})
	a.awaitReady()
	if n := sum(a.metrics(), "rejoin_disconnects_total"); n > 0 {
		t.Errorf("the old node counts %v disconnects", n)
	}
	if after := o.sessions(ctx); !slices.Equal(after, before) {
		t.Errorf("the sessions were\n%q\nand are\n%q", before, after)
	}
	for _, l := range o.clients {
		l.Cut()
		o.comeBack(ctx, l, a)
	}
	for _, room := range []string{"late", "kept"} {
		o.publish(ctx, room)
	}
}

// comeBack recovers a client on a node. A node that catches up refuses it at first,
// as it does stock clients, which retry.
func (o *ownership) comeBack(ctx context.Context, l *listener, n *clusterNode) {
	o.t.Helper()
	l.Roam(wsURL(n.public))
	eventually(o.t, "it gets in", func() error { return l.Connect(ctx) })
	if !l.Recovered() {
		o.t.Fatal("it is not recovered")
	}
}

// publish sends ten events to a room and waits until each client has got all
// expected events, once.
func (o *ownership) publish(ctx context.Context, room string) {
	o.t.Helper()
	for range 10 {
		number := o.next
		if room == "late" { // it has no members
			number = -1
		} else {
			o.next++
		}
		if _, err := call(ctx, o.speaker.Client, "to", room, "n", number); err != nil {
			o.t.Fatal(err)
		}
	}
	if room == "late" {
		return
	}
	for i, l := range o.clients {
		if heard, err := l.all(ctx, o.next-1); err != nil || !slices.Equal(heard, numbers(0, o.next)) {
			o.t.Fatalf("client %d got %v: %v", i, heard, err)
		}
	}
}

// sessions returns those of the clients as Redis has them.
func (o *ownership) sessions(ctx context.Context) []string {
	o.t.Helper()
	keys, err := o.redis.Client().Keys(ctx, "rejoin:s:*").Result()
	if err != nil {
		o.t.Fatal(err)
	}
	slices.Sort(keys)
	var all []string
	for _, key := range keys {
		value, err := o.redis.Client().Get(ctx, key).Result()
		if err != nil {
			o.t.Fatal(err)
		}
		if slices.ContainsFunc(o.clients, func(l *listener) bool { return strings.Contains(value, l.ID()) }) {
			all = append(all, value)
		}
	}
	if len(all) != len(o.clients) {
		o.t.Fatalf("%d sessions of %d clients", len(all), len(o.clients))
	}
	return all
}
