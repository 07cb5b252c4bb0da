package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A pass is the auth payload for the middleware of these tests.
type pass struct {
	Rooms []string `json:"rooms,omitempty"` // joined by the middleware
	May   []string `json:"may"`             // further rooms that the client may keep; all if it is absent
}

// screened makes a namespace apply passes.
func screened(n *Namespace) {
	joining(n)
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		var p pass
		if err := r.Auth(&p); err != nil {
			return err
		}
		if p.May != nil {
			r.KeepRooms(func(room string) bool { return slices.Contains(p.May, room) })
		}
		return r.Join(p.Rooms...)
	})
}

// enter connects a new client with a pass.
func (n *testNode) enter(t *testing.T, p pass) *wire {
	t.Helper()
	auth, err := json.Marshal(p)
	must(t, err)
	return n.dial(t).connect("/", string(auth))
}

// reenter reconnects a client with a pass. It must be recovered.
func (n *testNode) reenter(t *testing.T, was *wire, p pass) *wire {
	t.Helper()
	auth, err := json.Marshal(struct {
		pass
		PID    string `json:"pid"`
		Offset string `json:"offset,omitempty"`
	}{p, was.pid, was.offset})
	must(t, err)
	w := n.dial(t)
	w.offset = was.offset
	if w.connect("/", string(auth)); w.sid != was.sid {
		t.Fatalf("not recovered: %v", n.Stats().Recoveries)
	}
	return w
}

func (w *wire) inRooms(n *testNode, want ...string) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("it is in %q", want), func() bool {
		s := n.Socket(w.sid)
		return s != nil && slices.Equal(s.Rooms(), want)
	})
}

func TestAMiddlewareJoins(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1, n2 := c.node(t, "aaaa", Options{RoomsPerSocket: 3}), c.node(t, "bbbb", Options{})
	screened(n1.Namespace)
	screened(n2.Namespace)
	n1.OnConnect(func(s *Socket) { _ = s.Emit(s.Context(), "in", strings.Join(s.Rooms(), " ")) })
	a := n1.enter(t, pass{Rooms: []string{"x", "y", "x"}})
	must(t, n2.To("x").Emit(t.Context(), "n", 1)) // CONNECT is answered, so it is in the room
	first := []string{a.event(), a.event()}       // OnConnect runs concurrently
	if slices.Sort(first); !slices.Equal(first, []string{`["in","x y"]`, numbered(1)}) {
		t.Fatalf("got events %s", first)
	}
	a.call(`["leave","y"]`)
	a.cut()
	must(t, n1.To("x", "y", "z").Emit(t.Context(), "n", 2))
	b := n2.reenter(t, a, pass{Rooms: []string{"y", "z"}})
	b.want(numbered(2))
	must(t, n1.To("y").Emit(t.Context(), "n", 3))
	must(t, n1.To("z").Emit(t.Context(), "n", 4))
	b.want(numbered(3), numbered(4))
	b.inRooms(n2, "x", "y", "z")
	b.cut()
	must(t, n1.To("z").Emit(t.Context(), "n", 5))
	b = n1.reenter(t, b, pass{}) // the session has the rooms that the recovery has joined
	b.want(numbered(5))
	b.inRooms(n1, "x", "y", "z")

	d := n1.dial(t)
	d.write(`40{"rooms":["1","2","3","4"]}`)
	if m := d.next(); !strings.HasPrefix(m, "44{") || !strings.Contains(m, ErrTooManyRooms.Error()) {
		t.Errorf("more rooms than allowed: %s", m)
	}
	if got := n1.Stats().TooManyRooms; got != 1 {
		t.Errorf("%d are counted, want 1", got)
	}
}

