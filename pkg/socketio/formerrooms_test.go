package socketio

import (
	"fmt"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// Rooms that commands of its own node have put a client into and taken it out of are forgotten after a
// while, also if it is sent events all the time.
func TestFormerRoomsByLocalCommands(t *testing.T) {
	t.Parallel()
	n := start(t, Options{RecoveryWindow: time.Second, Engine: engineio.Options{PingInterval: time.Second, PingTimeout: time.Second}})
	w := n.client(t)
	visit := func(room string) {
		must(t, n.ToSocket(w.sid).Local().SocketsJoin(t.Context(), room))
		must(t, n.ToSocket(w.sid).Local().SocketsLeave(t.Context(), room))
	}
	must(t, n.ToSocket(w.sid).Emit(t.Context(), "n", 1))
	w.want(numbered(1))
	visit("first")
	for begun := time.Now(); time.Since(begun) < n.opts.memory()+2*time.Second; time.Sleep(500 * time.Millisecond) {
		must(t, n.ToSocket(w.sid).Emit(t.Context(), "n", 1))
		w.want(numbered(1))
	}
	visit("second")
	visit("third")
	sock := n.Socket(w.sid)
	eventually(t, "the first room is forgotten", func() bool {
		sock.mu.Lock()
		defer sock.mu.Unlock()
		return len(sock.rooms.named["first"]) == 0
	})
}

// As TestFormerRoomsOfASilentClient, but the client does not receive two events, and more time is between
// them than its session is kept without it. The node has not noticed the cut by then.
func TestFormerRoomsOfASilentClientThatMissesTwoEvents(t *testing.T) {
	t.Parallel()
	o := Options{RecoveryWindow: time.Second, Engine: engineio.Options{PingInterval: 4 * time.Second, PingTimeout: 4 * time.Second}}
	c := newCluster(adapter.MemoryOptions{})
	n, other := c.node(t, "aaaa", o), c.node(t, "bbbb", o)
	joining(n.Namespace)
	a := n.member(t, "r", "x")
	must(t, n.To("r").Emit(t.Context(), "n", 0))
	a.want(numbered(0))
	must(t, n.To("r").Except("x").Emit(t.Context(), "n", 1))
	head, err := n.adapter.Head(t.Context())
	must(t, err)
	eventually(t, "the node has reached it", func() bool { return n.feed.now().Includes(head) }) // before the leave
	a.call(`["leave","x"]`)
	time.Sleep(n.opts.memory() + o.Engine.PingInterval + time.Second)
	was := a.offset
	must(t, n.To("r").Emit(t.Context(), "n", 2))
	a.want(numbered(2))
	time.Sleep(n.opts.sessionLife() + time.Second)
	must(t, n.To("r").Emit(t.Context(), "n", 3))
	a.want(numbered(3))
	a.offset = was // both lost on the way
	a.cut()
	eventually(t, "the client is away", func() bool { return n.Socket(a.sid) == nil })
	other.recovered(t, a).want(numbered(2), numbered(3))
}

// A client can join although rooms that it left by a command, which was ahead of its node, were many: they
// are forgotten after a while.
func TestJoinAfterManyFormerRooms(t *testing.T) {
	t.Parallel()
	o := Options{RoomsPerSocket: 1, RecoveryWindow: time.Second, Engine: engineio.Options{PingInterval: time.Second, PingTimeout: time.Second}}
	var memory time.Duration
	clients := make(map[uint16]*wire)
	for _, ahead := range []uint16{0, 1, 3} {
		c := newSlowCluster(t)
		other, _ := c.node(t, "aaaa", o)
		n, slow := c.node(t, "bbbb", o)
		memory = n.opts.memory()
		joining(n.Namespace)
		a := n.member(t)
		clients[ahead] = a
		var names []string
		for i := range 10 {
			names = append(names, fmt.Sprint("many", i))
		}
		must(t, other.ToSocket(a.sid).SocketsJoin(t.Context(), names...))
		sock := n.Socket(a.sid)
		eventually(t, "it is in the rooms", func() bool { return len(sock.Rooms()) >= len(names) })
		slow.hold(ahead)
		must(t, other.To(c.room(ahead, 0)).Emit(t.Context(), "n", 1))
		must(t, other.ToSocket(a.sid).SocketsLeave(t.Context(), names...))
		slow.release(ahead)
	}
	time.Sleep(memory + 3*time.Second)
	for ahead, a := range clients {
		if got := a.call(`["join","x"]`); got != `["ok"]` {
			t.Errorf("partition %d: join: got %s, want ok", ahead, got)
		}
	}
}
