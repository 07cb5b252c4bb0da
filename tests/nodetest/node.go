package nodetest

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// A Node is a running node that a test attacks.
type Node struct {
	T              *testing.T
	Addr, Internal string
	Log            *Log
	process        *os.Process
	exited         chan struct{} // closed once the process has ended and status is set
	status         error
	secrets        []string
}

// Secret registers a secret of the node and its peers. When the node has ended, its
// log must not contain it.
func (n *Node) Secret(text string) { n.secrets = append(n.secrets, text) }

// Start starts a node on free ports of 127.0.0.1 with some REJOIN_ variables. When
// the test ends the node must end on SIGTERM with exit status 0, and have logged
// neither a data race nor a panic.
func Start(t *testing.T, binary string, variables ...string) *Node {
	t.Helper()
	cmd := Command(binary, append([]string{
		"REJOIN_ADDR=127.0.0.1:0", "REJOIN_INTERNAL_ADDR=127.0.0.1:0", "REJOIN_DRAIN_DELAY=0s", "REJOIN_DRAIN_BUDGET=0s",
		"REJOIN_LOG_LEVEL=debug", // nothing leaks into the log however much is logged
	}, variables...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &Node{T: t, Log: NewLog(), process: cmd.Process, exited: make(chan struct{})}
	go func() { // ends with the process
		n.Log.Read(stderr)
		n.status = cmd.Wait()
		close(n.exited)
	}()
	t.Cleanup(n.stop)
	select {
	case <-n.Log.Listening:
		n.Addr, n.Internal = n.Log.Addr, n.Log.Internal
	case <-n.exited:
		t.Fatalf("the node exited immediately: %v\n%s", n.status, n.Log)
	case <-time.After(Patience):
		t.Fatalf("the node does not listen\n%s", n.Log)
	}
	return n
}

// Pid returns the id of the node's process.
func (n *Node) Pid() int { return n.process.Pid }

func (n *Node) stop() {
	select {
	case <-n.exited:
		n.T.Errorf("the node has ended by itself: %v\n%s", n.status, n.Log)
		return
	default:
	}
	_ = n.process.Signal(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(Patience):
		_ = n.process.Signal(syscall.SIGQUIT) // shows the goroutines
		<-n.exited
	}
	if n.status != nil || n.Log.Contains("DATA RACE") || n.Log.Contains("panic") {
		n.T.Errorf("the node did not end well: %v\n%s", n.status, n.Log)
	}
	for _, text := range n.secrets {
		if text == "" || n.Log.Contains(text) {
			n.T.Errorf("the log shows the secret %q", text)
		}
	}
}

// Metrics returns the node's samples; see [Scrape].
func (n *Node) Metrics() map[string]float64 {
	n.T.Helper()
	samples, err := Scrape(n.Internal)
	if err != nil {
		n.T.Fatal(err)
	}
	return samples
}

// Eventually polls until check returns true, for conditions without a
// notification. It reports whether check did, and fails t if not.
func Eventually(t *testing.T, otherwise string, check func() error) bool {
	t.Helper()
	pause := time.Millisecond // grows: most of it comes soon, and checks cost something
	again := time.NewTimer(pause)
	defer again.Stop()
	end := time.After(Patience)
	for {
		err := check()
		if err == nil {
			return true
		}
		select {
		case <-again.C:
			pause = min(2*pause, 20*time.Millisecond)
			again.Reset(pause)
		case <-end:
			t.Errorf("%s after %v: %v", otherwise, Patience, err)
			return false
		}
	}
}
