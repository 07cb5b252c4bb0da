package forward

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

const (
	busyTimeout = 1500 * time.Millisecond // of the forwarders
	held        = 2 * time.Second         // how long the owners read nothing: longer than that
)

// fill is the number of bytes that the owner accepts from a client that it does not read.
var fill = "4" + strings.Repeat("x", 8<<10-1)

// setUpBusy runs two nodes, of which the first owns a session and reads nothing.
func setUpBusy(t *testing.T) (c *cluster, owner, near *node, sid string) {
	t.Helper()
	c = setUp(t, 2, func(e *engineio.Options, o *Options) {
		e.PingInterval, e.PingTimeout = busyTimeout/20, busyTimeout/2
		e.MaxPayload = large
		o.Timeout = busyTimeout
		e.Use = []func(http.Handler) http.Handler{func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Node", e.NodeID)
				next.ServeHTTP(w, r)
			})
		}}
	})
	owner, near = c.nodes[0], c.nodes[1]
	owner.busy = true
	return c, owner, near, c.open(owner)
}

// A client whose WebSocket runs through another node is not cut while the owner does not
// read it, even if it sends much.
func TestBusyOwnerDoesNotCutItsWebSocket(t *testing.T) {
	t.Parallel()
	c, owner, near, sid := setUpBusy(t)
	ws := c.upgrade(near, sid)
	write(t, ws, "5")
	sent := make(chan error, 1)
	go func() { sent <- flood(ws) }() // ends with the WebSocket
	ended := make(chan error, 1)
	go func() { // ends with the WebSocket
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				ended <- err
				return
			}
		}
	}()
	select {
	case err := <-sent:
		t.Errorf("not everything waits for the owner, which reads nothing: %v", err)
	case err := <-ended:
		t.Errorf("the WebSocket has ended: %v", err)
	case <-time.After(held):
	}
	if n := owner.engine.Stats().WebSocket; n != 1 {
		t.Errorf("the owner has %d WebSockets, want 1", n)
	}
	ws.Close()
	close(owner.mayRead)
}

// flood sends more than the sockets' buffers hold.
func flood(ws *websocket.Conn) error {
	message := make([]byte, large)
	for range 3000 {
		if err := ws.WriteMessage(websocket.BinaryMessage, message); err != nil {
			return err
		}
	}
	return nil
}

// The same for a POST, which the owner answers when it has space for it.
func TestBusyOwnerDoesNotCutItsPOST(t *testing.T) {
	t.Parallel()
	c, owner, near, sid := setUpBusy(t)
	c.expect(near, "POST", sid, fill, "ok")
	answered := make(chan string, 1)
	go func() {
		res, body, err := c.try(near, "POST", sid, "4second")
		if err != nil {
			answered <- err.Error()
			return
		}
		answered <- fmt.Sprint(res.StatusCode, " ", body, " ", res.Header["X-Node"])
	}()
	select {
	case got := <-answered:
		t.Fatalf("answered %q although the owner reads nothing", got)
	case <-time.After(held):
	}
	close(owner.mayRead)
	if got := receive(t, answered); got != "200 ok ["+near.id+"]" {
		t.Errorf("answered %s, want %s", got, "200 ok ["+near.id+"]")
	}
}

