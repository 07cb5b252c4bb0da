package socketio

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A markingAdapter counts the markers that its node publishes.
type markingAdapter struct {
	adapter.Adapter
	markers atomic.Int64
	fails   atomic.Int64 // how many of them
	slow    atomic.Bool  // publishing one takes longer than a marker waits for it
	loses   atomic.Int64 // number of the first ones that do not arrive, although they have been published
}

func (a *markingAdapter) Next(ctx context.Context) (adapter.Event, error) {
	for {
		ev, err := a.Adapter.Next(ctx)
		if err == nil && ev.Kind == kindMarker && a.markers.Load() <= a.loses.Load() {
			continue
		}
		return ev, err
	}
}

func (a *markingAdapter) Publish(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
	if e.Kind == kindMarker {
		a.markers.Add(1)
		if a.fails.Add(-1) >= 0 {
			return adapter.Receipt{}, fmt.Errorf("%w: the test's cause", adapter.ErrUnavailable)
		}
		if a.slow.Load() {
			defer time.Sleep(markerAgain + markerAgain/10)
		}
	}
	return a.Adapter.Publish(ctx, e)
}

func (c *testCluster) marking(t *testing.T, id adapter.NodeID, o Options) (*testNode, *markingAdapter) {
	t.Helper()
	inner, err := c.memory.Node(id)
	must(t, err)
	t.Cleanup(func() { _ = inner.Close() })
	a := &markingAdapter{Adapter: inner}
	o.Adapter, o.Sessions = a, c.sessions
	n := start(t, o)
	joining(n.Namespace)
	return n, a
}

// A command that joins many sockets costs one marker on each of their nodes, and each
// socket gets the events published after the command.
func TestSocketsJoinOfManySocketsSharesAMarker(t *testing.T) {
	const sockets = 40
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{Partitions: partitions})
			n, a := c.marking(t, "aaaa", Options{})
			other, b := c.marking(t, "bbbb", Options{})
			clients := []*wire{other.client(t)}
			for range sockets {
				clients = append(clients, n.client(t))
			}
			clients[1].call(`["join","r1"]`) // it joins one room fewer
			must(t, other.SocketsJoin(t.Context(), "r1", "r2", "r3"))
			must(t, other.To("r1", "r2").Emit(t.Context(), "n", 1))
			must(t, other.To("r3").Emit(t.Context(), "n", 2))
			for _, w := range clients {
				got := map[string]bool{w.event(): true, w.event(): true}
				if !got[numbered(1)] || !got[numbered(2)] {
					t.Fatalf("got %v, want both events", got)
				}
				w.quiet()
			}
			if a, b := a.markers.Load(), b.markers.Load(); a != 1 || b != 1 {
				t.Errorf("got %d and %d markers for %d sockets and one, want 1 on each node", a, b, sockets)
			}
		})
	}
}

// A command that makes them leave costs one as well, if its node is behind in the rooms'
// partition.
func TestSocketsLeaveOfManySocketsSharesAMarker(t *testing.T) {
	const sockets = 20
	c := newSlowCluster(t)
	n, slow := c.node(t, "aaaa", Options{})
	var clients []*wire
	target, room := c.room(0, 0), c.room(1, 0)
	for range sockets {
		w := n.client(t)
		w.call(fmt.Sprintf(`["join",%q]`, target))
		w.call(fmt.Sprintf(`["join",%q]`, room))
		clients = append(clients, w)
	}
	slow.hold(1)
	must(t, n.To(room).Emit(t.Context(), "n", 1))
	must(t, n.To(target).SocketsLeave(t.Context(), room))
	must(t, n.To(target).Emit(t.Context(), "left"))
	for _, w := range clients {
		w.want(`["left"]`)
	}
	slow.release(1)
	for _, w := range clients {
		w.want(numbered(1))
	}
	eventually(t, "the room has no members", func() bool { return n.index.Len(rooms.InNamed("/", room)) == 0 })
	if got := slow.markers.Load(); got != 1 {
		t.Errorf("got %d markers for %d sockets, want 1", got, sockets)
	}
}

// Markers are for no socket, so the members of their rooms are not examined.
func TestMarkersAreNotOfferedToMembers(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	w := n.client(t)
	w.call(`["join","r"]`)
	s := n.Socket(w.sid)
	s.mu.Lock()
	defer s.mu.Unlock()
	handed := make(chan struct{})
	go func() {
		defer close(handed)
		n.feed.mu.Lock()
		defer n.feed.mu.Unlock()
		n.dispatch(&adapter.Event{Kind: kindMarker, Target: rooms.Target{To: []rooms.Room{rooms.InNamed("/", "r")}}})
	}()
	select {
	case <-handed:
	case <-time.After(patience):
		t.Error("the feed waits for a member")
	}
}

