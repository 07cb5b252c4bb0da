package socketio

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

func TestAClientComesBackWithWhatItMissed(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1, n2 := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{})
	joining(n1.Namespace)
	joining(n2.Namespace)
	var recovered []bool
	n2.OnConnect(func(s *Socket) { recovered = append(recovered, s.Recovered()) })
	a := n1.client(t)
	a.call(`["join","r"]`)
	must(t, n1.To("r").Emit(t.Context(), "n", 1))
	a.want(numbered(1))
	a.cut()
	must(t, n1.To("r").Emit(t.Context(), "n", 2))
	must(t, n2.Emit(t.Context(), "n", 3))
	must(t, n2.ToSocket(a.sid).Emit(t.Context(), "n", 4))
	must(t, n1.To("other").Emit(t.Context(), "n", 99))
	b := n2.back(t, a)
	if b.sid != a.sid || b.pid != a.pid {
		t.Fatalf("recovered as %s/%s, was %s/%s, want %s, %s", b.sid, b.pid, a.sid, a.pid, a.sid, a.pid)
	}
	b.want(numbered(2), numbered(3), numbered(4))
	must(t, n2.To("r").Emit(t.Context(), "n", 5))
	b.want(numbered(5))
	b.quiet()
	if len(recovered) != 1 || !recovered[0] {
		t.Errorf("recovered %v", recovered)
	}
}

func TestAClientThatGotNothingComesBack(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	a := n.client(t)
	a.cut()
	must(t, n.Emit(t.Context(), "n", 1))
	b := n.back(t, a)
	if b.sid != a.sid {
		t.Fatal("not recovered")
	}
	b.want(numbered(1))
	b.quiet()
}

func TestAHalfOpenSocketIsTakenOver(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1, n2 := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{})
	for _, other := range []*testNode{n1, n2} {
		var gone []Reason
		a := n1.client(t)
		old := n1.Socket(a.sid)
		old.OnDisconnect(func(r Reason) { gone = append(gone, r) })
		b := other.back(t, a) // while a is still connected, as far as n1 knows
		if b.sid != a.sid {
			t.Fatal("not recovered")
		}
		must(t, n1.Emit(t.Context(), "n", 1))
		b.want(numbered(1))
		<-old.Context().Done()
		select {
		case <-a.closed:
		case <-time.After(patience):
			t.Fatal("the old connection was not closed")
		}
		for len(a.in) > 0 {
			if m := <-a.in; m == `42["n",1]` {
				t.Error("the old socket still got events")
			}
		}
		if len(gone) != 0 {
			t.Errorf("OnDisconnect told %v of a socket that moved", gone)
		}
		b.write("41")
	}
}

func TestRefusalsGiveANewSocket(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		memory adapter.MemoryOptions
		o      Options
		do     func(t *testing.T, c *testCluster, n *testNode, a *wire)
	}{
		"unknown": {refusedUnknown, adapter.MemoryOptions{}, Options{}, func(t *testing.T, _ *testCluster, _ *testNode, a *wire) {
			a.pid = "somebody else's"
		}},
		"left by itself": {refusedUnknown, adapter.MemoryOptions{}, Options{}, func(t *testing.T, _ *testCluster, n *testNode, a *wire) {
			b := n.back(t, a)
			b.write("41")
			eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
		}},
		"trimmed": {refusedTrimmed, adapter.MemoryOptions{BacklogLimit: 5}, Options{}, func(t *testing.T, _ *testCluster, n *testNode, _ *wire) {
			for i := range 6 {
				must(t, n.Emit(t.Context(), "n", i))
			}
		}},
		"too many": {refusedLimit, adapter.MemoryOptions{}, Options{ReplayLimit: 5}, func(t *testing.T, _ *testCluster, n *testNode, _ *wire) {
			for i := range 6 {
				must(t, n.Emit(t.Context(), "n", i))
			}
		}},
		"history lost": {refusedEpoch, adapter.MemoryOptions{}, Options{}, func(t *testing.T, c *testCluster, _ *testNode, _ *wire) {
			c.memory.Reset()
		}},
		"an offset from nowhere": {refusedHistory, adapter.MemoryOptions{}, Options{}, func(t *testing.T, _ *testCluster, n *testNode, a *wire) {
			head, err := n.adapter.Head(t.Context())
			must(t, err)
			head.At.Ms += 1 << 30
			a.offset = head.String()
		}},
		"removed while away": {refusedRemoved, adapter.MemoryOptions{}, Options{}, func(t *testing.T, _ *testCluster, n *testNode, a *wire) {
			must(t, n.ToSocket(a.sid).DisconnectSockets(t.Context(), false))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(tc.memory)
			n := c.node(t, "aaaa", tc.o)
			joining(n.Namespace)
			a := n.client(t)
			a.call(`["join","r"]`)
			must(t, n.Emit(t.Context(), "first"))
			a.want(`["first"]`)
			a.cut()
			eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
			tc.do(t, c, n, a)
			b := n.back(t, a)
			if b.sid == a.sid || b.pid == a.pid {
				t.Fatal("recovered, though it must not be")
			}
			if got := n.Stats().Recoveries[tc.reason]; got != 1 {
				t.Errorf("recoveries %v, want one %s", n.Stats().Recoveries, tc.reason)
			}
			for _, former := range []rooms.Room{rooms.InNamed("/", "r"), rooms.InOwn("/", a.sid)} {
				if members := n.index.Len(former); members > 0 {
					t.Errorf("%d members are left in the former room %v, want 0", members, former)
				}
			}
			must(t, n.Emit(t.Context(), "n", 100))
			b.want(numbered(100))
			b.quiet()
		})
	}
}

