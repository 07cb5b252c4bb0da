package socketio

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// closes waits until the connection is closed, and fails if anything comes before.
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

// A refusal for a reason that passes closes the connection, because stock clients
// do not try again after CONNECT_ERROR.
func TestTemporaryRefusal(t *testing.T) {
	n := start(t, Options{})
	var down atomic.Bool
	down.Store(true)
	n.Use(func(context.Context, *Socket) error {
		if down.Load() {
			return fmt.Errorf("look up the user: %w", ErrTemporary)
		}
		return nil
	})
	w := n.dial(t)
	w.write("40")
	w.closes()
	if got := n.Stats().ConnectsPostponed; got != 1 {
		t.Errorf("%d connects were counted as postponed", got)
	}
	down.Store(false)
	n.client(t)
}

// A definite refusal is a CONNECT_ERROR, and the connection stays.
func TestDefiniteRefusal(t *testing.T) {
	n := start(t, Options{})
	n.Of("/closed").Use(func(context.Context, *Socket) error { return &ConnectError{Message: "no"} })
	w := n.client(t)
	joining(n.Namespace)
	w.write("40/closed,")
	if m, want := w.next(), `44/closed,{"message":"no"}`; m != want {
		t.Fatalf("got %s, want %s", m, want)
	}
	w.quiet()
}

// A temporary refusal of one namespace leaves those that are connected in place for
// a while, and closes the connection then.
func TestTemporaryRefusalOfOneNamespace(t *testing.T) {
	open := func(delay time.Duration) (*testNode, *wire) {
		n := start(t, Options{})
		n.retryDelay = delay
		joining(n.Namespace)
		n.Of("/down").Use(func(context.Context, *Socket) error { return ErrTemporary })
		return n, n.client(t)
	}
	n, w := open(time.Hour)
	for i := range uint64(3) { // a client may ask again on the same connection
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
	n.Of("/slow").Use(func(context.Context, *Socket) error {
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

// Nothing of a temporary error reaches the client.
func TestTemporaryErrorIsNotShown(t *testing.T) {
	n := start(t, Options{})
	n.Use(func(context.Context, *Socket) error {
		return fmt.Errorf("postgres://user:secret@db: %w", ErrTemporary)
	})
	c := n.handshakeOf(t, "EIO=4&transport=polling", "")
	c.send("40")
	if m := c.next(); strings.Contains(m, "secret") || m != "1" {
		t.Errorf("got %q, want a close packet", m)
	}
}