// A socket that executes a command after the marker of the others has arrived, because its
// gate was shut, must not use that marker: it would miss the events in between.
func TestAMarkerIsNotForSocketsThatComeLater(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n, a := c.marking(t, "aaaa", Options{})
	early, late := n.client(t), n.client(t)
	s := n.Socket(late.sid)
	s.mu.Lock()
	s.gate.shut++
	s.mu.Unlock()
	must(t, n.SocketsJoin(t.Context(), "r"))
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	early.want(numbered(1))
	must(t, n.To("r").Emit(t.Context(), "n", 2))
	early.want(numbered(2))
	s.mu.Lock()
	s.openGate()
	s.mu.Unlock()
	must(t, n.To("r").Emit(t.Context(), "n", 3))
	early.want(numbered(3))
	late.want(numbered(1), numbered(2), numbered(3))
	late.quiet()
	if got := a.markers.Load(); got != 2 {
		t.Errorf("got %d markers, want one for each of the sockets", got)
	}
}

// The node stays subscribed to the rooms until the last socket that uses a marker has
// subscribed to them, although others have left them by then.
func TestTheNodeHearsTheRoomsOfAMarker(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n, a := c.marking(t, "aaaa", Options{})
	early, late := n.client(t), n.client(t)
	s := n.Socket(late.sid)
	done, err := s.change(t.Context()) // its join waits
	must(t, err)
	must(t, n.SocketsJoin(t.Context(), "r"))
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	early.want(numbered(1))
	early.call(`["leave","r"]`)
	must(t, n.To("r").Emit(t.Context(), "n", 2)) // to which only the marker is subscribed
	done()
	late.want(numbered(1), numbered(2))
	late.call(`["leave","r"]`)
	eventually(t, "the node does not hear the room", func() bool {
		r, err := n.adapter.Publish(t.Context(), adapter.Event{Target: rooms.Target{To: []rooms.Room{rooms.InNamed("/", "r")}}})
		must(t, err)
		return r.Receivers == 0
	})
	if got := a.markers.Load(); got != 1 {
		t.Errorf("got %d markers, want 1", got)
	}
}

// A marker that cannot be published is published later, before its sockets give up.
func TestAMarkerThatFailsIsPublishedAgain(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n, a := c.marking(t, "aaaa", Options{})
	var clients []*wire
	for range 5 {
		clients = append(clients, n.client(t))
	}
	a.fails.Store(1)
	must(t, n.SocketsJoin(t.Context(), "r"))
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	for _, w := range clients {
		w.want(numbered(1))
	}
	if got := a.markers.Load(); got != 2 {
		t.Errorf("got %d markers, want 2", got)
	}
}

// A marker is not stored, so it does not arrive if its node is reconnecting to Redis at
// that moment. On a quiet node no other event shows that the feed has passed it.
func TestAMarkerThatIsLostIsPublishedAgain(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			t.Parallel()
			c := newCluster(adapter.MemoryOptions{Partitions: partitions})
			n, a := c.marking(t, "aaaa", Options{})
			var clients []*wire
			for range 5 {
				clients = append(clients, n.client(t))
			}
			a.loses.Store(1)
			must(t, n.SocketsJoin(t.Context(), "r1", "r2", "r3"))
			eventually(t, "the marker is published again", func() bool { return a.markers.Load() == 2 })
			must(t, n.To("r1").Emit(t.Context(), "n", 1))
			for _, w := range clients {
				w.want(numbered(1))
			}
			if got := a.markers.Load(); got != 2 {
				t.Errorf("got %d markers, want the lost one and one more", got)
			}
		})
	}
}

// A marker whose publication takes long is not published again immediately.
func TestASlowMarkerIsPublishedOnce(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{Partitions: 4})
	n, a := c.marking(t, "aaaa", Options{})
	a.slow.Store(true)
	w := n.client(t)
	must(t, n.SocketsJoin(t.Context(), "r", "r2", "r3"))
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	w.want(numbered(1))
	if got := a.markers.Load(); got != 1 {
		t.Errorf("got %d markers, want 1", got)
	}
}

// If a marker cannot be published in time, the log says why.
func TestTheCauseOfAMarkerThatFailsIsLogged(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	c := newCluster(adapter.MemoryOptions{})
	n, a := c.marking(t, "aaaa", Options{Logger: zap.New(core)})
	a.fails.Store(1000)
	w := n.client(t)
	must(t, n.SocketsJoin(t.Context(), "r"))
	select {
	case <-w.closed:
	case <-time.After(patience):
		t.Fatal("the client is not cut")
	}
	for _, line := range logs.FilterMessage("client cut; it can reconnect").All() {
		if strings.Contains(fmt.Sprint(line.ContextMap()["error"]), "the test's cause") {
			return
		}
	}
	t.Errorf("the cause is not logged: %v", logs.All())
}
