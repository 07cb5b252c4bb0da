//go:build unix

package main

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

// startWithDescriptors starts a node with a limit of descriptors.
func startWithDescriptors(t *testing.T, n uint64, variables map[string]string) (at listening, stop func() int) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	fewer := limit
	fewer.Cur = n
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &fewer); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}()
	return startNode(t, variables)
}

// A node that receives more forwarded clients than it has descriptors still answers at
// its internal port, and the clients continue on polling.
func TestForwardedClientsLeaveRoom(t *testing.T) {
	redis := redistest.Start(t)
	variables := map[string]string{"REJOIN_REDIS_URL": "redis://" + redis.Addr, "REJOIN_CLUSTER_SECRET": "that of the test's cluster"}
	near, stopNear := startNode(t, variables)
	owner, stopOwner := startWithDescriptors(t, 64, variables) // of which 52 are for forwarded requests
	var sids []string
	for range 60 {
		_, body := fetch(t, "http://"+owner.Addr+handshake)
		_, rest, _ := strings.Cut(body, `"sid":"`)
		sid, _, _ := strings.Cut(rest, `"`)
		sids = append(sids, sid)
	}
	refused := 0
	for i, sid := range sids {
		at := near.Addr + handshake + "&sid=" + sid
		ws, answer, err := websocket.DefaultDialer.Dial("ws://"+strings.Replace(at, "polling", "websocket", 1), nil)
		if err == nil {
			defer ws.Close()
			continue
		}
		if refused++; answer == nil || answer.StatusCode != http.StatusServiceUnavailable {
			t.Fatalf("upgrade %d: %v %v, want 503", i, err, answer)
		}
		if status, body := exchange(t, http.MethodPost, "http://"+at, "40"); status != 200 || body != "ok" {
			t.Fatalf("POST: %d %s, want 200, ok", status, body)
		}
		if status, body := fetch(t, "http://"+at); status != 200 || !strings.HasPrefix(body, `40{"sid":`) {
			t.Fatalf("GET: %d %s", status, body)
		}
	}
	if refused < 10 || refused > 20 {
		t.Errorf("%d upgrades were refused, want at least 10, at most 20", refused)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := fetch(t, "http://"+owner.Internal+path); status != 200 {
			t.Errorf("%s: %d %s, want 200", path, status, body)
		}
	}
	_, metrics := fetch(t, "http://"+owner.Internal+"/metrics")
	for _, line := range []string{`rejoin_limited_total{limit="internal_connections"} 0`, `rejoin_limited_total{limit="forwarded_to_nodes"} 0`} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the owner's metrics lack %s", line)
		}
	}
	if strings.Contains(metrics, `rejoin_limited_total{limit="forwarded_from_nodes"} 0`) || !regexp.MustCompile("\nrejoin_forward_received (4.|50)\n").MatchString(metrics) {
		t.Error("the owner's metrics do not count refused and received requests")
	}
	if codes := []int{stopNear(), stopOwner()}; !slices.Equal(codes, []int{0, 0}) {
		t.Errorf("exit codes %d", codes)
	}
}

func TestShares(t *testing.T) {
	for _, n := range []int{512, 1024, 4096, 65_536, 1 << 20} {
		var c config
		s := c.shares(n)
		if s.clients != n/4*3 || s.forwarded <= s.clients || s.internal != n/8 || s.forwarded+s.internal > n-n/16 {
			t.Errorf("%d descriptors: got shares %+v, want three quarters for clients and an eighth for the internal port", n, s)
		}
		c.Connections = 100
		if set := c.shares(n); set.clients != 100 || set.forwarded != s.forwarded || set.internal != s.internal {
			t.Errorf("%d with 100 public connections: %+v", n, set)
		}
	}
	var c config
	if s := c.shares(0); s != (shares{}) {
		t.Errorf("with an unknown number: %+v", s)
	}
}