// A client that reconnects gets no events of rooms that it may no longer be in, also not
// those that it missed while it still was a member, or shortly before.
func TestRoomsThatAreNotKept(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1, n2 := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{})
	screened(n1.Namespace)
	screened(n2.Namespace)
	all := []string{"open", "secret", "left", "granted", "given"}
	a := n1.enter(t, pass{Rooms: []string{"granted"}, May: all})
	for _, room := range []string{"open", "secret", "left", "given"} {
		a.call(fmt.Sprintf(`["join",%q]`, room))
	}
	must(t, n1.Emit(t.Context(), "n", 0))
	a.want(numbered(0))
	emitAll := func(n int) {
		t.Helper()
		for i, room := range all {
			must(t, n2.To(room).Emit(t.Context(), "n", 10*n+i))
		}
	}
	emitAll(1)
	for range all {
		a.event()
	}
	a.offset = "" // it has not received them
	must(t, n2.ToSocket(a.sid).SocketsJoin(t.Context(), "given", "commanded"))
	a.inRooms(n1, "commanded", "given", "granted", "left", "open", "secret")
	a.call(`["leave","left"]`) // stores the command's changes, too
	a.cut()
	emitAll(2)
	b := n2.reenter(t, a, pass{May: []string{"open"}})
	b.want(numbered(0), numbered(10), numbered(14), numbered(20), numbered(24))
	emitAll(3)
	b.want(numbered(30), numbered(34))
	b.inRooms(n2, "commanded", "given", "open")
	b.cut()
	d := n1.reenter(t, b, pass{May: all}) // left is left
	emitAll(4)
	d.want(numbered(40), numbered(44))
	d.inRooms(n1, "commanded", "given", "open")
	d.quiet()
}

func TestKeepRoomsOfALiveSocket(t *testing.T) {
	n := start(t, Options{})
	screened(n.Namespace)
	a := n.enter(t, pass{Rooms: []string{"granted"}})
	a.call(`["join","open"]`)
	a.call(`["join","secret"]`)
	s := n.Socket(a.sid)
	must(t, s.Self().SocketsJoin(t.Context(), "commanded"))
	a.inRooms(n, "commanded", "granted", "open", "secret")
	must(t, s.KeepRooms(t.Context(), func(room string) bool { return room == "open" }))
	a.inRooms(n, "commanded", "open")
	for i, room := range []string{"secret", "granted", "open"} {
		must(t, n.To(room).Emit(t.Context(), "n", i))
	}
	a.want(numbered(2))
	a.quiet()
	a.cut()
	a.offset = ""
	b := n.reenter(t, a, pass{})
	b.want(numbered(2))
	b.inRooms(n, "commanded", "open")
}

// While the application decides about rooms, deliveries continue: to other sockets and to
// the socket itself.
func TestRoomsAreJudgedWithoutALock(t *testing.T) {
	n := start(t, Options{})
	screened(n.Namespace)
	a, b := n.enter(t, pass{}), n.enter(t, pass{})
	a.call(`["join","open"]`)
	a.call(`["join","secret"]`)
	b.call(`["join","open"]`)
	must(t, n.Socket(a.sid).KeepRooms(t.Context(), func(room string) bool {
		must(t, n.To("open").Emit(t.Context(), "n", 1))
		a.want(numbered(1))
		b.want(numbered(1))
		return room == "open"
	}))
	a.inRooms(n, "open")
}

// A join by command that a recovery executes is stored like any other.
func TestAJoinByCommandWhileAwayLasts(t *testing.T) {
	n := start(t, Options{})
	screened(n.Namespace)
	a := n.enter(t, pass{})
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	must(t, n.ToSocket(a.sid).SocketsJoin(t.Context(), "r"))
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	b := n.reenter(t, a, pass{May: []string{}})
	b.want(numbered(1))
	b.cut()
	must(t, n.To("r").Emit(t.Context(), "n", 2))
	d := n.reenter(t, b, pass{May: []string{}})
	d.want(numbered(2))
	d.inRooms(n, "r")
}

func TestValuesAreOfOneConnection(t *testing.T) {
	type key struct{}
	n := start(t, Options{})
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		if r.Value(key{}) != nil {
			return errors.New("there is a value already")
		}
		var claims struct{ Name string }
		if err := r.Auth(&claims); err != nil {
			return err
		}
		r.SetValue(key{}, claims.Name)
		return nil
	})
	n.On("who", func(_ context.Context, e *Event) error { return e.Ack(e.Socket().Value(key{})) })
	a := n.dial(t).connect("/", `{"name":"ann"}`)
	if got := a.call(`["who"]`); got != `["ann"]` {
		t.Error(got)
	}
	a.cut()
	b := n.dial(t).connect("/", fmt.Sprintf(`{"name":"bea","pid":%q}`, a.pid))
	if got := b.call(`["who"]`); b.sid != a.sid || got != `["bea"]` {
		t.Error(got)
	}
}

