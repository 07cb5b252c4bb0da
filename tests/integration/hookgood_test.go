package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

// TestHookNodeKilled: the clients of a killed node recover on another one without a question to the
// backend, with their permissions. So do those that reconnect while the backend is down. An event that
// the backend was asked about when the node was killed is not asked about again.
func TestHookNodeKilled(t *testing.T) {
	t.Parallel()
	t.Run("one server", func(t *testing.T) {
		t.Parallel()
		hookNodeKilled(t, func(t *testing.T, variables []string) *cluster { return startCluster(t, 2, variables...) })
	})
	t.Run("Redis Cluster", func(t *testing.T) {
		t.Parallel()
		hookNodeKilled(t, func(t *testing.T, variables []string) *cluster {
			return startOver(t, redistest.StartCluster(t).URL(), 2, variables...)
		})
	})
}

func hookNodeKilled(t *testing.T, start func(t *testing.T, variables []string) *cluster) {
	asking := make(chan string, 10)
	b, variables := startBackend(t, answering(func(_ http.ResponseWriter, q asked) {
		asking <- q.id
		<-q.gone
	}))
	c := start(t, append(variables, "REJOIN_HOOK_CONNECT=true", "REJOIN_HOOK_EVENTS=*", "REJOIN_HOOK_TIMEOUT=20s"))
	front := startBalancer(t, c)
	d := startDriver(t)
	first, second := c.nodes[0], c.nodes[1]
	second.kill()
	const clients = 50
	var sockets []*npmSocket
	for i := range clients {
		name := fmt.Sprint("c", i)
		sockets = append(sockets, d.opening(name, newest, front.URL, as(name)))
	}
	var ids []string
	for _, s := range sockets {
		ids = append(ids, s.await("connect").ID)
		s.call("join", "lobby")
	}
	if asked := len(b.questions("rejoin.connect")); asked < clients {
		t.Fatalf("asked %d times about %d clients", asked, clients)
	}
	second.restart()
	sockets[0].emit("order:place")
	<-asking

	before := len(b.questions("rejoin.connect"))
	b.answers(func(http.ResponseWriter, asked) { panic(http.ErrAbortHandler) }) // the backend is down, too
	first.kill()
	for i, s := range sockets {
		s.await("disconnect")
		if now := s.await("connect"); !now.Recovered || now.ID != ids[i] {
			t.Errorf("%s: not recovered: %+v", s.name, now.state)
		}
	}
	if asked := len(b.questions("rejoin.connect")) - before; asked != 0 {
		t.Errorf("asked %d times about %d recovered clients, want 0", asked, clients)
	}
	sockets[1].call("to", "lobby", "still", 1)
	for _, s := range append(sockets[2:], sockets[0]) {
		s.hears("still", "1")
	}
	if asked := len(b.questions("rejoin.event")); asked != 1 {
		t.Errorf("asked %d times about one event", asked)
	}

	// A new client is asked about, and not admitted.
	newcomer := d.opening("newcomer", newest, front.URL, as("newcomer"))
	second.eventually("asking about the newcomer", func() error {
		if len(b.questions("rejoin.connect")) == before {
			return fmt.Errorf("not asked")
		}
		return nil
	})
	b.answers(answering(nil))
	newcomer.await("connect")
}

// TestHookNamed: an event that its client has named has one id at the backend, whatever node asks, so
// the backend processes it once. Its emits are sent once.
func TestHookNamed(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	processed := make(map[string]int)
	b, variables := startBackend(t, answering(func(w http.ResponseWriter, q asked) {
		mu.Lock()
		defer mu.Unlock()
		processed[q.id]++
		if processed[q.id] == 1 {
			panic(http.ErrAbortHandler) // processed, but the answer is lost
		}
		say(w, http.StatusOK, `{"join":["shop"],"emits":[{"rooms":["shop"],"event":"order:new","args":[1]},{"self":true,"event":"hint"}],"ack":[{"ok":true,"stored":true}]}`)
	}))
	n := b.startNode(append(variables, "REJOIN_HOOK_CONNECT=true", "REJOIN_HOOK_EVENTS=*")...)
	d := startDriver(t)
	s := d.open("s", newest, n.url(), as("ann"))
	const id = "9b2f6c1e-7d0b-4a9c-8f2e-0123456789ab"
	for range 2 { // the client's own second attempt, too
		var r struct{ Stored bool }
		if err := json.Unmarshal(s.ask("once", id, "order:place", 1)[0], &r); err != nil || !r.Stored {
			t.Errorf("acked %+v, %v", r, err)
		}
	}
	s.call("self", "settled")
	s.hears("order:new", "1")
	s.hears("hint")
	s.hears("settled") // nothing of the second attempt
	mu.Lock()
	defer mu.Unlock()
	if len(processed) != 1 {
		t.Errorf("ids %v, want one", processed)
	}
	for _, q := range b.questions("rejoin.event") {
		if q.Event != "order:place" || fmt.Sprintf("%s", q.Args) != "[1]" {
			t.Errorf("the question: %s", q.body)
		}
	}
}

// TestHookWhileStopping: a node that is stopped while it asks a backend that does not answer stops in
// time. Its log shows nothing of a question.
func TestHookWhileStopping(t *testing.T) {
	t.Parallel()
	asking := make(chan string, 1)
	b, variables := startBackend(t, answering(func(_ http.ResponseWriter, q asked) {
		asking <- q.id
		<-q.gone
	}))
	n := startUnready(t, append(variables, "REJOIN_HOOK_CONNECT=true", "REJOIN_HOOK_EVENTS=*", "REJOIN_HOOK_TIMEOUT=30s", "REJOIN_LOG_LEVEL=debug")...)
	n.awaitReady()
	s := startDriver(t).open("s", newest, n.url(), as("a name in the payload"))
	s.emit("work", "an argument of the event")
	<-asking
	began := time.Now()
	n.stop()
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("stopped after %v", took)
	}
	for _, secret := range []string{hookSecret, hookSecret[6:], "a name in the payload", "an argument of the event"} {
		if n.log.Contains(secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
	b.CloseClientConnections()
}