// A silent owner is detected, also while a client's bytes or a POST wait for it.
func TestSilentOwner(t *testing.T) {
	t.Parallel()
	c := setUp(t, 1, func(_ *engineio.Options, o *Options) { o.Timeout = busyTimeout / 4 })
	stop := make(chan struct{})
	said := make(chan struct{}, 1)
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerFrom, "gone")
		if websocket.IsWebSocketUpgrade(r) {
			up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
			ws, err := up.Upgrade(w, r, w.Header())
			if err != nil {
				t.Error(err)
				return
			}
			defer ws.Close()
		} else {
			w.WriteHeader(http.StatusProcessing)
		}
		said <- struct{}{}
		<-stop
	}))
	defer silent.Close()
	defer close(stop)
	c.book.set("gone", silent.Listener.Addr().String())
	near, sid := c.nodes[0], "gone"+strings.Repeat("x", 16)

	begun := time.Now()
	if res, body := c.do(near, "POST", sid, "4hi"); res.StatusCode != http.StatusBadRequest || !strings.HasPrefix(body, `{"code":1,`) {
		t.Errorf("POST: %s %s", res.Status, body)
	}
	receive(t, said)
	ws, _, err := (&websocket.Dialer{HandshakeTimeout: patience}).DialContext(t.Context(),
		"ws"+strings.TrimPrefix(near.public.URL, "http")+"/engine.io/?EIO=4&transport=websocket&sid="+sid, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	receive(t, said)
	if err := flood(ws); err == nil {
		t.Error("an owner that reads nothing has got everything")
	}
	until(t, func() bool { return near.Stats().Open == 0 })
	if n := near.Stats().Forwarded; n[Failed] != 1 || n[OK] != 1 {
		t.Errorf("%v, want one failed and one ok", n)
	}
	if took := time.Since(begun); took > patience/2 {
		t.Errorf("noticed after %v, want at most %v", took, patience/2)
	}
}

// When a client that is not read disconnects, neither node waits for it.
func TestDrainWithBusyOwner(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(owner, near *node) error{
		"drain": func(_, near *node) error { return near.Drain(t.Context(), 0) },
		"near":  func(_, near *node) error { return near.Close(t.Context()) },
		"owner": func(owner, _ *node) error { return owner.engine.Close(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, owner, near, sid := setUpBusy(t)
			ws := c.upgrade(near, sid)
			write(t, ws, "5")
			posts := c.open(owner)
			c.expect(near, "POST", posts, fill, "ok")
			posted := make(chan error, 1)
			go func() {
				_, _, err := c.try(near, "POST", posts, "4second")
				posted <- err
			}()
			sent := make(chan error, 1)
			go func() { sent <- flood(ws) }() // ends with the WebSocket
			until(t, func() bool { return near.Stats().Open == 2 })
			begun := time.Now()
			if err := end(owner, near); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took > patience/4 {
				t.Errorf("took %v, want at most %v", took, patience/4)
			}
			ws.Close()
			receive(t, sent)
			if name != "drain" { // which leaves a POST to be answered
				receive(t, posted)
			}
			close(owner.mayRead)
			until(t, func() bool { return near.Stats().Open == 0 })
		})
	}
}

// Nodes before 0.4 pass informational responses on to clients, so only a node that requests
// them gets them.
func TestProgressResponsesAreRequested(t *testing.T) {
	t.Parallel()
	c, owner, near, sid := setUpBusy(t)
	c.expect(near, "POST", sid, fill, "ok")
	other := c.open(owner)
	c.expect(near, "POST", other, fill, "ok")
	held := func(sid string, change func(http.Header)) (signs <-chan int, ended <-chan error) {
		heard, end := make(chan int, 100), make(chan error, 1)
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { heard <- code; return nil },
		})
		r, err := http.NewRequestWithContext(ctx, "POST", owner.internal.URL+Prefix+"/engine.io/?EIO=4&transport=polling&sid="+sid, strings.NewReader("4second"))
		if err != nil {
			t.Fatal(err)
		}
		near.sign(r, owner.id, "10.0.0.1:1")
		change(r.Header)
		go func() { // ends when the owner reads
			res, err := c.client.Do(r)
			if err == nil {
				err = res.Body.Close()
			}
			end <- err
		}()
		return heard, end
	}
	silent, silentEnd := held(sid, func(h http.Header) { h.Del(headerSigns) })
	signs, end := held(other, func(http.Header) {})
	for range 3 {
		if code := receive(t, signs); code != http.StatusProcessing {
			t.Errorf("status %d, want 102", code)
		}
	}
	close(owner.mayRead)
	if err := errors.Join(receive(t, silentEnd), receive(t, end)); err != nil {
		t.Error(err)
	}
	if n := len(silent); n != 0 {
		t.Errorf("got %d signs of life for a node that did not ask, want 0", n)
	}
}
