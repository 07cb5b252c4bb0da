package main

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

func TestClusterSecret(t *testing.T) {
	environment(t, map[string]string{"REJOIN_REDIS_URL": "redis://127.0.0.1:6379"})
	if _, r := load(); len(r.problems) != 1 || !strings.HasPrefix(r.problems[0], "REJOIN_CLUSTER_SECRET=") {
		t.Errorf("a cluster without a secret: %q", r.problems)
	}
	environment(t, map[string]string{"REJOIN_REDIS_URL": "redis://127.0.0.1:6379", "REJOIN_CLUSTER_SECRET": "0123456789abcde"})
	if _, r := load(); len(r.problems) != 0 || len(r.warnings) != 1 || !strings.Contains(r.warnings[0], "only 15 characters") {
		t.Errorf("a short one: %+v", r)
	}
	environment(t, map[string]string{"REJOIN_INTERNAL_ADDR": ":3001", "REJOIN_CLUSTER_SECRET": "0123456789abcdef"})
	if _, r := load(); len(r.problems)+len(r.warnings) != 0 {
		t.Errorf("a good one, and an internal port for others: %+v", r)
	}
}

// Errors contain no secret.
func TestSecretsAreNotShown(t *testing.T) {
	const hidden = "swordfish"
	for name, args := range map[string][]string{"REJOIN_CLUSTER_SECRET": {"-check"}, "REJOIN_CLUSTER_SECRETE": {"-check"}, "REJOIN_CLUSTER_SECRE": {"-h"}} {
		environment(t, map[string]string{name: hidden})
		if _, stdout, stderr := execute(t, args...); strings.Contains(stdout+stderr, hidden) {
			t.Errorf("%s %q: the output shows the secret: %s%s", name, args, stdout, stderr)
		}
	}
	environment(t, map[string]string{"REJOIN_CLUSTER_SECRET": hidden, "REJOIN_ADDR": "127.0.0.1:0", "REJOIN_INTERNAL_ADDR": "127.0.0.1:0", "REJOIN_LOG_LEVEL": "debug"})
	if code, stdout, stderr := execute(t); code != 0 || strings.Contains(stdout+stderr, hidden) {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

func TestAdvertised(t *testing.T) {
	listening := &net.TCPAddr{IP: net.IPv4zero, Port: 41234}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	here := reachable(addrs)
	for _, test := range []struct{ advertise, internal, want string }{
		{"", "127.0.0.1:3001", "127.0.0.1:3001"},
		{"", "127.0.0.1:0", "127.0.0.1:41234"},
		{"", "node7.internal:3001", "node7.internal:3001"},
		{"", "0.0.0.0:3001", net.JoinHostPort(here, "3001")},
		{"", ":0", net.JoinHostPort(here, "41234")},
		{"10.0.0.7:4001", "127.0.0.1:3001", "10.0.0.7:4001"},
		{"node7.internal:0", ":3001", "node7.internal:41234"},
		{"[::]:4001", "127.0.0.1:3001", net.JoinHostPort(here, "4001")},
	} {
		var c config
		if err := c.InternalAddr.Decode(test.internal); err != nil {
			t.Fatal(err)
		}
		if err := c.AdvertiseAddr.Decode(test.advertise); err != nil {
			t.Fatal(err)
		}
		got, err := advertised(c, listening)
		if strings.HasPrefix(test.want, ":") { // on a machine without a network
			if err == nil {
				t.Errorf("%+v: got %s, although it is unreachable", test, got)
			}
			continue
		}
		if err != nil || got != test.want {
			t.Errorf("%+v: %s, %v, want %s", test, got, err, test.want)
		}
	}
}

func TestReachable(t *testing.T) {
	for _, test := range []struct {
		all  []string
		want string
	}{
		{nil, ""},
		{[]string{"127.0.0.1/8", "::1/128", "fe80::1/64", "169.254.0.1/16"}, ""},
		{[]string{"127.0.0.1/8", "10.1.2.3/24", "192.168.0.1/24"}, "10.1.2.3"},
		{[]string{"2001:db8::7/64", "fd00::7/64", "10.1.2.3/24"}, "10.1.2.3"},
		{[]string{"::1/128", "2001:db8::7/64", "fd00::7/64"}, "2001:db8::7"},
	} {
		var all []net.Addr
		for _, s := range test.all {
			ip, network, err := net.ParseCIDR(s)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, &net.IPNet{IP: ip, Mask: network.Mask})
		}
		if got := reachable(all); got != test.want {
			t.Errorf("of %q %q was chosen, want %q", test.all, got, test.want)
		}
	}
}

func TestSingleNodeForwardsNothing(t *testing.T) {
	cl, err := alone(config{NodeID: "n001"})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.close()
	if f, err := newForwarder(config{NodeID: "n001", ClusterSecret: "0123456789abcdef"}, cl.adapter, &limits{}, zap.NewNop()); f != nil || err != nil {
		t.Errorf("newForwarder: got %v, %v, want nil for a single node", f, err)
	}
}

// A session that begins at one node continues through another one that does not
// own it.
func TestNodesAnswerForEachOther(t *testing.T) {
	redis := redistest.Start(t)
	variables := map[string]string{"REJOIN_REDIS_URL": "redis://" + redis.Addr, "REJOIN_CLUSTER_SECRET": "that of the test's cluster"}
	owner, stopOwner := startNode(t, variables)
	near, stopNear := startNode(t, variables)
	session := "/socket.io/?EIO=4&transport=polling"
	_, handshake := fetch(t, "http://"+owner.Addr+session)
	_, rest, _ := strings.Cut(handshake, `"sid":"`)
	sid, _, _ := strings.Cut(rest, `"`)
	session += "&sid=" + sid
	if status, body := exchange(t, http.MethodPost, "http://"+near.Addr+session, "40"); status != 200 || body != "ok" {
		t.Errorf("POST at another node: %d %s, want 200, ok", status, body)
	}
	if status, body := fetch(t, "http://"+near.Addr+session); status != 200 || !strings.HasPrefix(body, `40{"sid":`) {
		t.Errorf("GET at another node: %d %s", status, body)
	}
	if status, body := fetch(t, "http://"+owner.Internal+"/internal/forward"+session); status != 403 || !strings.Contains(body, `"code":"unsigned"`) {
		t.Errorf("a stranger at the internal port: %d %s", status, body)
	}
	codes := []int{stopOwner()}
	if status, body := fetch(t, "http://"+near.Addr+session); status != 400 || !strings.HasPrefix(body, `{"code":1,`) {
		t.Errorf("owner stopped: got %d %s", status, body)
	}
	if codes = append(codes, stopNear()); !slices.Equal(codes, []int{0, 0}) {
		t.Errorf("exit codes %d", codes)
	}
}
