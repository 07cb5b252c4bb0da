package integration

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

// startOver starts nodes over a Redis of any form, which they reach without a link
// that could be broken.
func startOver(t *testing.T, url string, nodes int, variables ...string) *cluster {
	t.Helper()
	c := &cluster{t: t}
	c.start(nodes, func(*clusterNode) string { return url }, variables)
	return c
}

// formCrowd is the crowd of the tests of Redis' other forms.
func formCrowd() crowd {
	if os.Getenv("REJOIN_TEST_CHAOS") != "" {
		return crowd{rooms: 100, clients: 270, stock: 30, publishers: 50, rate: 2000, keyed: 100 * time.Millisecond}
	}
	return crowd{rooms: 30, clients: 60, stock: 6, publishers: 15, rate: 300, keyed: 30 * time.Millisecond}
}

// formTime is how long they last, beyond every fault's striking once.
func formTime(t *testing.T) time.Duration {
	if os.Getenv("REJOIN_TEST_CHAOS") != "" {
		return chaos(t)
	}
	return 0
}

// parallelIfShort lets a test run beside another one, unless it is to be long and
// with a large crowd.
func parallelIfShort(t *testing.T) {
	if os.Getenv("REJOIN_TEST_CHAOS") == "" {
		t.Parallel()
	}
}

// TestContinuityOverSentinels is TestContinuity with failovers: a planned one costs
// clients only a pause, one that loses the newest writes makes all clients
// reconnect as new sockets.
func TestContinuityOverSentinels(t *testing.T) {
	parallelIfShort(t)
	s := redistest.StartSentinels(t)
	f := &fleet{t: t, cluster: startOver(t, s.URL(), 3, authenticated, withAPI)}
	f.endure(formCrowd(), formTime(t), f.sentinelFaults(s), f.moved)
	f.checkForm()
}

func (f *fleet) sentinelFaults(s *redistest.Sentinels) []faultKind {
	ctx := context.Background()
	return append(f.killFaults(),
		faultKind{"planned failover, seen by", harmless, func(*clusterNode) {
			s.AwaitWatched()
			s.Handover()
			f.awaitServing()
		}},
		faultKind{"lost tail, seen by", destroys, func(*clusterNode) {
			s.AwaitWatched()
			old := s.Primary()
			s.LoseTail(func() { wait(ctx, 300*time.Millisecond) })
			old.Restart()
			f.awaitServing()
		}},
		faultKind{"primary killed, seen by", mayDestroy, func(*clusterNode) {
			s.AwaitWatched()
			old, replica := s.Primary(), s.Replica()
			old.Kill()
			s.AwaitPrimary(replica)
			old.Restart()
			f.awaitServing()
		}},
	)
}

// TestContinuityOverCluster is TestContinuity with six partitions on three masters.
// Slots move while events flow, and masters are replaced.
func TestContinuityOverCluster(t *testing.T) {
	parallelIfShort(t)
	c := redistest.StartCluster(t)
	f := &fleet{t: t, cluster: startOver(t, c.URL(), 3, authenticated, withAPI)}
	f.endure(formCrowd(), formTime(t), f.shardFaults(c), f.moved)
	f.checkForm()
}

func (f *fleet) shardFaults(c *redistest.Cluster) []faultKind {
	ctx := context.Background()
	slots := f.partitionSlots(c)
	turn := 0
	next := func() int {
		turn++
		return slots[turn%len(slots)]
	}
	return append(f.killFaults(),
		faultKind{"slots of two partitions moved, seen by", harmless, func(*clusterNode) {
			for range 2 {
				slot, masters := next(), c.Masters()
				to := masters[turn%len(masters)]
				if to == c.Owner(slot) {
					to = masters[(turn+1)%len(masters)]
				}
				c.MoveSlot(slot, to)
			}
			f.awaitServing()
		}},
		faultKind{"planned failover of a master, seen by", harmless, func(*clusterNode) {
			c.Failover(c.Replica(c.Owner(next())))
			f.awaitServing()
		}},
		faultKind{"master killed, seen by", mayDestroy, func(*clusterNode) {
			master := c.Owner(next())
			replica := c.Replica(master)
			master.Kill()
			c.AwaitMaster(replica)
			master.Restart()
			c.AwaitHealthy()
			f.awaitServing()
		}},
		faultKind{"lost tail of a master, seen by", destroys, func(*clusterNode) {
			master := c.Owner(next())
			c.LoseTail(master, func() { wait(ctx, 300*time.Millisecond) })
			master.Restart()
			c.AwaitHealthy()
			f.awaitServing()
		}},
	)
}

// partitionSlots returns the slots in which the partitions lie.
func (f *fleet) partitionSlots(c *redistest.Cluster) []int {
	f.t.Helper()
	var slots []int
	for _, master := range c.Masters() {
		keys, err := master.Client().Keys(f.t.Context(), "rejoin:{*}epoch").Result()
		if err != nil {
			f.t.Fatal(err)
		}
		for _, key := range keys {
			slots = append(slots, c.Slot(key))
		}
	}
	if len(slots) != 6 {
		f.t.Fatalf("the partitions are in the slots %v", slots)
	}
	return slots
}

// killFaults are those of the nodes that are worth repeating for each form.
func (f *fleet) killFaults() []faultKind {
	all := f.nodeFaults()
	if os.Getenv("REJOIN_TEST_CHAOS") != "" {
		return all
	}
	return all[:1:1]
}

// awaitServing waits until all running nodes are ready: by then they have
// detected the losses of a failover.
func (f *fleet) awaitServing() {
	for _, n := range f.nodes {
		if n.up() {
			n.awaitReady()
		}
	}
}

// moved reports whether clients have reconnected often enough, and to other
// nodes.
func (f *fleet) moved() bool {
	r := f.reconnects()
	return r.recovered >= len(f.witnesses) && r.afterKill > 0
}

// checkForm makes sure that the faults have not kept everything from happening.
func (f *fleet) checkForm() {
	f.t.Helper()
	r, sent, acked, _ := f.counts()
	if acked < sent/2 || r.recovered < len(f.witnesses) || r.afterKill == 0 {
		f.t.Errorf("only %d of %d events were published, %d recoveries, %d elsewhere after a kill", acked, sent, r.recovered, r.afterKill)
	}
}
