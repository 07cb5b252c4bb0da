package integration

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// TestSubscriberCut cuts the subscriber's connection of one node for 5 seconds
// under load, while all its other connections live. Its clients see a pause, not
// a loss, and are not disconnected.
func TestSubscriberCut(t *testing.T) {
	f := &fleet{t: t, cluster: startCluster(t, 2)}
	victim := f.nodes[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer f.clients.Wait()
	defer cancel()
	for i := range 50 {
		f.roam(ctx, fmt.Sprint("client ", i), 0, fmt.Sprint("room ", i%10), "room for all")
	}
	f.awaitJoined()
	over, stop := context.WithCancel(ctx)
	defer stop()
	for i := range 4 {
		p := &publisher{name: fmt.Sprint("p", i), pause: 10 * time.Millisecond, node: func() string { return f.nodes[i%2].public }}
		for room := range 10 {
			p.rooms = append(p.rooms, fmt.Sprint("room ", room), "room for all")
		}
		f.publish(over, p)
	}
	f.strike("subscriber cut", harmless, func() {
		victim.feed.cutSubscribers()
		wait(ctx, 5*time.Second)
		victim.feed.mendSubscribers()
	})
	victim.awaitReady()
	wait(ctx, time.Second) // live again
	stop()
	f.settle()
	r, _, _, failed := f.counts()
	if r.recovered+r.refused > 0 || len(failed) > 0 {
		t.Errorf("%d clients reconnected, publishers failed: %v", r.recovered+r.refused, failed)
	}
}
