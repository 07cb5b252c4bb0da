package socketio

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// closes waits until the connection is closed, and fails if a message arrives before.
func (w *wire) closes() {
	w.t.Helper()
	select {
	case <-w.closed:
	case <-time.After(patience):
		w.t.Fatal("the connection stays open")
	}
	select {
	case m := <-w.in:
		w.t.Fatalf("got %q, want a closed connection", m)
	default:
	}
}

// A refusal for a temporary reason closes the connection, because stock clients do not
// retry after CONNECT_ERROR.
func TestTemporaryRefusal(t *testing.T) {
	n := start(t, Options{})
	var down atomic.Bool
	down.Store(true)
	n.Use(func(context.Context, *ConnectRequest) error {
		if down.Load() {
			return fmt.Errorf("look up the user: %w", ErrTemporary)
		}
		return nil
	})
	w := n.dial(t)
	w.write("40")
	w.closes()
	if got := n.Stats().ConnectsPostponed; got != 1 {
		t.Errorf("%d connects were counted as postponed, want 1", got)
	}
	down.Store(false)
	n.client(t)
}

// A definite refusal is a CONNECT_ERROR, and the connection stays.
func TestDefiniteRefusal(t *testing.T) {
	n := start(t, Options{})
	n.Of("/closed").Use(func(context.Context, *ConnectRequest) error { return &ConnectError{Message: "no"} })
	w := n.client(t)
	joining(n.Namespace)
	w.write("40/closed,")
	if m, want := w.next(), `44/closed,{"message":"no"}`; m != want {
		t.Fatalf("got %s, want %s", m, want)
	}
	w.quiet()
}

// A temporary refusal of one namespace leaves the connected ones in place for a while, and
// then closes the connection.
func TestTemporaryRefusalOfOneNamespace(t *testing.T) {
	open := func(delay time.Duration) (*testNode, *wire) {
		n := start(t, Options{})
		n.retryDelay = delay
		joining(n.Namespace)
		n.Of("/down").Use(func(context.Context, *ConnectRequest) error { return ErrTemporary })
		return n, n.client(t)
	}
	n, w := open(time.Hour)
	for i := range uint64(3) { // a client may retry on the same connection
		w.write("40/down,")
		eventually(t, "it is postponed", func() bool { return n.Stats().ConnectsPostponed == i+1 })
	}
	w.quiet()

	n, w = open(time.Millisecond)
	w.write("40/down,")
	w.closes()
	if back := n.back(t, w); back.sid != w.sid {
		t.Error("the connected socket was not recovered")
	}
}

// A client that leaves a namespace before it is connected keeps its connection.
func TestLeavingBeforeConnect(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	entered, goOn := make(chan struct{}), make(chan struct{})
	n.Of("/slow").Use(func(context.Context, *ConnectRequest) error {
		close(entered)
		<-goOn
		return nil
	})
	w := n.client(t)
	w.write("40/slow,")
	<-entered
	w.write("41/slow,")
	w.quiet() // the DISCONNECT has been read
	close(goOn)
	eventually(t, "the socket has ended", func() bool {
		return n.Stats().Sockets == 1 && clientsIn(n, "/slow") == 0
	})
	w.quiet()
}

func clientsIn(n *testNode, name string) int {
	n.Server.mu.Lock()
	defer n.Server.mu.Unlock()
	return n.namespaces[name].clients
}

// The text of a temporary error does not reach the client.
func TestTemporaryErrorIsNotShown(t *testing.T) {
	n := start(t, Options{})
	n.Use(func(context.Context, *ConnectRequest) error {
		return fmt.Errorf("postgres://user:secret@db: %w", ErrTemporary)
	})
	c := n.handshakeOf(t, "EIO=4&transport=polling", "")
	c.send("40")
	if m := c.next(); strings.Contains(m, "secret") || m != "1" {
		t.Errorf("got %q, want a close packet", m)
	}
}

// An unreachable adapter, once armed, fails to subscribe after its release.
type unreachable struct {
	adapter.Adapter
	adapter.ProgressReporter
	armed       atomic.Bool
	asked, goOn chan struct{}
}

func (a *unreachable) Subscribe(ctx context.Context, list ...rooms.Room) (adapter.Cursor, error) {
	if !a.armed.Load() {
		return a.Adapter.Subscribe(ctx, list...)
	}
	a.asked <- struct{}{}
	<-a.goOn
	return adapter.Cursor{}, adapter.ErrUnavailable
}

// Events published during a failed connect do not reach the client: stock clients buffer
// events before CONNECT, and would deliver them when they are connected.
func TestNothingReachesAClientThatIsNotConnected(t *testing.T) {
	memory, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("node")
	must(t, err)
	t.Cleanup(func() { _ = memory.Close() })
	a := &unreachable{Adapter: memory, ProgressReporter: memory.(adapter.ProgressReporter), asked: make(chan struct{}), goOn: make(chan struct{})}
	n := start(t, Options{Adapter: a})
	other := n.client(t)
	a.armed.Store(true)
	w := n.dial(t)
	w.write("40")
	<-a.asked
	must(t, n.Local().Emit(t.Context(), "local"))
	must(t, n.Emit(t.Context(), "stored"))
	other.want(`["local"]`, `["stored"]`) // they have been offered to both
	a.goOn <- struct{}{}
	w.closes()
}

// A query does not wait for a socket that was never connected.
func TestAQueryToAClientThatIsNotConnected(t *testing.T) {
	for what, cause := range map[string]error{"postponed": errors.New("unavailable"), "refused": session.ErrTooLarge} {
		t.Run(what, func(t *testing.T) {
			store := &creating{Store: session.NewMemory(), asked: make(chan struct{}), goOn: make(chan error)}
			n := start(t, Options{Sessions: store})
			other := n.client(t)
			store.armed.Store(true)
			w := n.dial(t)
			w.write("40")
			<-store.asked
			answers, err := n.Timeout(time.Hour).ExceptSocket(other.sid).EmitWithAck(t.Context(), "question")
			must(t, err)
			must(t, n.Emit(t.Context(), "passed"))
			other.want(`["passed"]`) // the feed has reached the query
			store.goOn <- cause
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for _, err := range answers.All() {
					if err == nil {
						t.Error("answered")
					}
				}
			}()
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatal("it waits for an answer")
			}
		})
	}
}

// A creating store, once armed, fails to create a session with a given error.
type creating struct {
	session.Store
	armed atomic.Bool
	asked chan struct{}
	goOn  chan error
}

func (s *creating) Create(ctx context.Context, v session.Session, ttl time.Duration) error {
	if !s.armed.Load() {
		return s.Store.Create(ctx, v, ttl)
	}
	s.asked <- struct{}{}
	return <-s.goOn
}
