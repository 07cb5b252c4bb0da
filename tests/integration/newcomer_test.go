package integration

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A newcomersFront sends new clients to the newest node and every later request of
// theirs to the other nodes in turn, of which each must find the newest.
type newcomersFront struct {
	*httptest.Server
	nodes atomic.Pointer[[]*clusterNode] // that are ready, the newest last
	turn  atomic.Int64
}

func startNewcomersFront(t *testing.T) *newcomersFront {
	f := &newcomersFront{}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	f.Server = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			nodes := *f.nodes.Load()
			newest := len(nodes) - 1
			to := nodes[newest]
			if newest > 0 && r.In.URL.Query().Get("sid") != "" {
				to = nodes[int(f.turn.Add(1))%newest]
			}
			r.SetURL(&url.URL{Scheme: "http", Host: to.public})
			r.Out.Host = r.In.Host
		},
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
	})
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
		transport.CloseIdleConnections()
	})
	return f
}

// TestFirstClientsOfANode: a cluster grows from one node to eight, and stock clients
// connect to each new node in the moment in which it becomes ready, on polling and
// with an upgrade. All their requests but the first reach other nodes, which have
// read the list of nodes just before, because clients with made-up session ids make
// them. Nobody loses the connection, and every upgrade succeeds.
func TestFirstClientsOfANode(t *testing.T) {
	const size, each = 8, 2
	c := &cluster{t: t, redis: startRedis(t)}
	f := startNewcomersFront(t)
	d := startDriver(t)
	ctx, cancel := context.WithCancel(t.Context())
	var strangers sync.WaitGroup
	defer strangers.Wait()
	defer cancel()
	var clients []*npmSocket
	for i := range size {
		n := c.add(func(*clusterNode) string { return c.redis.URL() }, nil)
		n.begin() // returns when the node is ready
		nodes := append([]*clusterNode(nil), c.nodes...)
		f.nodes.Store(&nodes)
		if i > 0 {
			for k := range each {
				for _, transport := range []string{"polling", "upgrade"} {
					s := d.open(fmt.Sprint(transport, " ", i, " ", k), newest, f.URL, transports[transport])
					if s.state().Engine[:4] != n.id.Load().(string) {
						t.Errorf("%s is not on the newest node, %s", s.name, n.name)
					}
					clients = append(clients, s)
				}
			}
			for _, s := range clients[len(clients)-2*each:] {
				if s.name[:7] == "upgrade" {
					s.awaitUpgrade()
				}
			}
		}
		strangers.Go(func() { askMadeUp(ctx, n.public) })
	}
	for _, s := range clients {
		s.call("join", "lobby")
	}
	clients[0].call("all", "hello")
	for _, s := range clients {
		s.hears("hello")
		if r, err := s.reports.Take(0, func(r report) bool { return r.Report == "disconnect" }); err == nil {
			t.Errorf("%s was disconnected: %s", s.name, r.Reason)
		}
	}
	if got := c.sum("rejoin_disconnects_total"); got > 0 {
		t.Errorf("the nodes count %v disconnects", got)
	}
}

// askMadeUp polls with session ids of nodes that do not exist.
func askMadeUp(ctx context.Context, node string) {
	for ctx.Err() == nil {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, httpURL(node)+"/socket.io/?EIO=4&transport=polling&sid="+rand.Text()[:20], nil)
		if err != nil {
			panic(err) // the URL is good
		}
		response, err := internalHTTP.Do(r)
		switch {
		case err == nil:
			response.Body.Close()
		case !errors.Is(err, context.Canceled):
			return // the node has ended
		}
		wait(ctx, 10*time.Millisecond)
	}
}
