package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A join position covers the events published before it, and nothing later. That includes a room
// that the node has been subscribed to for long and whose feed it has not read, and other rooms,
// which may be in another partition.
func joinPositionsSeparateEarlierFromLaterEvents(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{})
	r := room("r")
	for i := range 40 {
		to := r
		if i%2 == 1 {
			to = room(fmt.Sprint("other", i))
		}
		before := a.publish(event(fmt.Sprint("before ", i), to))
		joined := b.subscribe(r)
		after := a.publish(event(fmt.Sprint("after ", i), to))
		if !joined.SameHistory(before) || !joined.Covers(before.At) {
			t.Fatalf("join %d at %v does not cover %v, which was published before it", i, joined, before)
		}
		if !joined.SameHistory(after) || joined.Covers(after.At) {
			t.Fatalf("join %d at %v covers %v, which was published after it", i, joined, after)
		}
	}
}

// A node that subscribes while others publish without pause must receive everything after its join
// position.
func nothingIsMissedAfterSubscribe(t *testing.T, newCluster Maker) {
	const publishers, rounds = 3, 10
	c := newCluster(t, Options{})
	publisher := join(t, c, "publisher")[0]
	for round := range rounds {
		r := room(fmt.Sprint("r", round))
		listener := join(t, c, adapter.NodeID(fmt.Sprint("listener", round)))[0]
		ctx, stop := context.WithCancel(deadline(t))
		var mu sync.Mutex
		var published []adapter.Cursor
		var wg sync.WaitGroup
		for range publishers {
			wg.Go(func() {
				for ctx.Err() == nil {
					receipt, err := publisher.Publish(t.Context(), event("x", r))
					if err != nil {
						t.Errorf("Publish: %v", err)
						return
					}
					mu.Lock()
					published = append(published, receipt.Cursor)
					mu.Unlock()
				}
			})
		}
		joined := listener.subscribe(r)
		heard := []adapter.Event{listener.next(), listener.next()}
		stop()
		wg.Wait()
		heard = append(heard, listener.upTo(publisher.publish(event("last", r)))...)

		var want, got []adapter.Position
		for _, p := range published {
			if !joined.Covers(p.At) {
				want = append(want, p.At)
			}
		}
		slices.SortFunc(want, adapter.Position.Compare)
		for _, e := range heard[:len(heard)-1] {
			if !joined.Covers(e.Position) {
				got = append(got, e.Position)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: after its join at %v the node got %d events, want %d", round, joined, len(got), len(want))
		}
	}
}

func subscriptionsCount(t *testing.T, newCluster Maker) {
	n := one(t, newCluster, Options{})
	r := room("r")
	n.subscribe(r)
	n.subscribe(r, r)
	n.Unsubscribe(r)
	n.Unsubscribe(r)
	for range 3 {
		n.publish(event("still heard", r))
		n.expect("still heard")
	}
	n.Unsubscribe(r)
	eventuallyUnheard(n, r)
	n.Unsubscribe(r) // one too many
	n.subscribe(r)
	n.publish(event("heard again", r))
	n.expect("heard again")
}

// eventuallyUnheard waits until a node is no longer subscribed to a room.
func eventuallyUnheard(n *node, r rooms.Room) {
	n.t.Helper()
	eventually(n.t, "the node is unsubscribed from the room", func() bool {
		n.publish(event("unheard", r))
		end := n.publish(adapter.Event{Target: rooms.Target{To: []rooms.Room{rooms.InNodes()}}, Data: []byte("end")})
		return len(n.upTo(end)) == 1
	})
}

func aRoomCanBeLeftAndJoinedAgain(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{})
	r := room("r")
	for i := range 50 {
		joined := b.subscribe(r)
		end := a.publish(event(fmt.Sprint(i), r))
		heard := slices.DeleteFunc(b.upTo(end), func(e adapter.Event) bool { return joined.Covers(e.Position) })
		if got := payloads(heard); !slices.Equal(got, []string{fmt.Sprint(i)}) {
			t.Fatalf("round %d: got %q", i, got)
		}
		b.Unsubscribe(r)
		a.publish(event("while away", r))
	}
}

func aFailedSubscribeLeavesNothing(t *testing.T, newCluster Maker) {
	n := one(t, newCluster, Options{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Subscribe(ended, room("r"), room("s")); !errors.Is(err, context.Canceled) {
		t.Errorf("Subscribe with an ended context: %v, want context.Canceled", err)
	}
	eventuallyUnheard(n, room("r"))
	eventuallyUnheard(n, room("s"))
}

func nodeRoomReachesEveryNode(t *testing.T, newCluster Maker) {
	nodes := join(t, newCluster(t, Options{}), "a", "b", "c")
	nodes[1].publish(event("all", rooms.InNodes()))
	for _, n := range nodes {
		n.expect("all")
	}
	// An additional subscription to the room changes nothing.
	nodes[0].subscribe(rooms.InNodes())
	nodes[0].Unsubscribe(rooms.InNodes())
	expectNothingElse(nodes...)
}
