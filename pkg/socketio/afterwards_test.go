package socketio

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A caller's change of a socket after a command takes effect after the command.
func TestJoinAndLeaveAfterCommands(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	w := n.client(t)
	s, ctx := n.Socket(w.sid), t.Context()
	for i := range 50 {
		must(t, n.SocketsJoin(ctx, "r"))
		must(t, s.Leave(ctx, "r"))
		must(t, n.To("r").Emit(ctx, "left", i))
		must(t, s.Join(ctx, "r"))
		must(t, n.SocketsLeave(ctx, "r"))
		must(t, s.Join(ctx, "r"))
		must(t, n.To("r").Emit(ctx, "n", i))
		w.want(numbered(i))
	}
	w.quiet()
}

// A change waits until commands that the feed has reached are stored, and ends with the
// socket.
func TestAChangeWaitsForCommands(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	a, err := c.memory.Node("a")
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	store := &slowSaves{c.sessions, make(chan struct{}, 10), make(chan struct{})}
	n := start(t, Options{Adapter: a, Sessions: store})
	w := n.client(t)
	s := n.Socket(w.sid)
	done, err := s.change(t.Context())
	must(t, err)
	must(t, n.SocketsJoin(t.Context(), "a"))
	must(t, n.SocketsJoin(t.Context(), "r")) // the gate holds it
	left := make(chan error)
	go func() { left <- s.Leave(context.Background(), "r") }()
	done()
	close(store.release)
	must(t, <-left)
	if s.InRoom("r") || !s.InRoom("a") {
		t.Errorf("in %v", s.Rooms())
	}
	s.mu.Lock()
	s.gate.shut++
	s.mu.Unlock()
	go func() { left <- s.Leave(context.Background(), "a") }()
	eventually(t, "it waits", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.opened != nil })
	s.end(ServerShutdown)
	if err := <-left; err == nil {
		t.Error("left after the end")
	}
}

// A command of this node alone ends a stay that has begun ahead of the feed.
func TestLocalSocketsLeaveAfterJoin(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	w := n.client(t)
	must(t, n.Socket(w.sid).Join(t.Context(), "r"))
	must(t, n.Local().SocketsLeave(t.Context(), "r"))
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	w.quiet()
}

// droplessSessions can't end a session.
type droplessSessions struct{ session.Store }

func (droplessSessions) Drop(context.Context, session.Ref) error { return context.DeadlineExceeded }

// No event passes a disconnect: a client whose session could not be ended has no offset
// behind the disconnect, and a recovery reaches it.
func TestNothingPassesADisconnect(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	c.sessions = droplessSessions{c.sessions}
	n := c.node(t, "a", Options{})
	w := n.client(t)
	s := n.Socket(w.sid)
	must(t, n.Emit(t.Context(), "n", 0))
	w.want(numbered(0))
	s.mu.Lock()
	s.gate.shut++
	s.mu.Unlock()
	must(t, s.Self().DisconnectSockets(t.Context(), false))
	must(t, n.Emit(t.Context(), "n", 1))
	eventually(t, "held", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.gate.held) == 2 })
	s.mu.Lock()
	s.openGate()
	s.mu.Unlock()
	if m := w.next(); m != "41" {
		t.Errorf("got %q, want a disconnect", m)
	}
	eventually(t, "it has ended", func() bool { return n.Len() == 0 })
	w.cut()
	if n.back(t, w).sid == w.sid {
		t.Error("recovered")
	}
}

// behindCluster is a node that publishes, and one whose feed can be held.
func behindCluster(t *testing.T) (n1, n2 *testNode, feed *delayed) {
	c := newCluster(adapter.MemoryOptions{})
	n1 = c.node(t, "a", Options{})
	inner, err := c.memory.Node("b")
	must(t, err)
	t.Cleanup(func() { _ = inner.Close() })
	feed = newDelayed(inner)
	n2 = start(t, Options{Adapter: feed, Sessions: c.sessions})
	joining(n1.Namespace)
	joining(n2.Namespace)
	return n1, n2, feed
}

