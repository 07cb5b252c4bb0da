package forward

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// most is the bound of the tests: 14 WebSockets, 15 with polls, 16 with POSTs.
const most = 16

// setUpFull runs two nodes, of which the first owns all sessions. One of the two has the
// bound.
func setUpFull(t *testing.T, name string) (c *cluster, owner, near *node, l *limit.Forwarded, tally *limit.Tally, logs *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.WarnLevel)
	tally = limit.NewTally(zap.New(core))
	l = limit.NewForwarded(limit.Quota{Name: name, Max: most, Tally: tally})
	c = setUp(t, 2, func(_ *engineio.Options, o *Options) {
		switch {
		case name == limit.ForwardedFromNodes && o.Node == "n000":
			o.Incoming = l
		case name == limit.ForwardedToNodes && o.Node == "n001":
			o.Outgoing = l
		}
	})
	owner, near = c.nodes[0], c.nodes[1]
	near.patience = 300 * time.Millisecond

	port := limit.NewPort(limit.PortOptions{Quota: limit.Quota{Name: limit.InternalConnections, Max: 4, Others: func() int { return -owner.o.Incoming.Open() }, Tally: limit.NewTally(zap.NewNop())}})
	bounded := httptest.NewUnstartedServer(nil)
	mux := http.NewServeMux()
	mux.Handle("/", owner.internal.Config.Handler)
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	bounded.Config.Handler = mux
	bounded.Listener = port.Listener(bounded.Listener)
	bounded.Config.ConnState, bounded.Config.ConnContext = port.ConnState, port.ConnContext
	bounded.Start()
	t.Cleanup(bounded.Close)
	c.book.set(owner.id, bounded.Listener.Addr().String())
	return c, owner, near, l, tally, logs
}

// Even if many clients are forwarded to a node, its internal port answers other requests.
// Clients beyond the bound keep their sessions: they stay on polling, and upgrade when
// there is space. After they have disconnected nothing is counted.
func TestForwardedRequestsAreBounded(t *testing.T) {
	t.Parallel()
	for _, name := range []string{limit.ForwardedFromNodes, limit.ForwardedToNodes} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, owner, near, l, tally, logs := setUpFull(t, name)
			var sockets []*websocket.Conn
			var polling []string
			refused := uint64(0)
			for range most + 8 {
				sid := c.open(owner)
				if len(sockets) < most-2 {
					sockets = append(sockets, c.move(near, sid))
					continue
				}
				if status := c.tryUpgrade(near, sid); status != http.StatusServiceUnavailable {
					t.Fatalf("upgrade beyond the bound: %d, want 503", status)
				}
				refused++
				polling = append(polling, sid)
			}
			for range 8 { // more than the port has connections beside
				if status := health(t, c, owner); status != http.StatusOK {
					t.Fatalf("health check: %d, want %d", status, http.StatusOK)
				}
			}
			if n := tally.Refused()[name]; n != refused {
				t.Errorf("counted %d, want %d", n, refused)
			}
			if n := logs.FilterMessage("too many forwarded requests").Len(); n != 1 {
				t.Errorf("%d log lines, want 1: %v", n, logs.All())
			}
			waiting := make(chan string, 1)
			go func() { // takes the place reserved for polls
				_, body, err := c.try(near, "GET", polling[0], "")
				waiting <- fmt.Sprint(body, err)
			}()
			until(t, func() bool { return l.Open() == most-1 })
			for i, sid := range polling[1:] { // none is cut
				c.expect(near, "POST", sid, "4hi", "ok")
				if i < 2 {
					c.expect(near, "GET", sid, "", "6")
				}
			}
			c.expect(near, "POST", polling[0], "4hi", "ok")
			if got := receive(t, waiting); got != "4hi<nil>" {
				t.Errorf("the poll within the bound: %s, want 4hi<nil>", got)
			}
			for _, sid := range polling[1:] {
				c.expect(near, "GET", sid, "", "4hi")
			}
			if n := near.Stats().Forwarded; n[Undecided] != refused+2 || n[Failed]+n[NoOwner] != 0 {
				t.Errorf("%v, want %d undecided", n, refused+2)
			}
			sockets[0].Close()
			until(t, func() bool { return l.Open() == most-3 })
			c.move(near, polling[0]).Close()
			for _, ws := range sockets {
				ws.Close()
			}
			until(t, func() bool { return l.Open() == 0 && owner.Stats().Received == 0 })
		})
	}
}

