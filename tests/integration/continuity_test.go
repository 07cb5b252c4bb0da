package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"
)

// chaos is the duration of TestContinuity: REJOIN_TEST_CHAOS, or a short one
// for make test.
func chaos(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("REJOIN_TEST_CHAOS")
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("REJOIN_TEST_CHAOS: %v", err)
	}
	return d
}

// TestContinuity: numbered events to 100 rooms at 2,000 a second, 300 clients that
// roam over three nodes, 30 of them stock clients, and faults that strike at random.
// All of them show tokens, many of which end while they are connected. Every client
// gets every number once and in order, whatever the faults. Recovery is refused only
// after a fault that destroys history.
func TestContinuity(t *testing.T) {
	f := &fleet{t: t, cluster: startCluster(t, 3, authenticated, withAPI)}
	events := int(chaos(t)/time.Second) * 100 // publishing fails much of the time
	f.endure(crowd{rooms: 100, clients: 270, stock: 30, publishers: 50, rate: 2000, keyed: 100 * time.Millisecond}, chaos(t), f.faultKinds(), func() bool {
		r := f.reconnects()
		return r.afterKill >= 50 && r.afterExpiry >= 50 && f.ledger.acknowledged() >= events
	})

	r, _, acked, _ := f.counts()
	if r.afterKill < 50 {
		t.Errorf("%d reconnects were on another node after a kill, want 50", r.afterKill)
	}
	if r.afterExpiry < 50 {
		t.Errorf("%d reconnects were after the end of a token, want 50", r.afterExpiry)
	}
	if acked < events {
		t.Errorf("only %d events were published", acked)
	}
}

// A crowd is the number of participants, their events per second, and the pause of keyed senders between
// two events.
type crowd struct {
	rooms, clients, stock, publishers, rate int
	keyed                                   time.Duration
}

// endure has a crowd publish and roam for some time, and on a slow machine until enough
// has happened, while faults strike at random, and checks the events of all clients.
// The nodes require tokens.
func (f *fleet) endure(c crowd, duration time.Duration, kinds []faultKind, enough func() bool) {
	f.t.Helper()
	f.tokens = true
	front := startBalancer(f.t, f.cluster)
	ctx, cancel := context.WithCancel(f.t.Context())
	defer f.clients.Wait()
	defer cancel()

	in := func(i int) []string {
		list := []string{fmt.Sprint("room ", i%c.rooms), fmt.Sprint("room ", (i*7+1)%c.rooms)}
		if i < 4*keyedSenders { // enough to notice, and little to deliver
			pair := keyedRooms(i % keyedSenders)
			list = append(list, pair[:]...)
		}
		return list
	}
	for i := range c.clients {
		f.roam(ctx, fmt.Sprint("client ", i), 5*time.Second, in(i)...)
	}
	d := startDriver(f.t)
	for i := range c.stock {
		name := fmt.Sprint("stock client ", i)
		f.roamStock(ctx, d.open(name, newest, front.URL, with(tokenFor(f.t, name, longLived, fleetCan))), 5*time.Second, in(i)...)
	}
	f.awaitJoined()

	over, stop := context.WithCancel(ctx)
	defer stop()
	for i := range c.publishers {
		p := &publisher{name: fmt.Sprint("p", i), pause: time.Duration(c.publishers) * time.Second / time.Duration(c.rate)}
		for room := i; room < c.rooms; room += c.publishers {
			p.rooms = append(p.rooms, fmt.Sprint("room ", room))
		}
		f.publish(over, p)
	}
	f.publishKeyed(over, d, front.URL, c.keyed)
	f.strikeAtRandom(duration, kinds, enough)
	stop()
	for _, n := range f.nodes {
		n.awaitReady()
	}
	f.settle()
	f.logKeyed()
}