func TestSocketRecoversAfterACut(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	a := n.client(t)
	a.call(`["join","r"]`)
	n.Socket(a.sid).Cut()
	<-a.closed
	for len(a.in) > 0 {
		if m := <-a.in; strings.HasPrefix(m, "41") {
			t.Error("the client was disconnected, and does not reconnect after that")
		}
	}
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	b := n.back(t, a)
	if b.sid != a.sid {
		t.Error("not recovered")
	}
	b.want(numbered(1))
}

// OnRoom reports the rooms of a client that recovers on another node, and their end when it
// has left.
func TestRoomEventsOfARecovery(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1, n2 := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{})
	screened(n1.Namespace)
	screened(n2.Namespace)
	events := make(chan RoomEvent, 100)
	n2.OnRoom(func(e RoomEvent) { events <- e })
	a := n1.enter(t, pass{Rooms: []string{"x"}})
	a.cut()
	b := n2.reenter(t, a, pass{Rooms: []string{"y"}})
	b.write("41")
	for _, want := range []RoomEvent{
		{RoomCreated, "x", a.sid}, {RoomJoined, "x", a.sid}, {RoomCreated, "y", a.sid}, {RoomJoined, "y", a.sid},
		{RoomLeft, "x", a.sid}, {RoomDeleted, "x", a.sid}, {RoomLeft, "y", a.sid}, {RoomDeleted, "y", a.sid},
	} {
		if got := <-events; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// A command that came while the client was disconnected is executed at its position, also
// if a middleware joins the same room, and the middleware's decision takes precedence in
// the end.
func TestCommandsAndMiddlewaresMeet(t *testing.T) {
	n := start(t, Options{})
	screened(n.Namespace)
	a := n.enter(t, pass{Rooms: []string{"taken"}})
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	must(t, n.ToSocket(a.sid).SocketsJoin(t.Context(), "given"))
	must(t, n.To("given").Emit(t.Context(), "n", 1))
	must(t, n.ToSocket(a.sid).SocketsLeave(t.Context(), "taken"))
	must(t, n.To("taken").Emit(t.Context(), "n", 2))
	b := n.reenter(t, a, pass{Rooms: []string{"given", "taken"}})
	b.want(numbered(1))
	b.inRooms(n, "given", "taken")
	must(t, n.To("taken").Emit(t.Context(), "n", 3))
	b.want(numbered(3))
	b.cut()
	must(t, n.To("given").Emit(t.Context(), "n", 4))
	d := n.reenter(t, b, pass{May: []string{}}) // given is joined by the command
	d.want(numbered(4))
	d.inRooms(n, "given")
	d.quiet()
}

// Rooms that a middleware joins can be left, and are joined again with each connection. The
// session does not grow without bounds because of that.
func TestLeavingWhatAMiddlewareJoins(t *testing.T) {
	n := start(t, Options{RoomsPerSocket: 1})
	screened(n.Namespace)
	a := n.enter(t, pass{Rooms: []string{"r"}})
	for range staysPerRoom - 1 {
		a.call(`["leave","r"]`)
		a.cut()
		a = n.reenter(t, a, pass{Rooms: []string{"r"}})
	}
	a.call(`["leave","r"]`)
	a.cut()
	b := n.dial(t).connect("/", fmt.Sprintf(`{"rooms":["r"],"pid":%q}`, a.pid))
	if b.sid == a.sid || n.Stats().Recoveries[refusedRooms] != 1 {
		t.Errorf("recovered: %v", n.Stats().Recoveries)
	}
	b.inRooms(n, "r")
}

// A socket that has left its namespace is not cut, because other sockets use the
// connection.
func TestCutOfASocketThatIsGone(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	other := n.Of("/other")
	w := n.dial(t)
	w.connect("/other", "")
	s := other.Socket(w.sid)
	w.connect("/", "")
	left := make(chan struct{})
	s.OnDisconnecting(func(Reason) {
		s.Cut()
		close(left)
	})
	w.write("41/other,")
	<-left
	w.quiet()
}
