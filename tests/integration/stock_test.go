package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestRecoveryUnderTraffic cuts one stock client 60 times, on two nodes in turn, while two senders
// publish 8,000 events, at first within 20 seconds and then three times as fast; in make test half of
// that in half of the time. Every other time it is cut again while it reconnects, most often in the
// middle of the replay. It gets each event once and in order.
func TestRecoveryUnderTraffic(t *testing.T) {
	all := lasting(20*time.Second, 10*time.Second)
	cuts, events := int(3*all/time.Second), int(400*all/time.Second)
	for _, duration := range []time.Duration{all, all / 3} {
		t.Run(fmt.Sprint("in ", duration.Round(time.Second)), func(t *testing.T) {
			f := &fleet{t: t, cluster: startCluster(t, 2, "REJOIN_BACKLOG_LIMIT=20000", "REJOIN_REPLAY_LIMIT=20000")}
			front := startBalancer(t, f.cluster)
			ctx, cancel := context.WithCancel(t.Context())
			defer f.clients.Wait()
			defer cancel()
			relay := startRelay(t, &node{addr: front.Listener.Addr().String()})
			s := startDriver(t).open("stock client", newest, relay.url(), transports["websocket"])
			f.roamStock(ctx, s, 0, "room 1", "room 2")
			f.awaitJoined()
			for i := range 2 {
				f.publish(ctx, &publisher{
					name: fmt.Sprint("p", i), node: func() string { return f.nodes[i].public },
					rooms: []string{"room 1", "room 2"}, most: events / 2, pause: 2 * duration / time.Duration(events),
				})
			}
			for i := range cuts {
				wait(ctx, rand.N(duration/time.Duration(cuts)))
				before := f.witnesses[0].returns()
				if i%2 > 0 {
					relay.cutNext(1 + rand.N(20)) // frames
				}
				s.must("cut", nil)
				eventually(t, "it has not reconnected", func() error {
					if f.witnesses[0].returns() == before {
						return fmt.Errorf("cut %d times, %d times back", i+1, before)
					}
					return nil
				})
			}
			f.settle()
			r, _, acked, _ := f.counts()
			if r.recovered < cuts || r.refused > 0 {
				t.Errorf("of %d cuts and more, %d recovered, %d were refused", cuts, r.recovered, r.refused)
			}
			if acked != events {
				t.Errorf("%d events of %d were published", acked, events)
			}
		})
	}
}

// TestThroughBalancer has stock clients on polling, and on polling that is
// upgraded, behind a balancer without affinity, under load: no connection is
// lost.
func TestThroughBalancer(t *testing.T) {
	const clients = 10
	f := &fleet{t: t, cluster: startCluster(t, 3)}
	front := startBalancer(t, f.cluster)
	ctx, cancel := context.WithCancel(t.Context())
	defer f.clients.Wait()
	defer cancel()
	d := startDriver(t)
	for i := range clients {
		for _, transport := range []string{"polling", "upgrade"} {
			name := fmt.Sprint(transport, " ", i)
			f.roamStock(ctx, d.open(name, newest, front.URL, transports[transport]), 0, fmt.Sprint("room ", i), "room for all")
		}
	}
	f.awaitJoined()
	over, stop := context.WithTimeout(ctx, lasting(time.Minute, 8*time.Second))
	defer stop()
	for i := range 4 {
		p := &publisher{name: fmt.Sprint("p", i), pause: 20 * time.Millisecond}
		for room := range clients {
			p.rooms = append(p.rooms, fmt.Sprint("room ", room), "room for all")
		}
		f.publish(over, p)
	}
	f.settle()
	for _, w := range f.witnesses {
		if w.troubles > 0 {
			t.Errorf("client %s was disturbed:\n    %s", w.name, w.dump())
		}
	}
	if got := f.sum("rejoin_disconnects_total"); got > 4 { // the publishers
		t.Errorf("the nodes count %v disconnects", got)
	}
}
