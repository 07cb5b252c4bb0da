package forward

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A drain waits for the polls in flight, because cutting them would end their sessions.
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
	go func() { drained <- near.Drain(t.Context(), patience) }()
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
		t.Errorf("polled %s, want 4answered<nil>", got)
	}
	if err := receive(t, drained); err != nil {
		t.Error(err)
	}
}

// A drain makes the owners close their WebSockets, and waits for the end of polls.
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
		if got := read(t, ws); got != "4last words" {
			t.Errorf(`got %q before the end, want "4last words"`, got)
		}
		closedWell(t, ws)
	}
	if n := len(owner.asked); n != len(sockets) {
		t.Errorf("the owner was asked %d times, want %d", n, len(sockets))
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
		t.Errorf("drain: %v, want errClosed", err)
	}
	near.mu.Lock()
	delete(near.passages, held)
	near.mu.Unlock()
}

// Events that the owner is still handling are completed and their answers delivered. Only
// then does the WebSocket end.
func TestDrainWaitsForTheOwner(t *testing.T) {
	c := setUp(t, 2, nil)
	owner, near := c.nodes[0], c.nodes[1]
	owner.mayLeave = make(chan struct{})
	sid := c.open(owner)
	ws := c.move(near, sid)
	drained := make(chan error, 1)
	go func() { drained <- near.Drain(t.Context(), 0) }()
	if got := receive(t, owner.asked); got != sid {
		t.Errorf("asked for %s, not %s", got, sid)
	}
	write(t, ws, "4still served")
	if got := read(t, ws); got != "4still served" {
		t.Errorf(`got %q, want "4still served"`, got)
	}
	close(owner.mayLeave)
	if got := read(t, ws); got != "4last words" {
		t.Errorf(`got %q, want "4last words"`, got)
	}
	closedWell(t, ws)
	if err := receive(t, drained); err != nil {
		t.Error(err)
	}
}

// The WebSocket is cut if its owner does not disconnect the client in time, is unreachable,
// or does not know the request.
func TestDrainCutsWhatItsOwnerKeeps(t *testing.T) {
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	for name, spoil := range map[string]func(c *cluster, owner *node){
		"slow":  func(_ *cluster, owner *node) { owner.mayLeave = make(chan struct{}) },
		"gone":  func(c *cluster, owner *node) { c.book.set(owner.id, closedPort(t)) },
		"older": func(c *cluster, owner *node) { c.book.set(owner.id, stranger.Listener.Addr().String()) },
	} {
		t.Run(name, func(t *testing.T) {
			c := setUp(t, 2, nil)
			owner, near := c.nodes[0], c.nodes[1]
			ws := c.move(near, c.open(owner))
			spoil(c, owner)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			drained := make(chan error, 1)
			go func() { drained <- near.Drain(ctx, 0) }()
			if name == "slow" {
				receive(t, owner.asked)
				cancel()
			}
			err := receive(t, drained)
			if name != "slow" && err != nil {
				t.Error(err)
			}
			if _, _, err := ws.ReadMessage(); err == nil {
				t.Error("the WebSocket is still open")
			}
			until(t, func() bool { return near.Stats().Open == 0 })
		})
	}
}

// Only nodes of the cluster can disconnect clients.
func TestLeavingIsSigned(t *testing.T) {
	c := setUp(t, 2, nil)
	owner, near := c.nodes[0], c.nodes[1]
	sid := c.open(owner)
	send := func(change func(*http.Request)) int {
		r, err := http.NewRequestWithContext(t.Context(), "POST", owner.internal.URL+LeavePath+"?sid="+sid, nil)
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		res, err := c.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for name, change := range map[string]func(*http.Request){
		"not signed": func(*http.Request) {},
		"for another session": func(r *http.Request) {
			near.sign(r, owner.id, "")
			r.URL.RawQuery += "x"
		},
		"for another node": func(r *http.Request) { near.sign(r, near.id, "") },
	} {
		if status := send(change); status != http.StatusForbidden || len(owner.asked) > 0 {
			t.Errorf("%s: status %d", name, status)
		}
	}
	if status := send(func(r *http.Request) { near.sign(r, owner.id, "") }); status != http.StatusNoContent || receive(t, owner.asked) != sid {
		t.Errorf("status %d", status)
	}
}

// A request that names two sessions is for the second, as in engineio, so that a client cannot
// disconnect the session of another client.
func TestSessionID(t *testing.T) {
	for query, want := range map[string]string{"": "", "sid=a": "a", "sid=victim&sid=own": "own"} {
		if got := sessionID(httptest.NewRequest(http.MethodGet, "/socket.io/?"+query, nil)); got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
}