// SocketsLeave ends the membership by an older SocketsJoin of a socket that has joined the
// room by itself meanwhile, on a node that has reached neither command.
func TestSocketsLeaveBeforeAJoinThatTheNodeHasNotComeTo(t *testing.T) {
	for _, cut := range []bool{false, true} {
		n1, n2, feed := behindCluster(t)
		ctx := t.Context()
		w := n2.client(t)
		must(t, n1.Emit(ctx, "n", 0))
		w.want(numbered(0))
		release := feed.shut()
		must(t, n1.SocketsJoin(ctx, "r"))
		must(t, n1.To("r").Emit(ctx, "n", 1))
		must(t, n1.SocketsLeave(ctx, "r"))
		must(t, n1.To("r").Emit(ctx, "left"))
		must(t, n1.Except("r").Emit(ctx, "n", 2))
		must(t, n2.Socket(w.sid).Join(ctx, "r"))
		if cut {
			w.cut()
			w = n1.back(t, w)
		}
		release()
		w.want(numbered(1), numbered(2))
		must(t, n1.To("r").Emit(ctx, "n", 3))
		w.want(numbered(3))
		w.quiet()
	}
}

// A client that leaves a room right behind a command does not get the room's events up to
// its next join.
func TestLeaveRightBehindSocketsJoin(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	w := n.client(t)
	s, ctx := n.Socket(w.sid), t.Context()
	must(t, s.Join(ctx, "r"))
	must(t, n.Emit(ctx, "n", 0))
	w.want(numbered(0))
	must(t, n.SocketsJoin(ctx, "r"))
	must(t, s.Leave(ctx, "r"))
	must(t, n.To("r").Emit(ctx, "left"))
	must(t, s.Join(ctx, "r"))
	w.cut()
	b := n.back(t, w)
	b.quiet()
	if b.sid != w.sid {
		t.Error("not recovered")
	}
}

// A command waits for the feed also if its only target is still being joined to the room by
// the previous command.
func TestACommandIsAwaitedForAJoiningMember(t *testing.T) {
	n, feed := startDelayed(t, Options{})
	w := n.client(t)
	s := n.Socket(w.sid)
	done, err := s.change(t.Context())
	must(t, err)
	must(t, n.ToSocket(w.sid).SocketsJoin(t.Context(), "r")) // the socket can't complete it yet
	release := feed.shut()
	left := make(chan error)
	go func() { left <- n.To("r").SocketsLeave(t.Context(), "other") }()
	eventually(t, "it waits", func() bool {
		n.feed.mu.Lock()
		defer n.feed.mu.Unlock()
		return n.feed.waits.n > 0
	})
	release()
	must(t, <-left)
	done()
}

// A change ends with a socket that is never connected.
func TestAChangeEndsWithASocketThatIsNotConnected(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	a, err := c.memory.Node("a")
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	store := &failingCreates{c.sessions, make(chan struct{})}
	n := start(t, Options{Adapter: a, Sessions: store})
	entering := make(chan *Socket, 1)
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		entering <- r.socket
		return nil
	})
	for range 30 { // either of the two may be first
		n.dial(t).write("40")
		s := <-entering
		eventually(t, "it is placed", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.placed })
		joined := make(chan error, 1)
		go func() { joined <- s.Join(context.Background(), "r") }()
		store.fail <- struct{}{}
		select {
		case err := <-joined:
			if err == nil {
				t.Error("joined after the end")
			}
		case <-time.After(patience):
			t.Fatal("Join has not returned")
		}
	}
}

// failingCreates is a store that cannot create sessions, and returns when fail does.
type failingCreates struct {
	session.Store
	fail chan struct{}
}

func (f *failingCreates) Create(context.Context, session.Session, time.Duration) error {
	<-f.fail
	return errors.New("not created")
}
