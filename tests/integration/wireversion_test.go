package integration

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// TestNewerWireVersion: beside a node of a newer wire version, as in an update, a
// node reports that it is not ready, cuts its clients in the rooms whose events it
// cannot decode, and no others; they recover at the newer node.
func TestNewerWireVersion(t *testing.T) {
	t.Parallel()
	binary, err := nodetest.Build(t.TempDir(), "rejoin_next_wire_version")
	if err != nil {
		t.Fatal(err)
	}
	c := startCluster(t, 1)
	older := c.nodes[0]
	newer := c.add(func(*clusterNode) string { return c.redis.URL() }, nil)
	newer.binary = binary
	d := startDriver(t)
	front := startBalancer(t, c)
	ann := d.open("ann", newest, front.URL, transports["websocket"]) // there is one node yet
	eve := d.open("eve", newest, older.url(), transports["websocket"])
	ann.call("join", "x")
	eve.call("join", "y")
	newer.begin()
	newer.awaitReady()
	bob := d.open("bob", newest, newer.url(), transports["websocket"])
	bob.call("join", "x")

	ann.call("to", "x", "from the older node")
	bob.hears("from the older node")
	before, other := ann.state(), eve.state()
	bob.call("to", "x", "from the newer node", 1)
	ann.await("disconnect")
	if now := ann.await("connect"); !now.Recovered || now.ID != before.ID || c.owner(now.Engine) != newer.name {
		t.Errorf("not recovered at the newer node: %+v, before %+v", now.state, before)
	}
	ann.hears("from the newer node", "1")
	eve.call("self", "settled")
	eve.hears("settled")
	if now := eve.state(); now.Engine != other.Engine {
		t.Errorf("a client in another room was cut: %+v, before %+v", now, other)
	}
	resp, err := http.Get("http://" + older.internal + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "a peer runs a newer wire version") {
		t.Errorf("/readyz: %s %s", resp.Status, body)
	}
	if sum(older.metrics(), "rejoin_redis_newer_version_total") == 0 {
		t.Error("it is not counted")
	}
}