// strikeAtRandom lets every one of the faults strike, in random order and again and
// again, for some time and until enough has happened. Afterwards everything is whole.
func (f *fleet) strikeAtRandom(duration time.Duration, kinds []faultKind, enough func() bool) {
	// REJOIN_TEST_FAULTS, a regular expression, chooses among the faults.
	chosen := regexp.MustCompile(os.Getenv("REJOIN_TEST_FAULTS"))
	kinds = slices.DeleteFunc(kinds, func(k faultKind) bool { return !chosen.MatchString(k.what) })
	end := time.Now().Add(duration)
	over := func() bool {
		return time.Now().After(end) && (enough() || time.Now().After(end.Add(3*patience)))
	}
	for round := 0; round == 0 || !over(); round++ {
		for _, i := range rand.Perm(len(kinds)) {
			wait(f.t.Context(), 200*time.Millisecond+rand.N(800*time.Millisecond))
			if round > 0 && over() {
				return
			}
			k := kinds[i]
			n := f.nodes[rand.N(len(f.nodes))]
			f.strike(k.what+" "+n.name, k.harm, func() { k.do(n) })
			f.t.Logf("%s", f.faults[len(f.faults)-1])
		}
	}
}

func (g fault) String() string {
	return fmt.Sprintf("%s to %s: %s", g.from.Format("05.000"), g.to.Format("05.000"), g.what)
}

type faultKind struct {
	what string
	harm harm
	do   func(n *clusterNode)
}

// some is a random duration around d.
func some(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// nodeFaults are those that do not depend on the form of Redis.
func (f *fleet) nodeFaults() []faultKind {
	ctx := context.Background()
	return []faultKind{
		{"kill node", harmless, func(n *clusterNode) { f.kill(n); wait(ctx, some(300*time.Millisecond)); n.restart() }},
		{"kill two nodes, not", harmless, func(n *clusterNode) { f.killOthers(n) }},
		{"drain node", harmless, func(n *clusterNode) { n.term(); n.restart() }},
		{"pause node", harmless, func(n *clusterNode) { n.pause(); wait(ctx, some(time.Second)); n.resume() }},
	}
}

func (f *fleet) faultKinds() []faultKind {
	ctx := context.Background()
	redis := f.redis.Client()
	must := func(err error) {
		if err != nil {
			f.t.Errorf("fault: %v", err)
		}
	}
	return append(f.nodeFaults(), []faultKind{
		{"cut from Redis: node", harmless, func(n *clusterNode) { n.redis.cut(); wait(ctx, some(time.Second)); n.redis.mend() }},
		{"delay Redis by 200 ms: node", harmless, func(n *clusterNode) { n.redis.delay(200); wait(ctx, some(time.Second)); n.redis.clear() }},
		{"black-hole Redis: node", harmless, func(n *clusterNode) { n.redis.blackHole(); wait(ctx, some(2*time.Second)); n.redis.clear() }},
		{"black-hole the subscriber: node", harmless, func(n *clusterNode) { n.feed.deafenSubscribers() }},
		{"SCRIPT FLUSH", harmless, func(*clusterNode) { must(redis.ScriptFlush(ctx).Err()) }},
		{"CLIENT KILL TYPE pubsub", harmless, func(*clusterNode) { must(redis.Do(ctx, "CLIENT", "KILL", "TYPE", "pubsub").Err()) }},
		{"CLIENT KILL TYPE normal", harmless, func(*clusterNode) { must(redis.Do(ctx, "CLIENT", "KILL", "TYPE", "normal").Err()) }},
		{"pause Redis", harmless, func(*clusterNode) { f.redis.Pause(); wait(ctx, some(time.Second)); f.redis.Resume() }},
		{"memory limit", mayDestroy, func(*clusterNode) {
			must(redis.ConfigSet(ctx, "maxmemory", "1").Err())
			wait(ctx, some(time.Second))
			must(redis.ConfigSet(ctx, "maxmemory", "0").Err())
		}},
		{"restart Redis, empty", destroys, func(*clusterNode) { f.redis.Restart() }},
		{"FLUSHALL", destroys, func(*clusterNode) { must(redis.FlushAll(ctx).Err()) }},
	}...)
}

// killOthers kills all nodes but one at the same time.
func (f *fleet) killOthers(than *clusterNode) {
	var all sync.WaitGroup
	for _, n := range f.nodes {
		if n != than {
			all.Go(func() { f.kill(n) })
		}
	}
	all.Wait()
	for _, n := range f.nodes {
		if n != than {
			n.restart()
		}
	}
}