func TestAnotherUserGetsNothing(t *testing.T) {
	n := start(t, Options{})
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		var auth struct{ User string }
		if err := r.Auth(&auth); err != nil {
			return err
		}
		r.SetUser(auth.User)
		return nil
	})
	joining(n.Namespace)
	a := n.dial(t).connect("/", `{"user":"ann"}`)
	b := n.dial(t).connect("/", fmt.Sprintf(`{"user":"bob","pid":%q}`, a.pid))
	if b.sid == a.sid {
		t.Fatal("bob became ann")
	}
	a.quiet() // and ann was not disturbed
}

// A private ID is valid only in the namespace in which the client got it.
func TestSessionOfAnotherNamespace(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	joining(n.Of("/other"))
	a := n.client(t)
	b := n.dial(t).connect("/other", fmt.Sprintf(`{"pid":%q}`, a.pid))
	if b.sid == a.sid || b.pid == a.pid {
		t.Fatal("a session of / was recovered in /other")
	}
	if got := n.Stats().Recoveries[refusedUser]; got != 1 {
		t.Errorf("recoveries %v, want one %s", n.Stats().Recoveries, refusedUser)
	}
	a.quiet() // its socket was not evicted
	b.quiet()
}

func TestCommandsReachDisconnectedClients(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	a := n.client(t)
	a.call(`["join","old"]`)
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	must(t, n.In("old").SocketsJoin(t.Context(), "new"))
	must(t, n.To("new").Emit(t.Context(), "n", 1))
	must(t, n.In("new").SocketsLeave(t.Context(), "old"))
	must(t, n.To("old").Emit(t.Context(), "n", 2))
	must(t, n.To("new").Emit(t.Context(), "n", 3))
	b := n.back(t, a)
	if b.sid != a.sid {
		t.Fatalf("not recovered: %v", n.Stats().Recoveries)
	}
	b.want(numbered(1), numbered(3))
	must(t, n.To("old").Emit(t.Context(), "n", 4))
	must(t, n.To("new").Emit(t.Context(), "n", 5))
	b.want(numbered(5))
	if rooms := n.Socket(b.sid).Rooms(); len(rooms) != 1 || rooms[0] != "new" {
		t.Errorf("rooms %v", rooms)
	}
	b.cut() // and again: a command is executed once
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	d := n.back(t, a)
	d.want(numbered(1), numbered(3), numbered(5))
	d.quiet()
}

func TestLeaveIsImmediateAndStored(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	a := n.client(t)
	a.call(`["join","r"]`)
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	a.want(numbered(1))
	must(t, n.To("r").Emit(t.Context(), "n", 2))
	if m := a.next(); m == "" { // 2 arrives, and does not reach the client's handlers
		t.Fatal(m)
	}
	a.call(`["leave","r"]`)
	must(t, n.To("r").Emit(t.Context(), "n", 3))
	a.quiet()
	a.cut()
	b := n.back(t, a)
	b.want(numbered(2))
	b.quiet()
}

