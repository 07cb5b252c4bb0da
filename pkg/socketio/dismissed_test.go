package socketio

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A placing adapter reports each Subscribe, for which a socket has been placed.
type placing struct {
	adapter.Adapter
	placed func()
}

func (a *placing) Subscribe(ctx context.Context, list ...rooms.Room) (adapter.Cursor, error) {
	if a.placed != nil {
		a.placed()
	}
	return a.Adapter.Subscribe(ctx, list...)
}

// dismiss does the same as a Disconnect(true) of another socket of the connection to one that is
// not connected yet, before it closes the connection.
func (s *Socket) dismiss() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dismissed = true
}

// If another socket disconnects the client with its connection at any moment while this one connects,
// the client is disconnected here, too: it is told that it is connected, and then that it is not, and
// does not reconnect.
func TestDismissedWhileConnecting(t *testing.T) {
	for _, when := range []string{"in a middleware", "placed", "placed, recovering"} {
		t.Run(when, func(t *testing.T) {
			inner, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("node")
			must(t, err)
			t.Cleanup(func() { _ = inner.Close() })
			a := &placing{Adapter: inner}
			n := start(t, Options{Adapter: a})
			ended := make(chan Reason, 1)
			var active atomic.Bool
			n.Use(func(_ context.Context, r *ConnectRequest) error {
				switch {
				case !active.Load():
				case when == "in a middleware":
					r.socket.dismiss()
				default:
					a.placed = r.socket.dismiss
				}
				return nil
			})
			greeted := make(chan struct{}, 3)
			n.OnConnect(func(s *Socket) {
				if active.Load() {
					s.OnDisconnect(func(r Reason) { ended <- r })
				}
				greeted <- struct{}{}
			})
			was := &wire{ns: "/"}
			if when == "placed, recovering" {
				was = n.client(t)
				<-greeted
				was.cut()
			}
			active.Store(true)
			w := n.back(t, was)
			if m := w.next(); m != "41" {
				t.Fatalf("got %q behind the answer to CONNECT, want a DISCONNECT", m)
			}
			if r := <-ended; r != ServerDisconnect {
				t.Errorf("OnDisconnect: %q, want %q", r, ServerDisconnect)
			}
			w.gone()
			active.Store(false)
			a.placed = nil
			if again := n.back(t, w); again.sid == w.sid {
				t.Error("it is recovered")
			}
		})
	}
}

// A client that is disconnected while it is being recovered is not recovered later either, if
// its connection ends before it is told.
func TestDisconnectWhileRecoveringAndCut(t *testing.T) {
	inner, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("node")
	must(t, err)
	t.Cleanup(func() { _ = inner.Close() })
	a := &placing{Adapter: inner}
	n := start(t, Options{Adapter: a})
	var active bool
	placed, cut := make(chan struct{}), make(chan struct{})
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		if active {
			a.placed = func() {
				a.placed = nil
				r.socket.dismiss()
				close(placed)
				<-cut
				<-r.socket.client.conn.Context().Done()
			}
		}
		return nil
	})
	was := n.client(t)
	was.cut()
	active = true
	w := n.dial(t)
	w.write(fmt.Sprintf(`40{"pid":%q}`, was.pid))
	<-placed
	w.cut()
	close(cut)
	active = false
	if back := n.back(t, was); back.sid == was.sid {
		t.Error("it is recovered")
	}
}

// A client that is disconnected in all namespaces is not recovered in one in which it was
// being recovered, at any time before CONNECT.
func TestDisconnectOfAllNamespacesWhileRecoveringInOne(t *testing.T) {
	for _, when := range []string{"claimed", "placed"} {
		t.Run(when, func(t *testing.T) {
			inner, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("node")
			must(t, err)
			t.Cleanup(func() { _ = inner.Close() })
			a := &placing{Adapter: inner}
			store := &claiming{Store: session.NewMemory(), dropped: make(chan string, 10)}
			n := start(t, Options{Adapter: a, Sessions: store})
			n.Of("/b")
			was := n.dial(t).connect("/b", "")
			was.cut()
			eventually(t, "the client is disconnected", func() bool { return n.Of("/b").Len() == 0 })
			w := n.client(t)
			s := n.Socket(w.sid)
			disconnect := func() {
				store.claimed, a.placed = nil, nil
				s.Disconnect(true)
				<-s.client.conn.Context().Done()
				if when == "placed" && !n.owned.over(was.pid) {
					t.Error("its session is not over")
				}
			}
			if when == "claimed" {
				store.claimed = disconnect
			} else {
				a.placed = disconnect
			}
			w.write(fmt.Sprintf(`40/b,{"pid":%q}`, was.pid))
			<-w.closed
			if when == "claimed" { // until the node has the answer it knows nothing
				for receive(t, store.dropped) != was.pid { // that of the other namespace
				}
			}
			if back := n.back(t, was); back.sid == was.sid {
				t.Error("it is recovered")
			}
		})
	}
}