// A request without a free place waits for one.
func TestForwardedRequestWaitsForRoom(t *testing.T) {
	t.Parallel()
	c, owner, near, l, tally, _ := setUpFull(t, limit.ForwardedFromNodes)
	near.patience = patience
	sid := c.open(owner)
	post, err := http.NewRequest("POST", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range most {
		l.Enter(post)
	}
	body := "4" + strings.Repeat("x", 300_000) // more than a server reads by itself, and not echoed
	posted := make(chan string, 1)
	go func() {
		_, answer, err := c.try(near, "POST", sid, body)
		posted <- fmt.Sprint(answer, err)
	}()
	until(t, func() bool { return tally.Refused()[limit.ForwardedFromNodes] > 1 })
	l.Leave()
	if got := receive(t, posted); got != "ok<nil>" {
		t.Errorf("POST: %s, want ok<nil>", got)
	}
	polled := make(chan string, 1)
	before := tally.Refused()[limit.ForwardedFromNodes]
	go func() {
		_, body, err := c.try(near, "GET", sid, "")
		polled <- fmt.Sprint(body, err)
	}()
	until(t, func() bool { return tally.Refused()[limit.ForwardedFromNodes] > before })
	l.Leave()
	until(t, func() bool { return l.Open() == most-1 })
	c.expect(near, "POST", sid, "4hi", "ok")
	if got := receive(t, polled); got != "4hi<nil>" {
		t.Errorf("poll: %s, want 4hi<nil>", got)
	}
}

// health asks a node's internal port as an orchestrator does, on a new connection.
func health(t *testing.T, c *cluster, n *node) int {
	t.Helper()
	c.book.mu.Lock()
	addr := c.book.addresses[n.id]
	c.book.mu.Unlock()
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := (&http.Client{Transport: transport, Timeout: patience}).Get("http://" + addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res.StatusCode
}

// An owner that closes connections without an answer, because its port is full, still has
// its sessions. One that refuses connections does not.
func TestOwnerClosesConnections(t *testing.T) {
	t.Parallel()
	c := setUp(t, 2, nil)
	owner, near := c.nodes[0], c.nodes[1]
	var closing atomic.Int64 // connections to be closed
	port := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if closing.Add(-1) >= 0 {
			panic(http.ErrAbortHandler)
		}
		owner.internal.Config.Handler.ServeHTTP(w, r)
	}))
	defer port.Close()
	near.patience = 300 * time.Millisecond
	sid := c.open(owner)
	c.book.set(owner.id, port.Listener.Addr().String())
	c.expect(near, "POST", sid, "4hi", "ok")
	closing.Store(2)
	c.expect(near, "GET", sid, "", "4hi")
	closing.Store(1000)
	c.expect(near, "GET", sid, "", "6")
	if res, body := c.do(near, "POST", sid, "4hi"); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("POST: %s %s, want 503", res.Status, body)
	}
	if status := c.tryUpgrade(near, sid); status != http.StatusServiceUnavailable {
		t.Errorf("upgrade: %d, want 503", status)
	}
	if n := near.Stats().Forwarded; n[Undecided] != 3 || n[OK] != 2 {
		t.Errorf("%v, want 3 undecided and 2 ok", n)
	}
	c.book.set(owner.id, closedPort(t))
	c.unknown(near, sid)
}
