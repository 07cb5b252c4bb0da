package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSilentRoom: a client's connection is half-open when its room has its last
// event. One second before its session expires it reconnects and gets the event:
// the backlog outlives the session.
func TestSilentRoom(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, "REJOIN_RECOVERY_WINDOW=5s", "REJOIN_PING_INTERVAL=1s", "REJOIN_PING_TIMEOUT=2s", "REJOIN_BACKLOG_TTL=20s")
	d := startDriver(t)
	other := d.open("other", newest, c.nodes[1].url(), transports["websocket"])
	// A machine that is so busy that the second passes meanwhile has shown nothing.
	for try := 1; try <= 3; try++ {
		if c.silentRoom(d, other, fmt.Sprint("s", try)) {
			return
		}
	}
	t.Error("no client reconnected before its session had expired")
}

// silentRoom is one such client, and returns false if it came too late.
func (c *cluster) silentRoom(d *driver, other *npmSocket, name string) bool {
	t := c.t
	before := c.sessions()
	front := c.nodes[0].relay()
	s := d.open(name, newest, front.url(), transports["websocket"])
	s.call("join", "room")
	id := s.state().ID
	mine := slices.DeleteFunc(c.sessions(), func(key string) bool { return slices.Contains(before, key) })
	if len(mine) != 1 {
		t.Fatalf("the client has the sessions %q", mine)
	}
	front.shut()
	front.halfOpen()
	other.call("to", "room", "the last of "+name)

	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var end time.Time
	for ctx.Err() == nil { // nothing else happens meanwhile
		asked := time.Now()
		left, err := c.redis.Client().PTTL(ctx, mine[0]).Result()
		if err != nil || left < 0 {
			t.Logf("the session is gone: %v, %v", left, err)
			return false
		}
		if left < 1200*time.Millisecond {
			end = asked.Add(left)
			break
		}
		wait(ctx, 50*time.Millisecond)
	}
	front.up()
	now := s.await("connect")
	if !now.Recovered && time.Now().After(end) {
		return false
	}
	if !now.Recovered || now.ID != id {
		t.Errorf("%+v", now.state)
	}
	s.hears("the last of " + name)
	return true
}

// sessions returns the names of all sessions in Redis.
func (c *cluster) sessions() []string {
	c.t.Helper()
	keys, err := c.redis.Client().Keys(c.t.Context(), "rejoin:s:*").Result()
	if err != nil {
		c.t.Fatal(err)
	}
	return keys
}

// TestBigReplay: a stock client on a link of 1 Mbit/s has missed more than its
// send queue may hold. It gets all of it, on one connection.
func TestBigReplay(t *testing.T) {
	t.Parallel()
	const size = 20_000
	events := int(lasting(1000, 75)) // 20 MB, or 1.5
	// The kernels between have buffers, in which pings wait behind the replay.
	c := startCluster(t, 2, "REJOIN_PING_INTERVAL=25s", "REJOIN_PING_TIMEOUT=20s")
	narrow := startLink(t, c.nodes[0].public)
	d := startDriver(t)
	other := d.open("other", newest, c.nodes[1].url(), transports["websocket"])
	s := d.open("s", newest, httpURL(narrow.addr()), transports["websocket"])
	s.call("join", "room")
	other.call("to", "room", "first")
	s.hears("first")
	narrow.cut()
	s.await("disconnect")
	for i := range events {
		other.call("to", "room", "n", i, strings.Repeat("x", size))
	}
	narrow.narrow(125) // KB/s
	narrow.mend()
	if now := s.await("connect"); !now.Recovered {
		t.Errorf("%+v", now.state)
	}
	other.call("to", "room", "live", 0)
	for i := range events {
		if r := s.next("n"); string(r.Args[0]) != fmt.Sprint(i) {
			t.Fatalf("event %d is %v", i, r)
		}
	}
	s.hears("live", "0")
	for _, r := range s.reports.Drain() {
		if r.Report != "connect_error" { // while the link was cut
			t.Errorf("and then %v", r)
		}
	}
}