// A claiming store reports each claim, and the sessions that are dropped.
type claiming struct {
	session.Store
	claimed func()
	dropped chan string
}

func (c *claiming) Drop(ctx context.Context, ref session.Ref) error {
	defer func() { c.dropped <- ref.PID }()
	return c.Store.Drop(ctx, ref)
}

func (c *claiming) Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
	found, former, err := c.Store.Claim(ctx, pid, by, ttl, check)
	if c.claimed != nil {
		c.claimed()
	}
	return found, former, err
}

// A client that reads its replay slowly is disconnected before the end of the replay, unless
// a held command decides whether the disconnect is for it.
func TestDisconnectDuringAReplay(t *testing.T) {
	for name, disconnect := range map[string]func(n *testNode, sid string) error{
		"Disconnect": func(n *testNode, sid string) error { n.Socket(sid).Disconnect(true); return nil },
		"its room":   func(n *testNode, _ string) error { return n.To("r").DisconnectSockets(context.Background(), true) },
		"Disconnect behind a command": func(n *testNode, sid string) error {
			err := n.ToSocket(sid).SocketsJoin(context.Background(), "other")
			n.Socket(sid).Disconnect(true)
			return err
		},
		"before CONNECT": nil,
	} {
		t.Run(name, func(t *testing.T) {
			n, shared := startRemote(t, 1)
			n.replays.patience = time.Hour
			w, witness := n.client(t), n.client(t)
			w.call(`["join","r"]`)
			witness.call(`["join","r"]`)
			w.cut()
			for i := range 20 {
				must(t, n.To("r").Emit(t.Context(), "n", i, strings.Repeat("x", 50_000)))
			}
			for range 20 { // so that the feed has passed them: the gate can't hold all
				witness.event()
			}
			shared.waits.Store(true)
			reading, goOn := make(chan struct{}), make(chan struct{})
			if disconnect == nil {
				n.adapter.(*remoteAdapter).reading = func() {
					n.adapter.(*remoteAdapter).reading = nil
					close(reading)
					<-goOn
				}
			}
			back := n.dial(t)
			back.write(fmt.Sprintf(`40{"pid":%q}`, w.pid))
			if disconnect == nil {
				<-reading
				must(t, n.ToSocket(w.sid).DisconnectSockets(t.Context(), true))
				eventually(t, "it is held", func() bool { return n.holds(w.sid, kindDisconnect) })
				close(goOn)
			}
			back.connected()
			if disconnect != nil {
				<-shared.waiting
				must(t, disconnect(n, back.sid))
			}
			for m := range back.in {
				if m == "41" {
					break
				}
			}
			back.gone()
			shared.waits.Store(false)
			n.recoveries.mu.Lock()
			n.recoveries.due = nil
			n.recoveries.mu.Unlock()
			if again := n.back(t, w); again.sid == w.sid {
				t.Error("it is recovered")
			}
		})
	}
}

// holds reports whether the gate of a socket holds an event of a kind.
func (n *testNode) holds(sid string, kind uint8) bool {
	for s := range n.index.Members(rooms.InOwn("/", sid)) {
		s.mu.Lock()
		held := slices.ContainsFunc(s.gate.held, func(d *delivery) bool { return d.ev.Kind == kind })
		s.mu.Unlock()
		if held {
			return true
		}
	}
	return false
}

// A client that is to be disconnected as soon as it is connected is not recovered if its
// connection ends before that.
func TestConnectionEndsBeforeADismissedSocketIsDisconnected(t *testing.T) {
	n := start(t, Options{})
	reasons := make(chan Reason, 1)
	n.OnConnect(func(s *Socket) { s.OnDisconnect(func(r Reason) { reasons <- r }) })
	w := n.client(t)
	s := n.Socket(w.sid)
	s.dismiss() // and the steps after CONNECT have not reached it
	w.cut()
	if got := receive(t, reasons); got != ServerDisconnect {
		t.Errorf("disconnected by %q, want %q", got, ServerDisconnect)
	}
	eventually(t, "it has ended", func() bool { return n.Len() == 0 })
	if n.back(t, w).sid == w.sid {
		t.Error("recovered")
	}
}
