package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// findNewcomers checks that every peer can find a node as soon as New has returned, also
// while clients with invented session ids keep the peers' lists of nodes fresh.
func findNewcomers(t *testing.T, c *cluster) {
	var peers []*Adapter
	for i := range 3 {
		peers = append(peers, c.addressed(t, fmt.Sprint("peer", i), "10.0.0.1:1"))
	}
	madeUp, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	for _, p := range peers {
		clients.Go(func() {
			for i := 0; madeUp.Err() == nil; i++ {
				if _, err := p.Address(madeUp, adapter.NodeID(fmt.Sprint("x", i)), ""); madeUp.Err() == nil && !errors.Is(err, adapter.ErrNoNode) {
					t.Errorf("address of a node that does not exist: %v, want ErrNoNode", err)
				}
			}
		})
	}
	for i := range 5 {
		id, addr := adapter.NodeID(fmt.Sprint("new", i)), fmt.Sprint("10.0.0.2:", i+1)
		newcomer := c.addressed(t, string(id), addr)
		var asking sync.WaitGroup
		for _, p := range peers {
			asking.Go(func() {
				if got, err := p.Address(deadline(t), id, ""); got != addr || err != nil {
					t.Errorf("%s finds the new node %s at %q, %v, want %q", p.Node(), id, got, err, addr)
				}
			})
		}
		asking.Wait()
		if !lists(t, peers[0], id) {
			t.Errorf("%s does not list the new node %s", peers[0].Node(), id)
		}
		if err := newcomer.Close(); err != nil {
			t.Fatal(err)
		}
		if lists(t, peers[0], id) {
			t.Errorf("%s lists %s, which has left", peers[0].Node(), id)
		}
		// The node restarts with the same id at another address, while peers know the
		// former address.
		moved := c.addressed(t, string(id), addr+"0")
		if got, err := peers[0].Address(deadline(t), id, addr); got != addr+"0" || err != nil {
			t.Errorf("%s is found at %q, %v, after it has moved to %q, want %q", id, got, err, addr+"0", addr+"0")
		}
		if err := moved.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// lists reports whether a node is in the list that another node has read.
func lists(t *testing.T, a *Adapter, id adapter.NodeID) bool {
	t.Helper()
	members, err := adapter.FreshNodes(deadline(t), a)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(members, func(m adapter.Member) bool { return m.ID == id })
}

// addressed starts a node with an address.
func (c *cluster) addressed(t *testing.T, id, addr string) *Adapter {
	t.Helper()
	o := c.o
	o.Node, o.Address, o.Logger = adapter.NodeID(id), addr, zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)).Named(id)
	a, err := New(deadline(t), o)
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// TestMadeUpNodes: for many invented session ids Redis gets a bounded number of commands,
// and every client gets an answer.
func TestMadeUpNodes(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	const clients, during = 64, time.Second
	var all sync.WaitGroup
	before := calls(t, server.Client())
	end := time.Now().Add(during)
	for i := range clients {
		all.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				if _, err := a.Address(deadline(t), adapter.NodeID(fmt.Sprint("x", i, n)), ""); !errors.Is(err, adapter.ErrNoNode) {
					t.Errorf("%v, want ErrNoNode", err)
				}
			}
		})
	}
	all.Wait()
	// Each look-up is one script that calls about five commands.
	lookups := int(during/lookupPause) + 2
	idle := 50
	if n := calls(t, server.Client()) - before; n > 8*lookups+idle {
		t.Errorf("Redis executed %d commands in %v for %d clients, want at most those of %d look-ups", n, during, clients, lookups)
	}
}

// calls returns how many commands a server has executed.
func calls(t *testing.T, c *goredis.Client) (n int) {
	t.Helper()
	stats, err := c.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(stats) {
		if _, rest, ok := strings.Cut(line, "calls="); ok {
			count, _, _ := strings.Cut(rest, ",")
			k, err := strconv.Atoi(count)
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
	}
	return n
}

// TestLookupWithoutRedis: while Redis does not answer, no node is declared missing, and
// known nodes stay known.
func TestLookupWithoutRedis(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	b := start(t, server.URL(), "b", Options{Address: "10.0.0.2:1"})
	if addr, err := a.Address(deadline(t), b.Node(), ""); addr != "10.0.0.2:1" || err != nil {
		t.Fatalf(`got %q, %v, want "10.0.0.2:1"`, addr, err)
	}
	server.Pause()
	defer server.Resume()
	if addr, err := a.Address(deadline(t), b.Node(), ""); addr != "10.0.0.2:1" || err != nil {
		t.Errorf(`a known node: %q, %v, want "10.0.0.2:1"`, addr, err)
	}
	for name, node := range map[string]string{"unknown": "c", "moved": "b"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if addr, err := a.Address(ctx, adapter.NodeID(node), "10.0.0.2:1"); err == nil || errors.Is(err, adapter.ErrNoNode) {
			t.Errorf("%s: %q, %v, though Redis has said nothing", name, addr, err)
		}
		cancel()
	}
}
