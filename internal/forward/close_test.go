package forward

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// What the owner says before it closes arrives, and so does the close.
func TestOwnerClosesWebSocket(t *testing.T) {
	c := setUp(t, 2, nil)
	ws := c.move(c.nodes[1], c.open(c.nodes[0]))
	conn := receive(t, c.nodes[0].conns)
	if err := conn.Send(engineio.Text([]byte("goodbye"))); err != nil {
		t.Fatal(err)
	}
	conn.Close(engineio.ForcedClose)
	if got := read(t, ws); got != "4goodbye" {
		t.Errorf("got %q", got)
	}
	for {
		_, _, err := ws.ReadMessage()
		if closed := (*websocket.CloseError)(nil); errors.As(err, &closed) {
			break
		}
		if err != nil {
			t.Fatalf("ended by %v, not by a close frame", err)
		}
	}
	// The client keeps its side open, and is not waited for.
	until(t, func() bool { return c.nodes[1].Stats().Open == 0 })
}

func TestClientClosesWebSocket(t *testing.T) {
	c := setUp(t, 2, nil)
	ws := c.move(c.nodes[1], c.open(c.nodes[0]))
	ws.Close()
	receive(t, c.nodes[0].ends)
	until(t, func() bool { return c.nodes[1].Stats().Open == 0 })
}

// A client that takes nothing holds neither the owner nor the node in between.
func TestClientStopsReading(t *testing.T) {
	c := setUp(t, 2, func(e *engineio.Options, o *Options) {
		e.SendQueueBytes = 64 << 20
		o.Timeout = 500 * time.Millisecond
	})
	c.move(c.nodes[1], c.open(c.nodes[0]))
	conn := receive(t, c.nodes[0].conns)
	flood := engineio.Text([]byte(strings.Repeat("x", 1<<20)))
	for range 32 {
		if conn.Send(flood) != nil {
			break
		}
	}
	receive(t, c.nodes[0].ends)
	until(t, func() bool { return c.nodes[1].Stats().Open == 0 })
}

func TestClose(t *testing.T) {
	c := setUp(t, 2, nil)
	owner, near := c.nodes[0], c.nodes[1]
	ws := c.move(near, c.open(owner))
	sid := c.open(owner)
	answers := make(chan string, 1)
	go func() {
		_, body, err := c.try(near, "GET", sid, "")
		if err != nil {
			body = err.Error()
		}
		answers <- body
	}()
	until(t, func() bool { return near.Stats().Open == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 2 {
		if err := near.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := ws.ReadMessage(); err == nil {
		t.Error("the WebSocket is still open")
	}
	if body := receive(t, answers); !strings.HasPrefix(body, `{"code":1,`) {
		t.Errorf("the poll is answered %q", body)
	}
	if n := near.Stats(); n.Open != 0 || n.Forwarded[Failed] != 1 {
		t.Errorf("%+v", n)
	}
	c.unknown(near, c.open(owner))
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	f, err := New(Options{Node: "n000", Secret: secret, Directory: &book{}, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	p := &passage{}
	p.ctx, p.cancel = context.WithCancelCause(t.Context())
	f.enter(p)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v", err)
	}
	f.leave(p)
	if err := f.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
}

// Draining waits for the polls under way, whose sessions it would end otherwise.
func TestDrainWaitsForPolls(t *testing.T) {
	c := setUp(t, 2, nil)
	owner, near := c.nodes[0], c.nodes[1]
	sid := c.open(owner)
	polled := make(chan string, 1)
	go func() {
		_, body, err := c.try(near, "GET", sid, "")
		polled <- fmt.Sprint(body, err)
	}()
	until(t, func() bool { return near.Stats().Open == 1 })
	drained := make(chan error, 1)
	go func() { drained <- near.Drain(t.Context(), 0) }()
	until(t, func() bool {
		near.mu.Lock()
		defer near.mu.Unlock()
		return near.empty != nil
	})
	if len(drained) > 0 {
		t.Error("it did not wait")
	}
	c.expect(owner, "POST", sid, "4answered", "ok")
	if got := receive(t, polled); got != "4answered<nil>" {
		t.Errorf("polled %s", got)
	}
	if err := receive(t, drained); err != nil {
		t.Error(err)
	}
}

// Draining moves the WebSockets and lets polls end by themselves.
func TestDrain(t *testing.T) {
	c := setUp(t, 2, nil)
	owner, near := c.nodes[0], c.nodes[1]
	var sockets []*websocket.Conn
	for range 5 {
		sockets = append(sockets, c.move(near, c.open(owner)))
	}
	polled := c.open(owner)
	if err := near.Drain(t.Context(), 50*time.Millisecond); err != nil {
		t.Error(err)
	}
	for _, ws := range sockets {
		if _, _, err := ws.ReadMessage(); err == nil {
			t.Error("a WebSocket is still open")
		}
	}
	until(t, func() bool { return near.Stats().Open == 0 })
	c.expect(near, "POST", polled, "4still here", "ok")
	c.expect(near, "GET", polled, "", "4still here")
	_, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(near.public.URL, "http")+
		"/engine.io/?EIO=4&transport=websocket&sid="+polled, nil)
	if err == nil {
		t.Error("an upgrade is still forwarded")
	}

	c.move(owner, polled) // at the owner itself
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	held := &passage{upgrade: true}
	held.ctx, held.cancel = context.WithCancelCause(t.Context())
	near.mu.Lock()
	near.passages[held] = struct{}{}
	near.mu.Unlock()
	cancel(errClosed)
	if err := near.Drain(ctx, time.Hour); !errors.Is(err, errClosed) {
		t.Errorf("drain: %v", err)
	}
	near.mu.Lock()
	delete(near.passages, held)
	near.mu.Unlock()
}
