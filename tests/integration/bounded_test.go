package integration

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/tests/integration/sioclient"
	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// TestNodeMemoryIsBounded: if clients do not read, if Redis is stopped while clients publish,
// or if events arrive faster than they can be delivered, the node stays within its memory,
// answers, and returns to its former state afterwards.
func TestNodeMemoryIsBounded(t *testing.T) { // not parallel: the flood would affect other tests
	const (
		readers, stalled, flooders = 20, 40, 24
		budget                     = 512 << 20 // of the process; several times more than without the race detector
	)
	f := &fleet{t: t, cluster: startCluster(t, 2, "REJOIN_REDIS_TIMEOUT=1s", "REJOIN_SEND_QUEUE_BYTES=256KiB")}
	n := f.nodes[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer f.clients.Wait()
	defer cancel()
	for i := range readers {
		f.roam(ctx, fmt.Sprint("reader ", i), 0, fmt.Sprint("room ", i%5))
	}
	f.awaitJoined()
	connect := func(join ...string) *sioclient.Client {
		c := listen(n.node).Client
		t.Cleanup(c.Cut)
		if err := bounded(ctx, c.Connect); err != nil {
			t.Fatal(err)
		}
		for _, room := range join {
			if err := bounded(ctx, func(ctx context.Context) error { _, err := call(ctx, c, "join", room); return err }); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	asker := connect()
	clients := make([]*sioclient.Client, flooders)
	for i := range clients {
		clients[i] = connect()
	}
	before := n.memory("VmRSS")

	// Clients that do not read are cut, and others are not affected.
	for range stalled {
		connect("flood").Vanish()
	}
	large := strings.Repeat("x", 64<<10)
	eventually(t, "the stalled clients are not cut", func() error {
		if _, err := call(ctx, asker, "to", "flood", "large", large); err != nil {
			return err
		}
		if slow := sum(n.metrics(), "rejoin_slow_clients_total"); slow < stalled {
			return fmt.Errorf("%v of %d", slow, stalled)
		}
		return nil
	})
	t.Logf("with stalled readers %d MiB, %d MiB before", n.memory("VmRSS")>>20, before>>20)

	// A flood asks for no acks, so that nothing but the node itself slows it down.
	over, stop := context.WithCancel(ctx)
	defer stop()
	for i := range 5 {
		f.publish(over, &publisher{name: fmt.Sprint("p", i), pause: 20 * time.Millisecond, rooms: []string{fmt.Sprint("room ", i)}, stays: true})
	}
	var flood sync.WaitGroup
	for i, c := range clients {
		flood.Go(func() {
			for over.Err() == nil {
				if err := c.Emit("to", fmt.Sprint("room ", i%5), "filler", large[:4<<10]); err != nil {
					return
				}
			}
		})
	}
	eventually(t, "the flood does not come", func() error {
		if events := n.metrics()["rejoin_deliveries_total"]; events < flooders*20 {
			return fmt.Errorf("%v deliveries", events)
		}
		for i := range 5 {
			room := fmt.Sprint("room ", i)
			if !slices.ContainsFunc(slices.Collect(maps.Values(f.ledger.of(room))), func(s sequence) bool { return s.acked > 0 }) {
				return fmt.Errorf("nothing is published in %s", room)
			}
		}
		return nil
	})
	t.Logf("in a flood %d MiB", n.memory("VmRSS")>>20)
	f.strike("Redis stands still", harmless, func() {
		f.redis.Pause()
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
			began := time.Now()
			_, err := call(ctx, asker, "to", "nobody", "hello")
			if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "unavailable") || took > 5*time.Second {
				t.Errorf("publishing while Redis stands still: %v after %v", err, took)
			}
			wait(ctx, 50*time.Millisecond)
		}
		t.Logf("while Redis stands still %d MiB", n.memory("VmRSS")>>20)
		f.redis.Resume()
		f.awaitServing()
	})
	stop()
	flood.Wait()
	f.settle()
	if _, err := call(ctx, asker, "to", "nobody", "hello"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if n.memory("VmHWM") > budget {
		t.Errorf("the node has used %d MiB, of %d", n.memory("VmHWM")>>20, budget>>20)
	}
	m := n.metrics()
	t.Logf("at most %d MiB; %v events in, %v deliveries, %v gaps repaired, heap %v MiB", n.memory("VmHWM")>>20,
		m["rejoin_events_in_total"], m["rejoin_deliveries_total"], m["rejoin_redis_feed_repairs_total"], int(m["go_memstats_heap_alloc_bytes"])>>20)
	r, _, acked, failed := f.counts()
	if r.refused > 0 || acked == 0 || len(failed) == 0 {
		t.Errorf("%d clients were refused, %d events acknowledged, %d kinds of failure", r.refused, acked, len(failed))
	}
	for err := range failed {
		if strings.Contains(err, "timeout") {
			t.Errorf("a publisher got the error: %s", err)
		}
	}
}

// memory returns the memory of the process in bytes: VmRSS is the current one,
// VmHWM the maximum so far.
func (n *clusterNode) memory(what string) int {
	n.t.Helper()
	bytes, err := nodetest.Memory(n.process.Pid, what)
	if err != nil {
		n.t.Fatal(err)
	}
	return bytes
}
