package socketio

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// The context of a handler ends while the handler runs, for any end of the socket, with the
// reason as its cause. OnDisconnect runs once the handler has returned.
func TestHandlerContextEndsWithTheSocket(t *testing.T) {
	for name, test := range map[string]struct {
		end    func(t *testing.T, n *testNode, w *wire)
		reason Reason
	}{
		"connection lost":    {func(_ *testing.T, _ *testNode, w *wire) { w.cut() }, TransportClose},
		"client disconnects": {func(_ *testing.T, _ *testNode, w *wire) { w.write("41") }, ClientDisconnect},
		"protocol violation": {func(_ *testing.T, _ *testNode, w *wire) { w.write("4x") }, ForcedClose},
		"server disconnects": {func(_ *testing.T, n *testNode, w *wire) { n.Socket(w.sid).Disconnect(false) }, ServerDisconnect},
		"server closes all":  {func(_ *testing.T, n *testNode, w *wire) { n.Socket(w.sid).Disconnect(true) }, ServerDisconnect},
		"server cuts":        {func(_ *testing.T, n *testNode, w *wire) { n.Socket(w.sid).Cut() }, TransportClose},
		"DisconnectSockets":  {func(t *testing.T, n *testNode, _ *wire) { must(t, n.DisconnectSockets(t.Context(), true)) }, ServerDisconnect},
		"Close":              {func(t *testing.T, n *testNode, _ *wire) { must(t, n.Close(t.Context())) }, ServerShutdown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, Options{})
			began, cause := make(chan struct{}), make(chan error, 1)
			disconnected := make(chan Reason, 1)
			n.OnConnect(func(s *Socket) {
				s.OnDisconnect(func(r Reason) { disconnected <- r })
			})
			n.On("wait", func(ctx context.Context, _ *Event) error {
				close(began)
				select {
				case <-ctx.Done():
				case <-time.After(patience / 2): // or Close would hang with the test
				}
				cause <- context.Cause(ctx)
				return nil
			})
			w := n.client(t)
			w.write(`42["wait"]`)
			<-began
			test.end(t, n, w)
			err := <-cause
			gone := (*DisconnectError)(nil)
			if !errors.Is(err, ErrDisconnected) || !errors.As(err, &gone) || gone.Reason != test.reason || gone.Moved {
				t.Errorf("cause %v, want reason %q", err, test.reason)
			}
			if r := <-disconnected; r != test.reason {
				t.Errorf("OnDisconnect: reason %q, want %q", r, test.reason)
			}
		})
	}
}

// The context of a socket whose client reconnected ends as well. OnDisconnect does not run,
// so only the cause reports it.
func TestHandlerContextEndsWhenTheClientMoves(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1, n2 := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{})
	began, cause := make(chan struct{}), make(chan error, 1)
	n1.On("wait", func(ctx context.Context, _ *Event) error {
		close(began)
		select {
		case <-ctx.Done():
		case <-time.After(patience / 2):
		}
		cause <- context.Cause(ctx)
		return nil
	})
	a := n1.client(t)
	a.write(`42["wait"]`)
	<-began
	n2.back(t, a)
	gone := (*DisconnectError)(nil)
	if err := <-cause; !errors.As(err, &gone) || !gone.Moved {
		t.Errorf("cause %v, want one that says that the client has moved", err)
	}
}

// A middleware's context ends immediately when its client leaves.
func TestMiddlewareContextEndsWithTheConnection(t *testing.T) {
	n := start(t, Options{})
	began, cause := make(chan struct{}), make(chan error, 1)
	n.Use(func(ctx context.Context, _ *ConnectRequest) error {
		close(began)
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return ctx.Err()
	})
	w := n.dial(t)
	w.write("40")
	<-began
	w.cut()
	gone := (*DisconnectError)(nil)
	if err := <-cause; !errors.As(err, &gone) || gone.Reason != TransportClose {
		t.Errorf("cause %v", err)
	}
}

// An event that a client sends right before it disconnects is handled with a context that
// can still be used: the last message of a client that leaves is not lost.
func TestLastEventsOfALeavingClient(t *testing.T) {
	n := start(t, Options{})
	n.On("chat", func(ctx context.Context, e *Event) error {
		<-e.Socket().client.conn.Context().Done() // the socket has ended, or is about to
		return n.Emit(ctx, "n", e.Raw(0))
	})
	a, b := n.client(t), n.client(t)
	for i := range 3 {
		a.write(`42["chat",` + string(rune('0'+i)) + `]`)
	}
	a.write("41")
	a.cut()
	b.want(numbered(0), numbered(1), numbered(2))
}
