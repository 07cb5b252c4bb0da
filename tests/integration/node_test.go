package integration

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// A node is one running process of the node under test.
type node struct {
	t        *testing.T
	addr     string // public
	internal string
	process  *os.Process
	log      *nodetest.Log
	exited   chan struct{} // closed once the process has ended and status is set
	status   error
	atStart  footprint
	ended    bool // the test has ended it
}

// A footprint is the resources that a node holds. It returns to its size at the
// start after all clients have disconnected.
type footprint struct{ goroutines, descriptors int }

// startNode starts a node on free ports of 127.0.0.1 with some REJOIN_
// variables. When the test ends, after the clients that the test starts later,
// the node must shrink to its size at the start, end on SIGTERM with exit
// status 0, and have logged neither a data race nor a panic.
func startNode(t *testing.T, variables ...string) *node {
	t.Helper()
	n := launch(t, append([]string{
		"REJOIN_ADDR=127.0.0.1:0", "REJOIN_INTERNAL_ADDR=127.0.0.1:0",
		"REJOIN_DRAIN_DELAY=0s", "REJOIN_DRAIN_BUDGET=0s", // there is no balancer and no other client
		// A polling client that vanishes between two polls is noticed by its silence.
		"REJOIN_PING_INTERVAL=3s", "REJOIN_PING_TIMEOUT=5s",
	}, variables...)...)
	t.Cleanup(n.stop)
	n.awaitReady()
	n.atStart = n.footprint()
	return n
}

// launch starts a node with some REJOIN_ variables and no others, and waits
// until it listens. The caller ends the node.
func launch(t *testing.T, variables ...string) *node {
	t.Helper()
	return launchBinary(t, nodeBinary, variables...)
}

// launchBinary is launch for a node of another build.
func launchBinary(t *testing.T, binary string, variables ...string) *node {
	t.Helper()
	cmd := nodetest.Command(binary, variables...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, process: cmd.Process, log: nodetest.NewLog(), exited: make(chan struct{})}
	go func() { // ends with the process
		n.log.Read(stderr)
		n.status = cmd.Wait()
		close(n.exited)
	}()
	otherwise := "does not say that it listens"
	select {
	case <-n.log.Listening:
		n.addr, n.internal = n.log.Addr, n.log.Internal
		return n
	case <-n.exited:
		otherwise = fmt.Sprintf("ended immediately: %v", n.status)
	case <-time.After(patience):
		n.process.Kill()
		<-n.exited
	}
	t.Fatalf("the node %s\n%s", otherwise, n.log)
	return nil
}

func (n *node) url() string { return "http://" + n.addr }

func (n *node) awaitReady() {
	n.t.Helper()
	n.eventually("ready", func() error {
		response, err := internalHTTP.Get("http://" + n.internal + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz: %s", response.Status)
		}
		return nil
	})
}

func (n *node) stop() {
	if n.ended {
		return
	}
	select {
	case <-n.exited:
		n.t.Errorf("the node has ended by itself: %v\n%s", n.status, n.log)
		return
	default:
	}
	end := syscall.SIGTERM
	if n.atStart != (footprint{}) && !n.t.Failed() && !n.shrinks() {
		end = syscall.SIGQUIT // shows the goroutines
	}
	n.signal(end)
	n.awaitEnd()
}

func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.process.Signal(s); err != nil {
		n.t.Error(err)
	}
}

// awaitEnd waits for the end that a signal has asked for.
func (n *node) awaitEnd() {
	n.t.Helper()
	n.ended = true
	select {
	case <-n.exited:
		if n.status != nil {
			n.t.Errorf("the node did not end well: %v", n.status)
		}
	case <-time.After(patience):
		n.t.Error("the node does not end")
		n.process.Signal(syscall.SIGQUIT)
		<-n.exited
	}
	if n.log.Contains("DATA RACE") || n.log.Contains("panic") {
		n.t.Error("a data race or a panic")
	}
	if n.t.Failed() {
		n.t.Logf("the node's log:\n%s", n.log)
	}
}

// shrinks waits until the node holds no more than at its start.
func (n *node) shrinks() bool {
	n.t.Helper()
	return n.eventually("as small as at the start", func() error {
		now := n.footprint()
		if now.goroutines > n.atStart.goroutines || now.descriptors > n.atStart.descriptors {
			return fmt.Errorf("at the start %+v, now %+v", n.atStart, now)
		}
		return nil
	})
}

// eventually waits until check is content.
func (n *node) eventually(what string, check func() error) bool {
	n.t.Helper()
	return eventually(n.t, "the node is not "+what, check)
}

// eventually asks again until check is content; see [nodetest.Eventually].
func eventually(t *testing.T, otherwise string, check func() error) bool {
	t.Helper()
	return nodetest.Eventually(t, otherwise, check)
}

// internalHTTP keeps no connections, which would count as the node's own.
var internalHTTP = nodetest.HTTP

// metrics returns the node's samples by their names with labels, as they stand
// in the exposition format.
func (n *node) metrics() map[string]float64 {
	n.t.Helper()
	samples, err := n.scrape()
	if err != nil {
		n.t.Fatal(err)
	}
	return samples
}

func (n *node) scrape() (map[string]float64, error) { return nodetest.Scrape(n.internal) }

// sum adds up the samples of one metric whose labels contain all of some texts.
func sum(samples map[string]float64, metric string, labels ...string) float64 {
	total := 0.0
next:
	for name, value := range samples {
		if name != metric && !strings.HasPrefix(name, metric+"{") {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(name, label) {
				continue next
			}
		}
		total += value
	}
	return total
}

func (n *node) footprint() footprint {
	n.t.Helper()
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	return footprint{int(n.metrics()["go_goroutines"]), len(descriptors)}
}
