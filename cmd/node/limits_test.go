package main

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/limit"
)

// TestDefaultRates: the default limits allow the maximum that was measured of honest
// clients, in one instant, but only a small multiple of it: see decision 62. The
// measurement is TestHonestClientsMeetNoLimit.
func TestDefaultRates(t *testing.T) {
	c, _ := load()
	l := newLimits(c, zap.NewNop())
	admitted := func(address string, n int) (yes int) {
		for i := range n {
			if _, err := l.handshakes.Admit(&http.Request{RemoteAddr: fmt.Sprintf("%s:%d", address, 1+i)}); err == nil {
				yes++
			}
		}
		return yes
	}
	if n := admitted("192.0.2.1", 1100); n < 900 || n > 1050 {
		t.Errorf("got %d handshakes of an office, want at least 900, at most 1050", n)
	}
	if n := admitted("10.0.0.1", 900); n != 900 {
		t.Errorf("admitted %d handshakes of a possible load balancer, want 900", n)
	}
	for _, model := range []struct {
		name         string
		events, size int
		most         int // times that
	}{
		{"chat", 8, 910_000, 6},
		{"game", 2072, 84, 5},
		{"dashboard", 900, 26, 12},
	} {
		client, sent := l.clients.Client("ann"+model.name, "192.0.2.1:1"), 0
		for ; client.Allow(model.size) == nil; sent++ {
		}
		if sent < model.events || sent > model.events*model.most {
			t.Errorf("%s: %d concurrent events of %d bytes", model.name, sent, model.size)
		}
	}
	feed, dashboard := l.clients.Client("", "192.0.2.1:1"), l.clients.Client("ann", "192.0.2.1:1")
	for range 300 { // the first samples of a dashboard that is not visible yet
		copies, err := feed.Copy(1, 180, 1)
		if err != nil {
			t.Fatal(err)
		}
		copies.Done(1)
	}
	for range 30 { // its rooms concurrently, after as many lost connections
		if err := dashboard.Join(300); err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"ann", ""} {
		for dashboards := range 2 {
			client := l.clients.Client(user, "192.0.2.1:1")
			for range 300 {
				done, err := client.Read(t.Context(), "history")
				if err != nil {
					t.Fatal(err)
				}
				done(3_475_500 / 300)
			}
			if n := l.tally.Refused()[limit.ReadRate]; n > 0 {
				t.Fatalf("%d reads of dashboard %d of %q wait", n, dashboards+1, user)
			}
		}
	}
}

// An address may have several TCP connections for each of its connections, because browsers open
// several. They are limited, and so are the connections of all addresses and their headers.
func TestConnectionsAreLimited(t *testing.T) {
	c, _ := load()
	if got, want := c.publicPort().IPConnections, tcpPerClient*5000; got != want {
		t.Errorf("%d TCP connections of an address, want %d", got, want)
	}
	if got := c.sessions(); got != 0 {
		t.Errorf("got %d connections without GOMEMLIMIT, want 0", got)
	}
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(256 << 20))
	if got := c.sessions(); got != 6144 {
		t.Errorf("got %d connections with 256 MiB, want 6144", got)
	}
	l, admitted := newLimits(c, zap.NewNop()), 0
	large := &http.Request{RemoteAddr: "127.0.0.1:1", Header: http.Header{"Cookie": {strings.Repeat("c", 15<<10)}}}
	for ; admitted < 2000; admitted++ {
		if _, err := l.handshakes.Admit(large); err != nil {
			break
		}
	}
	if l.tally.Refused()[limit.HeaderBytes] != 1 || admitted < 1000 {
		t.Errorf("%d connections with large headers: %v", admitted, l.tally.Refused())
	}
	c.Sessions = 3
	if got := c.sessions(); got != 3 {
		t.Errorf("%d connections, want those that are configured", got)
	}
}
