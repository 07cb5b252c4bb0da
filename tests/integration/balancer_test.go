package integration

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/tests/inbox"
)

// A balancer sends each request to the next ready node in turn, without
// affinity. It skips a node that refuses the connection, as balancers do.
type balancer struct {
	*httptest.Server
	t     *testing.T
	nodes []*clusterNode
	ready []atomic.Bool
	turn  atomic.Uint64
	base  *http.Transport

	failed inbox.Inbox[string] // requests that no node has answered
}

// A probe is how a balancer asks nodes whether they are ready: how often, and how
// many bad answers in a row it takes until one is not.
type probe struct {
	period   time.Duration
	failures int
}

// startBalancer starts a quick balancer for all nodes; the test's end ends it.
func startBalancer(t *testing.T, c *cluster) *balancer {
	t.Helper()
	return startProbing(t, c, probe{100 * time.Millisecond, 1})
}

// startProbing is startBalancer with another probe. It also asks nodes that are
// only started later.
func startProbing(t *testing.T, c *cluster, p probe) *balancer {
	t.Helper()
	b := &balancer{t: t, nodes: c.nodes, ready: make([]atomic.Bool, len(c.nodes)), base: &http.Transport{MaxIdleConnsPerHost: 100}}
	b.Server = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "in turn"})
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		Transport:     b,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			b.failed.Put(fmt.Sprintf("%s %s %s: %v", time.Now().Format("05.000"), r.Method, r.URL, err))
			w.WriteHeader(http.StatusBadGateway)
		},
	})
	for i := range c.nodes {
		b.ready[i].Store(b.check(i))
	}
	stop := make(chan struct{})
	var checking sync.WaitGroup
	for i := range c.nodes {
		checking.Go(func() {
			again := time.NewTicker(p.period)
			defer again.Stop()
			failed := 0
			for {
				select {
				case <-again.C:
					if failed++; b.check(i) {
						failed = 0
					}
					if failed == 0 || failed >= p.failures {
						b.ready[i].Store(failed == 0)
					}
				case <-stop:
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		close(stop)
		checking.Wait()
		b.CloseClientConnections()
		b.Close()
		b.base.CloseIdleConnections()
		if t.Failed() {
			t.Logf("the last requests that the balancer answered with 502:\n%s", &b.failed)
		}
	})
	return b
}

var healthHTTP = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true},
	Timeout:   time.Second,
}

// check asks a node whether it is ready.
func (b *balancer) check(i int) bool {
	response, err := healthHTTP.Get(httpURL(b.nodes[i].inside) + "/readyz")
	if err == nil {
		response.Body.Close()
	}
	return err == nil && response.StatusCode == http.StatusOK
}

var errNobody = errors.New("no node is ready")

// RoundTrip implements [http.RoundTripper].
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	err := errNobody
	for range b.nodes {
		i := int(b.turn.Add(1) % uint64(len(b.nodes)))
		if !b.ready[i].Load() {
			continue
		}
		out := r.Clone(r.Context())
		out.URL.Host = b.nodes[i].public
		var response *http.Response
		began := time.Now()
		response, err = b.base.RoundTrip(out)
		if took := time.Since(began); took > 5*time.Second && out.URL.Query().Get("transport") == "websocket" {
			b.t.Logf("balancer: node %s took %v for a WebSocket, since %s: %v", b.nodes[i].name, took, began.Format("05.000"), err)
		}
		if dial := (*net.OpError)(nil); !errors.As(err, &dial) || dial.Op != "dial" {
			return response, err
		}
	}
	return nil, err
}
