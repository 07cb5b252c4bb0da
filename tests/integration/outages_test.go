package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/tests/inbox"
	"github.com/rejoin-io/rejoin/tests/integration/sioclient"
)

// TestRedisOutages: whatever Redis does, a node is live, reports why it is not
// ready, accepts no new clients, disconnects none, and fails requests in bounded
// time. Afterwards everything that was acknowledged has arrived, once.
func TestRedisOutages(t *testing.T) {
	t.Parallel()
	const redisTimeout = time.Second
	f := &fleet{t: t, cluster: startCluster(t, 2, "REJOIN_REDIS_TIMEOUT="+redisTimeout.String())}
	n := f.nodes[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer f.clients.Wait()
	defer cancel()
	for i := range 20 {
		f.roam(ctx, fmt.Sprint("client ", i), 0, fmt.Sprint("room ", i%5))
	}
	f.awaitJoined()
	over, stop := context.WithCancel(ctx)
	defer stop()
	for i := range 5 {
		f.publish(over, &publisher{
			name: fmt.Sprint("p", i), pause: 20 * time.Millisecond, rooms: []string{fmt.Sprint("room ", i)},
			node: func() string { return f.nodes[i%2].public }, stays: true,
		})
	}
	asker := listen(n.node)
	defer asker.Cut()
	if err := asker.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	set := func(name, value string) {
		t.Helper()
		if err := f.redis.Client().ConfigSet(ctx, name, value).Err(); err != nil {
			t.Error(err)
		}
	}
	for _, outage := range []struct {
		what       string
		begin, end func()
		reason     string // of not being ready, a part of it
		lasts      time.Duration
		publishes  bool // even so
	}{
		{
			"Redis stands still", f.redis.Pause, f.redis.Resume,
			"no answer from Redis", 5 * time.Second, false,
		},
		{
			"the subscriber is deaf", n.feed.deafenForGood, n.feed.mendSubscribers,
			"subscriber", 0, true,
		},
		{
			"memory is full", func() { set("maxmemory", "1") }, func() { set("maxmemory", "0") },
			"OOM", 0, false,
		},
		{
			"Redis may evict", func() { set("maxmemory-policy", "allkeys-lru") }, func() { set("maxmemory-policy", "noeviction") },
			"REJOIN_ALLOW_EVICTION", 0, true,
		},
	} {
		f.strike(outage.what, harmless, func() {
			began := time.Now()
			outage.begin()
			n.awaitUnready(outage.reason)
			t.Logf("%s: said after %v", outage.what, time.Since(began))
			if status, _ := n.ask(t, "/healthz"); status != http.StatusOK {
				t.Errorf("%s: /healthz: %d", outage.what, status)
			}
			if status := n.handshake(t); status != http.StatusServiceUnavailable {
				t.Errorf("%s: a new connection gets %d", outage.what, status)
			}
			for range 3 {
				asked := time.Now()
				_, err := call(ctx, asker.Client, "to", "nobody", "hello")
				if outage.publishes != (err == nil) || err != nil && !strings.Contains(err.Error(), "unavailable") {
					t.Errorf("%s: publishing: %v", outage.what, err)
				}
				if took := time.Since(asked); took > redisTimeout+2*time.Second {
					t.Errorf("%s: the answer took %v: %v", outage.what, took, err)
				}
			}
			if _, err := asker.Ask(ctx, "echo", "alive"); err != nil {
				t.Errorf("%s: echo: %v", outage.what, err)
			}
			wait(ctx, time.Until(began.Add(outage.lasts)))
			outage.end()
			f.awaitServing()
			if status := n.handshake(t); status != http.StatusOK {
				t.Errorf("after %s: a new connection gets %d", outage.what, status)
			}
		})
	}
	stop()
	f.settle()
	r, _, _, failed := f.counts()
	unavailable := failed["to: unavailable: cluster unreachable; the operation may have completed"] +
		failed["to: unavailable: cluster unavailable; the event was not published"]
	if r.recovered+r.refused > 0 || unavailable == 0 {
		t.Errorf("%d clients reconnected, %d as new sockets; publishers failed with %v", r.recovered, r.refused, failed)
	}
	if !asker.Connected() {
		t.Error("a client was disconnected")
	}
}

// deafenForGood black-holes the connections that have subscribed, and no others
// come to be until mendSubscribers.
func (r *relay) deafenForGood() {
	r.set(func() { r.unheard = true })
	r.deafenSubscribers()
}

// awaitUnready waits until the node is not ready and reports the reason.
func (n *clusterNode) awaitUnready(reason string) {
	n.t.Helper()
	n.eventually("unready with the reason "+reason, func() error {
		status, body := n.ask(n.t, "/readyz")
		if status != http.StatusServiceUnavailable || !strings.Contains(body, reason) {
			return fmt.Errorf("%d: %s", status, body)
		}
		return nil
	})
}

// ask asks the internal port.
func (n *clusterNode) ask(t *testing.T, path string) (status int, body string) {
	t.Helper()
	response, err := internalHTTP.Get(httpURL(n.inside) + path)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return response.StatusCode, string(text)
}

// handshake tries to open a connection, and returns the status of the answer.
func (n *clusterNode) handshake(t *testing.T) int {
	t.Helper()
	response, err := internalHTTP.Get(httpURL(n.public) + "/socket.io/?EIO=4&transport=polling")
	if err != nil {
		t.Error(err)
		return 0
	}
	defer response.Body.Close()
	return response.StatusCode
}

// TestVolatileWhileRedisIsUnavailable: volatile events are dropped and counted, others are
// refused, and local events are still delivered.
func TestVolatileWhileRedisIsUnavailable(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	srv, front := serveOver(t, redis, "aaaa")
	var heard inbox.Inbox[string]
	l := sioclient.New(sioclient.Options{URL: wsURL(front.listener.Addr().String()), OnEvent: func(e sioclient.Event) { heard.Put(e.Name) }})
	defer l.Cut()
	if err := bounded(t.Context(), l.Connect); err != nil {
		t.Fatal(err)
	}
	if _, err := heard.Take(patience, func(e string) bool { return e == "welcome" }); err != nil {
		t.Fatal(err)
	}
	everyone := srv.Of("/").Everyone()
	redis.Pause()
	defer redis.Resume()
	for _, emit := range []struct {
		event string
		do    func(ctx context.Context) error
		fails bool
	}{
		{"volatile", func(ctx context.Context) error { return everyone.Volatile().Emit(ctx, "volatile") }, false},
		{"plain", func(ctx context.Context) error { return everyone.Emit(ctx, "plain") }, true},
		{"local", func(ctx context.Context) error { return everyone.Local().Emit(ctx, "local") }, false},
	} {
		began := time.Now()
		err := bounded(t.Context(), emit.do)
		known := errors.Is(err, adapter.ErrUnavailable) || errors.Is(err, adapter.ErrNotPublished)
		if emit.fails != known || !emit.fails && err != nil {
			t.Errorf("%s: %v", emit.event, err)
		}
		t.Logf("%s took %v", emit.event, time.Since(began))
	}
	if event, err := heard.Take(patience, func(string) bool { return true }); event != "local" {
		t.Errorf("got %q: %v", event, err)
	}
	if n := srv.Stats().VolatileDropped; n != 1 {
		t.Errorf("%d volatile events count as dropped", n)
	}
	redis.Resume()
	eventually(t, "publishing does not work", func() error {
		return bounded(t.Context(), func(ctx context.Context) error { return everyone.Emit(ctx, "again") })
	})
	if event, err := heard.Take(patience, func(e string) bool { return e != "plain" && e != "volatile" }); event != "again" { // the outcome of these is unknown
		t.Errorf("got %q: %v", event, err)
	}
}