// Every client sees every number once and in order, in spite of cuts.
func TestContinuityUnderCuts(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{BacklogLimit: 100_000})
	nodes := []*testNode{
		c.node(t, "aaaa", Options{ReplayLimit: 100_000}),
		c.node(t, "bbbb", Options{ReplayLimit: 100_000}),
		c.node(t, "cccc", Options{ReplayLimit: 100_000}),
	}
	for _, n := range nodes {
		joining(n.Namespace)
	}
	const clients, rooms, events = 12, 4, 400
	var wg sync.WaitGroup
	var joined sync.WaitGroup
	joined.Add(clients)
	for i := range clients {
		wg.Go(func() {
			w := nodes[i%3].client(t)
			room := fmt.Sprint("r", i%rooms)
			w.call(`["join","` + room + `"]`)
			joined.Done()
			for next := 0; next < events; next++ {
				if next%(7+i) == 6 {
					w.cut()
					b := nodes[(next+i)%3].back(t, w)
					if b.sid != w.sid {
						t.Errorf("client %d was not recovered at %d", i, next)
						return
					}
					w = b
				}
				if got := w.event(); got != numbered(next) {
					t.Errorf("client %d got %s, want %s", i, got, numbered(next))
					return
				}
			}
			w.cut()
		})
	}
	joined.Wait()
	for i := range rooms {
		wg.Go(func() {
			for k := range events {
				if err := nodes[(i+k)%3].To(fmt.Sprint("r", i)).Emit(t.Context(), "n", k); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// Events published after SocketsJoin reach the joined sockets, on any node.
func TestAnEventRightAfterSocketsJoinIsNotMissed(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1, n2 := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{})
	joining(n1.Namespace)
	joining(n2.Namespace)
	a, b := n1.client(t), n2.client(t)
	for i := range 100 {
		room := fmt.Sprint("r", i)
		must(t, n1.To(room).Emit(t.Context(), "before"))
		must(t, n1.SocketsJoin(t.Context(), room))
		must(t, n1.To(room).Emit(t.Context(), "n", i))
		must(t, n1.Emit(t.Context(), "all", i))
		must(t, n2.To(room).Emit(t.Context(), "n", -i))
		for _, w := range []*wire{a, b} {
			w.want(numbered(i), fmt.Sprintf(`["all",%d]`, i), numbered(-i))
		}
	}
	a.quiet()
	b.quiet()
}

// The guarantee of SocketsJoin does not depend on recovery: events published after the
// command has its position reach the joined sockets.
func TestEventsRightAfterSocketsJoinWithoutRecovery(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{})
			var all []*testNode
			var clients []*wire
			for i := range nodes {
				n := c.node(t, adapter.NodeID(fmt.Sprint("node", i)), Options{RecoveryWindow: -1})
				joining(n.Namespace)
				all, clients = append(all, n), append(clients, n.client(t))
			}
			must(t, all[0].To("r").Emit(t.Context(), "before"))
			must(t, all[0].SocketsJoin(t.Context(), "r"))
			var want []string
			for i := range 200 {
				must(t, all[i%nodes].To("r").Emit(t.Context(), "n", i))
				want = append(want, numbered(i))
			}
			for _, w := range clients {
				w.want(want...)
				w.quiet()
			}
		})
	}
}

// A reluctantAdapter does not subscribe one room.
type reluctantAdapter struct {
	adapter.Adapter
	room rooms.Room
}

var errReluctant = errors.New("not now")

func (a *reluctantAdapter) Subscribe(ctx context.Context, list ...rooms.Room) (adapter.Cursor, error) {
	if slices.ContainsFunc(list, func(r rooms.Room) bool { return r == a.room }) {
		return adapter.Cursor{}, errReluctant
	}
	return a.Adapter.Subscribe(ctx, list...)
}

// A client that can't be recovered, because the node can't subscribe to a room that a
// command joined, does not affect the members of that room.
func TestAFailedRecoveryLeavesOthersTheirRooms(t *testing.T) {
	memory := adapter.NewMemory(adapter.MemoryOptions{})
	inner, err := memory.Node("aaaa")
	must(t, err)
	t.Cleanup(func() { _ = inner.Close() })
	reluctant := &reluctantAdapter{Adapter: inner}
	n := start(t, Options{Adapter: reluctant})
	joining(n.Namespace)
	b := n.client(t)
	b.call(`["join","r"]`)
	a := n.client(t)
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 1 })
	must(t, n.ToSocket(a.sid).SocketsJoin(t.Context(), "r"))
	reluctant.room = rooms.InNamed("/", "r")
	failed := n.dial(t)
	failed.write(fmt.Sprintf(`40{"pid":%q}`, a.pid))
	<-failed.closed
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	b.want(numbered(1))
	b.quiet()
}

// A busyAdapter calls a function in the middle of a recovery.
type busyAdapter struct {
	adapter.Adapter
	subscribed, replays func()
}

func (a *busyAdapter) Subscribe(ctx context.Context, list ...rooms.Room) (adapter.Cursor, error) {
	defer a.subscribed()
	return a.Adapter.Subscribe(ctx, list...)
}

func (a *busyAdapter) Replay(ctx context.Context, after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor, payload int) iter.Seq2[adapter.Event, error] {
	a.replays()
	return a.Adapter.Replay(ctx, after, upTo, payload)
}

// Events delivered while a client is being recovered wait for CONNECT, and come once, even
// if the replay contains them.
func TestEventsDuringARecoveryComeAfterConnectAndOnce(t *testing.T) {
	memory := adapter.NewMemory(adapter.MemoryOptions{})
	inner, err := memory.Node("aaaa")
	must(t, err)
	t.Cleanup(func() { _ = inner.Close() })
	busy := &busyAdapter{inner, func() {}, func() {}}
	n := start(t, Options{Adapter: busy})
	joining(n.Namespace)
	a, witness := n.client(t), n.client(t)
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 1 })
	happens := func(i int) func() {
		return func() {
			must(t, n.Emit(t.Context(), "n", i))
			witness.want(numbered(i)) // so it has been delivered
		}
	}
	busy.subscribed, busy.replays = happens(1), happens(2)
	b := n.back(t, a)
	if b.sid != a.sid {
		t.Fatal("not recovered")
	}
	b.want(numbered(1), numbered(2))
	b.quiet()
}
