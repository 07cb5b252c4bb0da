package main

import (
	"fmt"
	"net/http"
	"testing"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/limit"
)

// TestDefaultRates: the default limits let honest clients do the most that was measured of
// them, in one instant, and no more than some times that: see decision 62. The
// measurement itself is TestHonestClientsMeetNoLimit.
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
		t.Errorf("%d handshakes of an office", n)
	}
	if n := admitted("10.0.0.1", 900); n != 900 {
		t.Errorf("%d handshakes of what may be a balancer", n)
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
			t.Errorf("%s: %d events of %d bytes at once", model.name, sent, model.size)
		}
	}
	feed, dashboard := l.clients.Client("", "192.0.2.1:1"), l.clients.Client("ann", "192.0.2.1:1")
	for range 300 { // the first samples of a dashboard that nobody looks at yet
		copies, err := feed.Copy(1, 180, 1)
		if err != nil {
			t.Fatal(err)
		}
		copies.Done(1)
	}
	for range 30 { // its rooms at once, after as many losses of the connection
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
			if n := l.clients.Refused()[limit.ReadRate]; n > 0 {
				t.Fatalf("%d reads of dashboard %d of %q wait", n, dashboards+1, user)
			}
		}
	}
}
