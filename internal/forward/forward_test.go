package forward

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

func TestEachRequestAtAnotherNode(t *testing.T) {
	c := setUp(t, 3, nil)
	a, b, d := c.nodes[0], c.nodes[1], c.nodes[2]
	sid := c.open(a)
	c.expect(d, "POST", sid, "4hello", "ok")
	c.expect(b, "GET", sid, "", "4hello")
	ws := c.move(b, sid)
	write(t, ws, "4by WebSocket")
	if got := read(t, ws); got != "4by WebSocket" {
		t.Errorf(`got %q, want "4by WebSocket"`, got)
	}
	until(t, func() bool { return b.Stats().Open == 1 }) // requests leave after their answers
	if n := b.Stats().Forwarded[OK]; n != 2 {
		t.Errorf("forwarded %d, want 2", n)
	}
	if n := a.engine.Stats(); n.Upgrades != 1 || n.WebSocket != 1 {
		t.Errorf("got %+v, want one upgrade and one WebSocket", n)
	}
}

// Clients behind a load balancer without affinity: each request reaches a random node.
func TestRandomBalancer(t *testing.T) {
	c := setUp(t, 3, nil)
	anywhere := func() *node { return c.nodes[rand.IntN(len(c.nodes))] }
	var clients sync.WaitGroup
	for i := range 30 {
		sid := c.open(anywhere())
		clients.Go(func() {
			for n := range 20 { // by polling
				text := fmt.Sprint("4", i, "/", n)
				if res, body, err := c.try(anywhere(), "POST", sid, text); err != nil || body != "ok" {
					t.Errorf("POST: %v %v %s", err, res, body)
					return
				}
				if _, body, err := c.try(anywhere(), "GET", sid, ""); err != nil || body != text {
					t.Errorf("GET: %v %q, want %q", err, body, text)
					return
				}
			}
			url := "ws" + strings.TrimPrefix(anywhere().public.URL, "http") + "/engine.io/?EIO=4&transport=websocket&sid=" + sid
			ws, _, err := (&websocket.Dialer{HandshakeTimeout: patience}).Dial(url, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer ws.Close()
			_ = ws.SetReadDeadline(time.Now().Add(patience))
			for _, text := range []string{"2probe", "5", "4x", "4y", "4z"} {
				if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
					t.Error(err)
					return
				}
			}
			for _, want := range []string{"3probe", "4x", "4y", "4z"} {
				if _, got, err := ws.ReadMessage(); err != nil || string(got) != want {
					t.Errorf("%v: %q, want %q", err, got, want)
					return
				}
			}
		})
	}
	clients.Wait()
	for _, n := range c.nodes {
		if s := n.Stats(); s.Forwarded[OK] == 0 || s.Forwarded[NoOwner]+s.Forwarded[Failed]+s.Forwarded[Gone] > 0 {
			t.Errorf("%s: got %+v, want requests forwarded without a failure", n.id, s)
		}
		for why, count := range n.Stats().Refused {
			if count > 0 {
				t.Errorf("%s has refused %d as %s, want 0", n.id, count, why)
			}
		}
	}
}

// The owner sees the client's address, and the client sees no headers of the nodes.
func TestClientsAddress(t *testing.T) {
	c := setUp(t, 2, func(o *engineio.Options, _ *Options) {
		o.Headers = func(h http.Header, r *http.Request) {
			h.Add("X-Owner-Saw", r.RemoteAddr)
			for name := range r.Header {
				if strings.HasPrefix(name, headerPrefix) {
					h.Add("X-Owner-Got", name)
				}
			}
		}
		o.Use = []func(http.Handler) http.Handler{func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Add("X-Node-Saw", r.RemoteAddr)
				next.ServeHTTP(w, r)
			})
		}}
	})
	sid := c.open(c.nodes[0])
	res, body := c.do(c.nodes[1], "POST", sid, "4hi",
		"X-Rejoin-Client", "6.6.6.6:666", "X-Rejoin-From", "n000", "X-Rejoin-Something", "else", "Connection", "X-Rejoin-Signature")
	if body != "ok" {
		t.Fatalf("%s %s, want ok", res.Status, body)
	}
	saw := res.Header.Values("X-Owner-Saw")
	if len(saw) != 1 || saw[0] == "" || saw[0] != res.Header.Get("X-Node-Saw") {
		t.Errorf("the owner saw %q, the node %q", saw, res.Header.Values("X-Node-Saw"))
	}
	if got := res.Header.Values("X-Owner-Got"); len(got) > 0 {
		t.Errorf("headers of the nodes reach the engine: %q", got)
	}
	for name := range res.Header {
		if strings.HasPrefix(name, headerPrefix) {
			t.Errorf("header %s reaches the client", name)
		}
	}
}

