package forward

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// Messages that the owner sends before it closes arrive, and so does the close.
func TestOwnerClosesWebSocket(t *testing.T) {
	c := setUp(t, 2, nil)
	ws := c.move(c.nodes[1], c.open(c.nodes[0]))
	conn := receive(t, c.nodes[0].conns)
	if err := conn.Send(engineio.Text([]byte("goodbye"))); err != nil {
		t.Fatal(err)
	}
	conn.Close(engineio.ForcedClose)
	if got := read(t, ws); got != "4goodbye" {
		t.Errorf(`got %q, want "4goodbye"`, got)
	}
	closedWell(t, ws)
	// A client that keeps its side open is not waited for.
	until(t, func() bool { return c.nodes[1].Stats().Open == 0 })
}

// closedWell reads a WebSocket to its end, which is to be a close frame.
func closedWell(t *testing.T, ws *websocket.Conn) {
	t.Helper()
	for {
		_, _, err := ws.ReadMessage()
		if err == nil {
			continue
		}
		if closed := (*websocket.CloseError)(nil); !errors.As(err, &closed) || closed.Code == websocket.CloseAbnormalClosure {
			t.Fatalf("ended by %v, not by a close frame", err)
		}
		return
	}
}

func TestClientClosesWebSocket(t *testing.T) {
	c := setUp(t, 2, nil)
	ws := c.move(c.nodes[1], c.open(c.nodes[0]))
	ws.Close()
	receive(t, c.nodes[0].ends)
	until(t, func() bool { return c.nodes[1].Stats().Open == 0 })
}

// A client that reads nothing blocks neither the owner nor the forwarding node.
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
		t.Errorf("got %+v, want none open and one failed", n)
	}
	c.expect(near, "GET", c.open(owner), "", "6") // the session still exists: another node must be queried
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
		t.Errorf("close: %v, want context.Canceled", err)
	}
	f.leave(p)
	if err := f.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
}
