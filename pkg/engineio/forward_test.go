package engineio

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// setUpPair runs two servers. The first forwards requests of the second's sessions.
func setUpPair(t *testing.T, o Options) (near, far *bench) {
	t.Helper()
	o.NodeID = "far1"
	far = setUp(t, o)
	o.NodeID = "near"
	o.Forward = func(w http.ResponseWriter, r *http.Request, owner string) error {
		switch owner {
		case "far1":
			far.ServeHTTP(w, Forwarded(r))
			return nil
		case "who_":
			return errors.New("nobody answers")
		}
		return fmt.Errorf("far away: %w", ErrUnknownSession)
	}
	return setUp(t, o), far
}

func TestSessionOfAnotherNode(t *testing.T) {
	near, far := setUpPair(t, Options{})
	sid := far.open()
	c := receive(t, far.conns)
	near.post(sid, "4by another door")
	far.gets("by another door", false)
	if err := c.Send(Text([]byte("and back"))); err != nil {
		t.Fatal(err)
	}
	if got := near.poll(sid); got != "4and back" {
		t.Errorf(`polled %q, want "4and back"`, got)
	}

	ws := near.dial("&sid=" + sid)
	near.write(ws, "2probe")
	if got := near.read(ws); got != "3probe" {
		t.Fatalf(`probe answered by %q, want "3probe"`, got)
	}
	near.write(ws, "5")
	near.write(ws, "4upgraded")
	far.gets("upgraded", false)
	if n := near.Stats(); n.Opened != 0 {
		t.Errorf("the server in between has opened %d connections, want 0", n.Opened)
	}
}

func TestUnknownSession(t *testing.T) {
	near, far := setUpPair(t, Options{})
	for _, sid := range []string{
		"far1" + strings.Repeat("x", 16), // the owner does not know it
		"gone" + strings.Repeat("x", 16), // the hook does not know the owner
		"near" + strings.Repeat("x", 16), // would be its own
		"far1", "far1" + strings.Repeat("x", 17), "far1" + strings.Repeat("/", 16),
	} {
		near.unknown(sid)
	}
	if n := far.Stats(); n.Opened != 0 {
		t.Errorf("the owner has opened %d connections, want 0", n.Opened)
	}
}

// While it is unknown whether a session exists, its client must not be told that it does
// not: a poll is answered by a packet without content.
func TestSessionThatCannotBeLookedUp(t *testing.T) {
	near, _ := setUpPair(t, Options{Headers: func(h http.Header, _ *http.Request) { h.Add("X-Hook", "1") }})
	sid := "who_" + strings.Repeat("x", 16)
	res, body := near.do("GET", sid, "")
	if res.StatusCode != http.StatusOK || body != "6" || res.Header.Get("X-Hook") == "" {
		t.Errorf("GET: %s %q, want a noop packet", res.Status, body)
	}
	if res, body := near.do("POST", sid, "4hi"); res.StatusCode != http.StatusServiceUnavailable || body != "" {
		t.Errorf("POST: %s %q, want 503", res.Status, body)
	}
	if _, res, err := near.tryDial("?EIO=4&transport=websocket&sid=" + sid); err == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("upgrade: %v, want 503", err)
	}
}

// A forwarded request is never forwarded again, even if two nodes consider each other the
// owner.
func TestForwardedOnlyOnce(t *testing.T) {
	var times atomic.Int32
	var near *bench
	near = setUp(t, Options{NodeID: "near", Forward: func(w http.ResponseWriter, r *http.Request, _ string) error {
		times.Add(1)
		near.ServeHTTP(w, Forwarded(r))
		return nil
	}})
	near.unknown("far1" + strings.Repeat("x", 16))
	if n := times.Load(); n != 1 {
		t.Errorf("forwarded %d times, want 1", n)
	}
}

func TestForwardedHandshakeIsRefused(t *testing.T) {
	far := setUp(t, Options{})
	near := setUp(t, Options{Use: []func(http.Handler) http.Handler{func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { far.ServeHTTP(w, Forwarded(r)) })
	}}})
	if res, body := near.do("GET", "", ""); res.StatusCode != http.StatusBadRequest || !strings.HasPrefix(body, `{"code":3,`) {
		t.Errorf("got %s %s, want 400 with code 3", res.Status, body)
	}
}

// Headers and checks of a forwarded request are applied once.
func TestOriginsOfForwardedRequests(t *testing.T) {
	var used atomic.Int32
	near, far := setUpPair(t, Options{
		Origins: []string{"https://good.example"},
		Headers: func(h http.Header, _ *http.Request) { h.Add("X-Hook", "1") },
		Use: []func(http.Handler) http.Handler{func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				used.Add(1)
				w.Header().Add("X-Used", "1")
				next.ServeHTTP(w, r)
			})
		}},
	})
	sid := far.open()
	used.Store(0)
	res, body := near.do("POST", sid, "4hi", "Origin", "https://good.example")
	if res.StatusCode != http.StatusOK || body != "ok" || used.Load() != 1 {
		t.Fatalf("%s %s, middlewares passed: %d", res.Status, body, used.Load())
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": "https://good.example", "Access-Control-Allow-Credentials": "true",
		"X-Hook": "1", "X-Used": "1",
	} {
		if got := res.Header.Values(name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %s once", name, got, want)
		}
	}
	if res, _ := near.do("POST", sid, "4hi", "Origin", "https://bad.example"); res.StatusCode != http.StatusForbidden {
		t.Errorf("another origin: %s", res.Status)
	}
	if _, res, err := near.tryDial("?EIO=4&transport=websocket&sid="+sid, "Origin", "https://bad.example"); err == nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("another origin's WebSocket: %v", err)
	}
	_, res, err := near.tryDial("?EIO=4&transport=websocket&sid="+sid, "Origin", "https://good.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"X-Hook", "X-Used"} {
		if got := res.Header.Values(name); len(got) != 1 {
			t.Errorf("101 with %s: %q", name, got)
		}
	}
}

func TestBodiesOfForwardedRequests(t *testing.T) {
	near, far := setUpPair(t, Options{MaxPayload: 64})
	sid := far.open()
	long := "4" + strings.Repeat("x", 64)
	if res, _ := near.do("POST", sid, long); res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("with a length: %s", res.Status)
	}
	r, err := http.NewRequest("POST", near.http.URL+"/engine.io/?EIO=4&transport=polling&sid="+sid, struct{ *strings.Reader }{strings.NewReader(long)})
	if err != nil {
		t.Fatal(err)
	}
	res, err := near.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("in chunks: %s", res.Status)
	}
	near.post(sid, long[:64])
	far.gets(long[1:64], false)
}