func TestOwnerGone(t *testing.T) {
	c := setUp(t, 2, func(_ *engineio.Options, o *Options) { o.Timeout = time.Second })
	a, b := c.nodes[0], c.nodes[1]
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	stop := make(chan struct{})
	frozen := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop }))
	defer frozen.Close()
	defer close(stop)
	c.book.set("dead", closedPort(t))
	c.book.set("was1", b.internal.Listener.Addr().String())
	c.book.set("else", stranger.Listener.Addr().String())
	c.book.set("slow", frozen.Listener.Addr().String())
	for _, test := range []struct {
		owner string
		want  Outcome
	}{
		{"none", NoOwner}, {"dead", NoOwner}, {"was1", Failed}, {"else", Failed}, {"slow", Failed},
	} {
		before := a.Stats().Forwarded[test.want]
		c.unknown(a, test.owner+strings.Repeat("x", 16))
		if n := a.Stats().Forwarded; n[test.want] != before+1 {
			t.Errorf("%s: %v, want one more %s", test.owner, n, test.want)
		}
	}
	if n := b.Stats().Refused[Misdirected]; n != 1 {
		t.Errorf("a node that has another's address has refused %d requests, want 1", n)
	}
	if res, body := c.do(a, "POST", "dead"+strings.Repeat("x", 16), "4hi"); res.StatusCode != 400 || !strings.HasPrefix(body, `{"code":1,`) {
		t.Errorf("POST: %s %s", res.Status, body)
	}
	_, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(a.public.URL, "http")+
		"/engine.io/?EIO=4&transport=websocket&sid=dead"+strings.Repeat("x", 16), nil)
	if err == nil || res.StatusCode != 400 {
		t.Errorf("upgrade: %v", err)
	}
}

// A node that was replaced by one with the same id at another address is found there, and
// gets each request once, even if another node has the former address.
func TestOwnerMoved(t *testing.T) {
	c := setUp(t, 3, nil)
	a, b, d := c.nodes[0], c.nodes[1], c.nodes[2]
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	for name, former := range map[string]string{
		"nobody": closedPort(t), "another node": b.internal.Listener.Addr().String(), "a stranger": stranger.Listener.Addr().String(),
	} {
		c.book.mu.Lock()
		c.book.known = map[string]string{d.id: former}
		c.book.mu.Unlock()
		sid := c.open(d)
		c.expect(a, "POST", sid, "4"+name, "ok")
		c.expect(a, "GET", sid, "", "4"+name)
		ws := c.move(a, sid)
		ws.Close()
		until(t, func() bool { return a.Stats().Open == 0 })
	}
	if n := a.Stats().Forwarded; n[OK] != 9 || n[NoOwner]+n[Failed] != 0 {
		t.Errorf("%v, want 9 ok", n)
	}
}

// While the directory is unavailable, a session is not declared unknown.
func TestDirectoryUnavailable(t *testing.T) {
	c := setUp(t, 2, nil)
	a, b := c.nodes[0], c.nodes[1]
	sid := c.open(b)
	c.book.mu.Lock()
	c.book.fault = errors.New("no answer")
	c.book.mu.Unlock()
	c.expect(a, "GET", sid, "", "6")
	if res, body := c.do(a, "POST", sid, "4hi"); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("POST: %s %s, want 503", res.Status, body)
	}
	c.book.mu.Lock()
	c.book.known = map[string]string{b.id: closedPort(t)} // it may have moved
	c.book.mu.Unlock()
	c.expect(a, "GET", sid, "", "6")
	c.book.mu.Lock()
	c.book.fault = nil
	c.book.mu.Unlock()
	c.expect(a, "POST", sid, "4hi", "ok")
	c.expect(a, "GET", sid, "", "4hi")
	if n := a.Stats().Forwarded; n[Undecided] != 3 || n[OK] != 2 {
		t.Errorf("%v, want 3 undecided and 2 ok", n)
	}
}

// A client that disconnects ends its poll, and so its session, at the owner, too.
func TestClientGone(t *testing.T) {
	c := setUp(t, 2, nil)
	sid := c.open(c.nodes[0])
	arrived := make(chan struct{})
	owner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		c.nodes[0].internal.Config.Handler.ServeHTTP(w, r)
	}))
	defer owner.Close()
	c.book.set(c.nodes[0].id, owner.Listener.Addr().String())
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", c.nodes[1].public.URL+"/engine.io/?EIO=4&transport=polling&sid="+sid, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.client.Do(r)
		done <- err
	}()
	receive(t, arrived)
	cancel()
	if err := receive(t, done); err == nil {
		t.Error("the poll was answered")
	}
	receive(t, c.nodes[0].ends)
	until(t, func() bool { n := c.nodes[1].Stats(); return n.Forwarded[Gone] == 1 && n.Open == 0 })
}

func TestSlowAnswersStream(t *testing.T) {
	c := setUp(t, 2, nil)
	first, rest := make(chan struct{}), make(chan struct{})
	owner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerFrom, "late")
		fmt.Fprint(w, "at once, ")
		_ = http.NewResponseController(w).Flush()
		close(first)
		<-rest
		fmt.Fprint(w, "and later")
	}))
	defer owner.Close()
	c.book.set("late", owner.Listener.Addr().String())
	res, err := c.client.Get(c.nodes[0].public.URL + "/engine.io/?EIO=4&transport=polling&sid=late" + strings.Repeat("x", 16))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	receive(t, first)
	b := make([]byte, 64)
	n, err := res.Body.Read(b)
	if err != nil || string(b[:n]) != "at once, " {
		t.Errorf("read %q, %v, want the first part of the answer", b[:n], err)
	}
	close(rest)
	if n, _ := res.Body.Read(b); string(b[:n]) != "and later" {
		t.Errorf("then %q", b[:n])
	}
}

func TestOptions(t *testing.T) {
	good := Options{Node: "n000", Secret: secret, Directory: &book{}, Timeout: time.Second}
	for name, change := range map[string]func(*Options){
		"no secret":    func(o *Options) { o.Secret = "" },
		"no node":      func(o *Options) { o.Node = "" },
		"no directory": func(o *Options) { o.Directory = nil },
		"no timeout":   func(o *Options) { o.Timeout = 0 },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}
