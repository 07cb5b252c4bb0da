package app

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/hooks"
	"github.com/rejoin-io/rejoin/pkg/session"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// TestBannedWhileAway: the backend is asked about a client that it has disconnected between two
// connections, although its verdict was good for longer.
func TestBannedWhileAway(t *testing.T) {
	for name, payload := range map[string]string{"its offset": `"a":1`, "malformed offset": `"a":1,"offset":"x"`} {
		t.Run(name, func(t *testing.T) {
			j, h := judging(t, `{"user":"ann","good":60}`)
			_, srv, url := serveWith(t, Options{Hooks: h}, &agingStore{Memory: session.NewMemory()})
			v := &visitor{}
			v.visit(t, url, `"a":1`)
			v.Close()
			eventually(t, "the client is away", func() bool { return srv.Of("/").Socket(v.sid) == nil })
			if err := srv.Of("/").To("user:ann").DisconnectSockets(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			if recovered := v.visit(t, url, payload); recovered || j.questions() != 2 {
				t.Errorf("recovered: %v, %d questions, want a new session after 2", recovered, j.questions())
			}
		})
	}
}

// TestExpiredVerdict: a client whose verdict has expired is not connected.
func TestExpiredVerdict(t *testing.T) {
	_, h := judging(t, fmt.Sprintf(`{"user":"ann","expires":%d}`, time.Now().Unix()-1000))
	_, _, url := serveApp(t, Options{Hooks: h})
	if connects(t, url, "ann") {
		t.Error("connected with an expired verdict")
	}
}

// TestConfusedBackend: a client whose events make the backend give answers that are not understood keeps
// nobody else from connecting.
func TestConfusedBackend(t *testing.T) {
	h := answering(t, time.Second, func(w http.ResponseWriter, question string) {
		if strings.Contains(question, "rejoin.connect") {
			reply(w, http.StatusOK, `{}`)
			return
		}
		reply(w, http.StatusOK, `{"join":["`+strings.Repeat("x", 201)+`"]}`)
	})
	_, _, url := serveApp(t, Options{Hooks: h})
	v := &visitor{}
	v.visit(t, url, `"name":"mallory"`)
	for i := range 30 {
		v.write(fmt.Sprintf(`42%d["enter"]`, i))
		if ack := v.next(); !strings.Contains(ack, "hook_failed") {
			t.Fatalf("got %s, want hook_failed", ack)
		}
	}
	if !connects(t, url, "ann") {
		t.Error("another client could not connect")
	}
}

// TestRetryAfterTakesNoTurn: questions that the backend asks to repeat later do not keep others waiting.
func TestRetryAfterTakesNoTurn(t *testing.T) {
	var postponed atomic.Int32
	h := answering(t, 10*time.Second, func(w http.ResponseWriter, question string) {
		if strings.Contains(question, "rejoin.connect") {
			reply(w, http.StatusOK, `{}`)
			return
		}
		w.Header().Set("Retry-After", "9")
		reply(w, http.StatusTooManyRequests, `{"code":"slow_down"}`)
		postponed.Add(1)
	})
	_, _, url := serveApp(t, Options{Hooks: h})
	for range 4 {
		v := &visitor{}
		v.visit(t, url, `"name":"mallory"`)
		v.write(`421["x"]`)
	}
	eventually(t, "four questions are postponed", func() bool { return postponed.Load() == 4 })
	if began := time.Now(); !connects(t, url, "ann") || time.Since(began) > 5*time.Second {
		t.Errorf("another client has waited %v", time.Since(began))
	}
}

// TestConnectsThatAreGivenUp: clients that leave while the backend is being asked are no more questions at
// a time than the limit.
func TestConnectsThatAreGivenUp(t *testing.T) {
	var current, highest atomic.Int32
	h := answering(t, 5*time.Second, func(w http.ResponseWriter, _ string) {
		n := current.Add(1)
		defer current.Add(-1)
		for old := highest.Load(); n > old && !highest.CompareAndSwap(old, n); old = highest.Load() {
		}
		time.Sleep(300 * time.Millisecond) // it does not notice that the client has left
		reply(w, http.StatusOK, `{}`)
	})
	_, _, url := serveApp(t, Options{Hooks: h})
	for range 30 {
		ws := dialRaw(t, url)
		if err := ws.WriteMessage(websocket.TextMessage, []byte(`40{"name":"mallory"}`)); err != nil {
			t.Fatal(err)
		}
		_ = ws.Close()
	}
	eventually(t, "the backend is asked", func() bool { return highest.Load() >= 4 })
	if !connects(t, url, "ann") {
		t.Error("another client could not connect")
	}
	if n := highest.Load(); n > 4 {
		t.Errorf("%d questions at a time, want at most 4", n)
	}
}

// TestNamedEventIsPublishedOnce: what the backend answers to a named event is published once, however
// often the client sends the event and the backend gives its answer.
func TestNamedEventIsPublishedOnce(t *testing.T) {
	h := answering(t, 5*time.Second, func(w http.ResponseWriter, question string) {
		if strings.Contains(question, "rejoin.connect") {
			reply(w, http.StatusOK, `{"rooms":["shop"]}`)
			return
		}
		reply(w, http.StatusOK, `{"emits":[{"rooms":["shop"],"event":"order:new","args":[1]}],"ack":[{"order":1}]}`)
	})
	var srv *socketio.Server
	var released atomic.Int32
	h.ParseEmit = func([]byte, string, *socketio.Broadcast) (Emit, error) {
		return Emit{srv.Of("/").To("shop"), "order:new", []any{1}, func() { released.Add(1) }}, nil
	}
	_, srv, url := serveApp(t, Options{Hooks: h})
	shop, v := &visitor{}, &visitor{}
	shop.visit(t, url, `"name":"shop"`)
	v.visit(t, url, `"name":"ann"`)
	for i := range 3 { // as stock retries do after acks that were lost
		v.write(fmt.Sprintf(`42%d["once","0123456789abcdef","order:place",{}]`, i))
		for !strings.HasPrefix(v.next(), fmt.Sprintf(`43%d[{"order":1}]`, i)) {
		}
	}
	eventually(t, "each answer is released", func() bool { return released.Load() == 3 })
	if err := srv.Of("/").To("shop").Emit(t.Context(), "end"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) == 0 || got[len(got)-1] != "end" {
		var event []any
		if err := json.Unmarshal([]byte(strings.TrimPrefix(shop.next(), "42")), &event); err != nil {
			t.Fatal(err)
		}
		got = append(got, event[0].(string))
	}
	if len(got) != 2 {
		t.Errorf("got %q, want order:new once", got)
	}
}

// answering returns hooks for connects and all unknown events, of a backend that answers four questions at
// a time.
func answering(t *testing.T, timeout time.Duration, answer func(w http.ResponseWriter, question string)) Hooks {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // the node may have given up
		answer(w, string(body))
	}))
	b, err := hooks.New(hooks.Options{URL: web.URL, Secrets: []string{hookSecret}, Timeout: timeout, Concurrency: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Close()
		web.CloseClientConnections()
		web.Close()
	})
	return Hooks{
		Backend: b, Connect: true, Events: []string{"*"}, Default: auth.Everything(),
		ParseEmit: func([]byte, string, *socketio.Broadcast) (Emit, error) { return Emit{Release: func() {}}, nil },
	}
}

func reply(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprint(w, body)
}

func dialRaw(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial(url+"/socket.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	return ws
}

// connects reports whether a new client is connected.
func connects(t *testing.T, url, name string) bool {
	t.Helper()
	ws := dialRaw(t, url)
	defer ws.Close()
	if err := ws.WriteMessage(websocket.TextMessage, []byte(fmt.Sprintf(`40{"name":%q}`, name))); err != nil {
		return false
	}
	_ = ws.SetReadDeadline(time.Now().Add(15 * time.Second))
	_, p, err := ws.ReadMessage()
	return err == nil && strings.HasPrefix(string(p), "40")
}
