package redis

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
)

// TestLeaseHolder is a node in a process of its own, which TestLease stops. It ends
// when its id is taken.
func TestLeaseHolder(t *testing.T) {
	url := os.Getenv("REJOIN_TEST_LEASE")
	if url == "" {
		t.Skip("it is for TestLease only")
	}
	target, err := redisurl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(t.Context(), Options{Redis: target, Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	<-a.Done()
	if err := a.Err(); !errors.Is(err, ErrTaken) {
		t.Error(err)
	}
	_ = a.Close()
}

func TestLease(t *testing.T) {
	t.Parallel() // it waits most of the time
	server := redistest.Start(t)
	holder := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLeaseHolder$")
	holder.Env = append(os.Environ(), "REJOIN_TEST_LEASE="+server.URL())
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	b := start(t, server.URL(), "b", Options{})
	holds := func(id adapter.NodeID) bool {
		members, err := b.Nodes(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			if m.ID == id {
				return true
			}
		}
		return false
	}
	eventually(t, "the other node is there", func() bool { return holds("a") })

	// While the node runs, no other node gets its id.
	ctx, cancel := context.WithTimeout(t.Context(), leaseLife/4)
	defer cancel()
	if a, err := New(ctx, options(t, server.URL(), "a", Options{})); !errors.Is(err, ErrTaken) {
		t.Errorf("New with the id of a live node: %v, want ErrTaken", err)
		if err == nil {
			_ = a.Close()
		}
	}

	// The node is stopped for longer than its lease, and another node takes its id.
	signal := func(s syscall.Signal) {
		if err := holder.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	began := time.Now()
	a := start(t, server.URL(), "a", Options{})
	if took := time.Since(began); took > leaseLife+leaseBeat+slack {
		t.Errorf("the id was free after %v, want at most %v", took, leaseLife+leaseBeat+slack)
	}
	signal(syscall.SIGCONT)
	late := time.AfterFunc(patience, func() { _ = holder.Process.Kill() })
	if err := holder.Wait(); err != nil {
		t.Errorf("the former holder has not ended by itself: %v", err)
	}
	late.Stop()
	if _, err := a.Head(deadline(t)); err != nil {
		t.Errorf("the new holder: %v", err)
	}

	// The resumed node detects that it has lost the id.
	if err := server.Client().HSet(t.Context(), a.registry.keys()[1], "a", "somebody else's secret").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Next(deadline(t)); !errors.Is(err, adapter.ErrClosed) || !errors.Is(err, ErrTaken) {
		t.Errorf("Next of a node that has lost its id: %v, want ErrClosed and ErrTaken", err)
	}
	if _, err := a.Publish(deadline(t), event("x", room("r"))); !errors.Is(err, adapter.ErrClosed) {
		t.Errorf("Publish of a node that has lost its id: %v, want ErrClosed", err)
	}
}
