package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestHonestClientsMeetNoLimit: a chat, a game and a dashboard of stock clients, at their
// busiest and from one address, meet none of the default limits.
func TestHonestClientsMeetNoLimit(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	n := c.nodes[0].node
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "client/models.js", n.url(), "2")
	out, err := cmd.CombinedOutput()
	var tallies map[string]struct {
		Second, Ten struct{ Events, Bytes int }
		Read        struct{ Pages, Bytes int }
		Failures    map[string]int
	}
	if err != nil || json.Unmarshal(out, &tallies) != nil || len(tallies) != 3 {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	for model, tally := range tallies {
		if len(tally.Failures) > 0 || tally.Ten.Events == 0 {
			t.Errorf("%s: %+v", model, tally)
		}
	}
	for name, value := range n.metrics() {
		if strings.HasPrefix(name, "rejoin_limited_total") && value > 0 {
			t.Errorf("%s is %v", name, value)
		}
	}
}

// TestReadRate: however many connections a client opens, the bytes that Redis sends for
// its history are limited, its acks report it, and another address is not affected.
func TestReadRate(t *testing.T) {
	t.Parallel()
	const rate, atOnce, page = 16 << 10, 256 << 10, 200_000
	c := startCluster(t, 1, "REJOIN_READ_RATE=16KiB", "REJOIN_TRUSTED_PROXIES=127.0.0.1")
	n := c.nodes[0].node
	d := startDriver(t)
	connections := 0
	reader := func(address string) *npmSocket {
		connections++
		s := d.open(fmt.Sprint(connections), newest, n.url(), map[string]any{
			"transports": []string{"websocket"}, "extraHeaders": map[string]string{"X-Forwarded-For": address},
		})
		s.call("join", "room")
		return s
	}
	first := reader("192.0.2.1")
	for range 10 {
		first.call("to", "room", "n", strings.Repeat("x", page/10))
	}
	sent := func() int { return (&scale{t: t, ctx: t.Context(), c: c}).work().bytes }
	before, begun, bytes, refused := sent(), time.Now(), 0, 0
	for refused < 3 {
		s := reader("192.0.2.1")
		for range 3 {
			switch r := s.try("history", "room"); {
			case r.OK:
				bytes += page
			case r.Code == "rate_limited" && strings.HasPrefix(r.Message, "too many bytes were read for this address; try again in "):
				refused++
			default:
				t.Fatalf("history: %+v", r)
			}
		}
	}
	took := time.Since(begun)
	if most := atOnce + int(rate*took.Seconds()); bytes > most || bytes == 0 {
		t.Errorf("%d bytes are read in %v, want at most %d", bytes, took, most)
	}
	if moved, most := sent()-before, bytes*11/10+connections*10_000+int(20_000*took.Seconds()); moved > most {
		t.Errorf("Redis has sent %d bytes for %d of history", moved, bytes)
	}
	if r := reader("192.0.2.2").try("history", "room"); !r.OK {
		t.Errorf("of another address: %+v", r)
	}
	if n.metrics()[`rejoin_limited_total{limit="read_rate"}`] == 0 {
		t.Error("not counted")
	}
}