// TestBurst: 40,000 events from 32 publishers to 500 rooms, in make test 20,000, as
// fast as they are taken, with 1,000 members on two nodes. Every delivery is made.
func TestBurst(t *testing.T) {
	const publishers, rooms, members = 32, 500, 1000
	events := int(lasting(40_000, 20_000))
	// However slow the machine is, no client times out.
	f := &fleet{t: t, cluster: startCluster(t, 2, "REJOIN_PING_INTERVAL=25s", "REJOIN_PING_TIMEOUT=20s")}
	ctx, cancel := context.WithCancel(t.Context())
	defer f.clients.Wait()
	defer cancel()
	for i := range members {
		f.roam(ctx, fmt.Sprint("client ", i), 0, fmt.Sprint("room ", i%rooms))
		if i%100 == 99 { // all of them concurrently would be another test
			f.awaitJoined()
		}
	}
	began := time.Now()
	for i := range publishers {
		p := &publisher{name: fmt.Sprint("p", i), most: events / publishers, node: func() string { return f.nodes[i%2].public }}
		for room := range rooms {
			p.rooms = append(p.rooms, fmt.Sprint("room ", (room+i*17)%rooms))
		}
		f.publish(ctx, p)
	}
	f.settle()
	t.Logf("in %v", time.Since(began))
	r, _, acked, _ := f.counts()
	if acked != events || r.recovered+r.refused > 0 {
		t.Errorf("%d of %d events were published, %d clients reconnected", acked, events, r.recovered+r.refused)
	}
	heard := 0
	for _, w := range f.witnesses {
		heard += w.heard
	}
	if heard != 2*events {
		t.Errorf("%d deliveries, want %d", heard, 2*events)
	}
}

// TestRollingRestart drains and restarts one node after another under load, with
// stock clients that emit with retries. Nothing is lost and nothing repeated, and
// all that they emit gets through.
func TestRollingRestart(t *testing.T) {
	const clients, stock, emitters = 60, 10, 5
	f := &fleet{t: t, cluster: startCluster(t, 3, "REJOIN_DRAIN_DELAY=500ms", "REJOIN_DRAIN_BUDGET=1s")}
	front := startBalancer(t, f.cluster)
	ctx, cancel := context.WithCancel(t.Context())
	defer f.clients.Wait()
	defer cancel()
	in := func(i int) []string { return []string{fmt.Sprint("room ", i%10), "room for all"} }
	for i := range clients {
		f.roam(ctx, fmt.Sprint("client ", i), 0, in(i)...)
	}
	d := startDriver(t)
	for i := range stock {
		f.roamStock(ctx, d.open(fmt.Sprint("stock client ", i), newest, front.URL, nil), 0, in(i)...)
	}
	f.awaitJoined()

	over, stop := context.WithCancel(ctx)
	defer stop()
	for i := range 4 {
		p := &publisher{name: fmt.Sprint("p", i), pause: 10 * time.Millisecond}
		for room := range 10 {
			p.rooms = append(p.rooms, fmt.Sprint("room ", room))
		}
		f.publish(over, p)
	}
	for i := range emitters {
		name := fmt.Sprint("emitter ", i)
		s := d.open(name, newest, front.URL, map[string]any{"retries": 10, "ackTimeout": 5000})
		f.sending.Go(func() {
			for over.Err() == nil {
				number := f.ledger.start("room for all", name)
				if _, err := d.do("emit", map[string]any{"socket": s.name, "args": []any{"to", "room for all", "n", name, "room for all", number}}); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				f.ledger.ack("room for all", name) // it will get through
				wait(over, 20*time.Millisecond)
			}
		})
	}
	for _, n := range f.nodes {
		wait(ctx, time.Second)
		f.strike("restart "+n.name, harmless, func() {
			n.term()
			n.restart()
		})
	}
	wait(ctx, time.Second)
	stop()
	f.settle()
	if r, _, _, _ := f.counts(); r.refused > 0 || r.recovered < clients+stock {
		t.Errorf("%d recovered, %d refused", r.recovered, r.refused)
	}
	// What a node took when it left, it has acknowledged.
	for _, w := range f.witnesses {
		for event, heard := range w.doubtful() {
			if heard {
				t.Errorf("%s got %s, which was not acknowledged", w.name, event)
			}
		}
	}
}
