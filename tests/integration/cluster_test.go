package integration

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// A cluster is some nodes over one Redis, each of which reaches it through a
// link of its own that can be broken. Its methods are for one goroutine at a
// time, but for url and ready.
type cluster struct {
	t     *testing.T
	redis *redistest.Server
	nodes []*clusterNode
}

// A clusterNode is a node that can be killed and restarted, at the same
// addresses but as another process.
type clusterNode struct {
	*node        // the process that runs, or ran last
	name         string
	public       string // address
	inside       string // internal address
	redis        *link  // to Redis
	feed         *relay // before it, which knows the subscriber's connection
	variables    []string
	binary       string          // of another build; "" for that under test
	logs         []*nodetest.Log // of all processes
	down, paused atomic.Bool
	id           atomic.Value // string: the node id of the process
}

// startCluster starts a Redis and some nodes with further variables, which are
// ready when it returns.
func startCluster(t *testing.T, nodes int, variables ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, redis: startRedis(t)}
	c.start(nodes, func(n *clusterNode) string {
		n.redis = startLink(t, c.redis.Addr)
		n.feed = startRelay(t, &node{addr: n.redis.addr()})
		return "redis://" + n.feed.listener.Addr().String()
	}, variables)
	return c
}

// start starts the nodes, which connect to Redis at the address of reach.
func (c *cluster) start(nodes int, reach func(*clusterNode) (url string), variables []string) {
	c.t.Helper()
	for range nodes {
		c.add(reach, variables).begin()
	}
	for _, n := range c.nodes {
		n.awaitReady()
	}
}

// add adds a node that does not run yet.
func (c *cluster) add(reach func(*clusterNode) (url string), variables []string) *clusterNode {
	c.t.Helper()
	t := c.t
	n := &clusterNode{name: string(rune('a' + len(c.nodes))), node: &node{t: t}}
	url := reach(n)
	n.public, n.inside = "127.0.0.1:"+redistest.FreePort(t), "127.0.0.1:"+redistest.FreePort(t)
	n.variables = append([]string{
		"REJOIN_ADDR=" + n.public, "REJOIN_INTERNAL_ADDR=" + n.inside,
		"REJOIN_REDIS_URL=" + url, "REJOIN_CLUSTER_SECRET=that of the tests' clusters",
		"REJOIN_DRAIN_DELAY=0s", "REJOIN_DRAIN_BUDGET=0s",
		"REJOIN_PING_INTERVAL=3s", "REJOIN_PING_TIMEOUT=5s",
	}, variables...)
	n.down.Store(true)
	n.id.Store("")
	c.nodes = append(c.nodes, n)
	return n
}

// begin starts a node that was added.
func (n *clusterNode) begin() {
	n.t.Helper()
	t := n.t
	n.launch(t)
	t.Cleanup(n.end)
}

func (n *clusterNode) launch(t *testing.T) {
	t.Helper()
	n.node = launchBinary(t, cmp.Or(n.binary, nodeBinary), n.variables...)
	n.logs = append(n.logs, n.log)
	n.id.Store(n.log.ID)
	n.down.Store(false)
}

// kill ends the process with SIGKILL.
func (n *clusterNode) kill() {
	n.t.Helper()
	n.down.Store(true)
	n.signal(syscall.SIGKILL)
	<-n.exited
	n.checkLog()
}

// term ends the process with SIGTERM and waits for a good end.
func (n *clusterNode) term() {
	n.t.Helper()
	n.leave(2 * patience) // a drain takes its time
}

// leave is term with the time that the node has.
func (n *clusterNode) leave(grace time.Duration) {
	n.t.Helper()
	n.down.Store(true)
	n.signal(syscall.SIGTERM)
	if n.paused.Load() { // otherwise it never gets it
		n.resume()
	}
	select {
	case <-n.exited:
		if n.status != nil {
			n.t.Errorf("node %s did not end well: %v", n.name, n.status)
		}
	case <-time.After(grace):
		n.t.Errorf("node %s does not end within %v of SIGTERM", n.name, grace)
		n.signal(syscall.SIGQUIT)
		<-n.exited
	}
	n.checkLog()
}

// restart starts a node that was ended, and returns once it is ready.
func (n *clusterNode) restart() {
	n.t.Helper()
	t := n.t
	n.launch(t)
	n.awaitReady()
}

// pause stops the process where it stands; resume lets it go on.
func (n *clusterNode) pause() {
	n.paused.Store(true)
	n.signal(syscall.SIGSTOP)
}

func (n *clusterNode) resume() {
	n.signal(syscall.SIGCONT)
	n.paused.Store(false)
}

// end is the end of the test.
func (n *clusterNode) end() {
	if !n.down.Load() {
		select {
		case <-n.exited:
			n.t.Errorf("node %s has ended by itself: %v", n.name, n.status)
			n.checkLog()
		default:
			n.term()
		}
	}
	if n.t.Failed() {
		n.keepLogs()
	}
}

// keepLogs writes the logs of all processes where go test -artifacts keeps them.
func (n *clusterNode) keepLogs() {
	dir := n.t.ArtifactDir()
	for i, log := range n.logs {
		file := filepath.Join(dir, fmt.Sprintf("node %s.%d %s.log", n.name, i, log.ID))
		if err := os.WriteFile(file, []byte(log.String()), 0o600); err != nil {
			n.t.Error(err)
		}
	}
	n.t.Logf("the end of the log of node %s (%s, %s); with -artifacts all of it is in %s:\n%s", n.name, n.public, n.log.ID, dir, n.log.Tail(60))
}

func (n *clusterNode) checkLog() {
	n.t.Helper()
	if n.log.Contains("DATA RACE") || n.log.Contains("panic") {
		n.t.Errorf("node %s: a data race or a panic\n%s", n.name, n.log.Tail(200))
	}
}

// relay starts a relay to a node, for faults of single connections.
func (n *clusterNode) relay() *relay {
	n.t.Helper()
	return startRelay(n.t, n.node)
}

// up reports whether the node can serve clients, as far as the test knows.
func (n *clusterNode) up() bool { return !n.down.Load() && !n.paused.Load() }

// roam returns one of the nodes that can serve clients. Anybody may call it at
// any time.
func (c *cluster) roam() *clusterNode {
	for _, i := range rand.Perm(len(c.nodes)) {
		if c.nodes[i].up() {
			return c.nodes[i]
		}
	}
	return c.nodes[rand.N(len(c.nodes))]
}

// owner returns the name of the node whose process made an engine session.
func (c *cluster) owner(engine string) string {
	for _, n := range c.nodes {
		if id := n.id.Load().(string); id != "" && strings.HasPrefix(engine, id) {
			return n.name
		}
	}
	return "former process"
}

// sum adds up a metric of all nodes that run.
func (c *cluster) sum(metric string, labels ...string) float64 {
	c.t.Helper()
	total := 0.0
	for _, n := range c.nodes {
		if n.up() {
			total += sum(n.metrics(), metric, labels...)
		}
	}
	return total
}

// lasting is the first duration where there is time for it, as in make chaos, and
// the second in make test.
func lasting(full, short time.Duration) time.Duration {
	if os.Getenv("REJOIN_TEST_CHAOS") != "" {
		return full
	}
	return short
}

func wsURL(addr string) string { return "ws://" + addr }

func httpURL(addr string) string { return "http://" + addr }
