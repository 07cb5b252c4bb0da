package integration

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// A link is a TCP link that can be cut, delayed, narrowed and black-holed.
type link struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

// startLink starts a link to an address; the test's end ends it.
func startLink(t *testing.T, to string) *link {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := &link{t, toxiproxy.NewProxy(server, t.Name(), "127.0.0.1:0", to)}
	l.mend()
	t.Cleanup(func() {
		l.clear()
		l.cut()
	})
	return l
}

func (l *link) addr() string { return l.proxy.Listen }

// cut closes all connections and refuses new ones until mend.
func (l *link) cut() { l.proxy.Stop() }

func (l *link) mend() {
	l.t.Helper()
	if err := l.proxy.Start(); err != nil {
		l.t.Fatal(err)
	}
}

// delay makes all that the far end sends take longer, until clear.
func (l *link) delay(milliseconds int) {
	l.add("latency", map[string]int{"latency": milliseconds})
}

// narrow lets through so many KB a second from the far end, until clear.
func (l *link) narrow(kbs int) { l.add("bandwidth", map[string]int{"rate": kbs}) }

// blackHole swallows all that is sent in both directions, until clear, which
// closes the connections that were open meanwhile.
func (l *link) blackHole() { l.add("timeout", map[string]int{"timeout": 0}) }

// clear ends delay, narrow and blackHole.
func (l *link) clear() { l.proxy.Toxics.ResetToxics(context.Background()) }

func (l *link) add(kind string, attributes map[string]int) {
	l.t.Helper()
	for _, stream := range []string{"upstream", "downstream"} {
		if kind != "timeout" && stream == "upstream" {
			continue
		}
		toxic, err := json.Marshal(map[string]any{"type": kind, "stream": stream, "attributes": attributes})
		if err != nil {
			l.t.Fatal(err)
		}
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(string(toxic))); err != nil {
			l.t.Fatal(err)
		}
	}
}
