package socketio

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A deafAdapter cannot send evictions for a while.
type deafAdapter struct {
	adapter.Adapter
	failures atomic.Int32 // still to come
	sent     atomic.Int32
}

func (a *deafAdapter) Send(ctx context.Context, to adapter.NodeID, m adapter.Message) error {
	if m.Kind != messageEvict {
		return a.Adapter.Send(ctx, to, m)
	}
	if a.failures.Add(-1) >= 0 {
		return adapter.ErrNoNode
	}
	a.sent.Add(1)
	return a.Adapter.Send(ctx, to, m)
}

// startDeaf starts two nodes, of which the second one cannot send some evictions, and connects clients
// to the first one.
func startDeaf(t *testing.T, failures int32) (n *testNode, deaf *testNode, a *deafAdapter, leave func(), clients []*wire) {
	t.Helper()
	c := newCluster(adapter.MemoryOptions{})
	first, err := c.memory.Node("aaaa")
	must(t, err)
	second, err := c.memory.Node("bbbb")
	must(t, err)
	t.Cleanup(func() { _ = first.Close(); _ = second.Close() })
	a = &deafAdapter{Adapter: second}
	a.failures.Store(failures)
	n = start(t, Options{Adapter: first, Sessions: c.sessions})
	deaf = start(t, Options{Adapter: a, Sessions: c.sessions})
	for range 5 {
		clients = append(clients, n.client(t))
	}
	return n, deaf, a, func() { _ = first.Close() }, clients
}

// The former connection of a client ends soon also if its node could not be notified at
// first.
func TestEvictionsAreRepeated(t *testing.T) {
	n, deaf, a, _, clients := startDeaf(t, 3)
	for _, w := range clients {
		if b := deaf.back(t, w); b.sid != w.sid {
			t.Fatal("not recovered")
		}
	}
	eventually(t, "the former connections have ended", func() bool { return n.Len() == 0 })
	if sent := a.sent.Load(); sent != int32(len(clients)) {
		t.Errorf("%d are sent for %d clients", sent, len(clients))
	}
	eventually(t, "nothing waits", func() bool {
		deaf.evictions.mu.Lock()
		defer deaf.evictions.mu.Unlock()
		return len(deaf.evictions.waiting) == 0
	})
}

// A losingAdapter can report that messages were lost.
type losingAdapter struct {
	adapter.Adapter
	lost chan func() // gets what is to be called then
}

func (a *losingAdapter) OnMessagesLost(f func()) { a.lost <- f }

// dropEvictions are adapters whose evictions never arrive.
type dropEvictions struct{ adapter.Adapter }

func (a dropEvictions) Send(ctx context.Context, to adapter.NodeID, m adapter.Message) error {
	if m.Kind == messageEvict {
		return nil
	}
	return a.Adapter.Send(ctx, to, m)
}

// A failingRefresh is a store of which some refreshes fail, as when a server of a Cluster does not answer.
type failingRefresh struct {
	session.Store
	failures atomic.Int32 // still to come
}

func (s *failingRefresh) Refresh(ctx context.Context, refs []session.Ref, life time.Duration) ([]session.Ref, error) {
	if s.failures.Add(-1) >= 0 {
		return nil, errors.New("a server does not answer")
	}
	return s.Store.Refresh(ctx, refs, life)
}

// startLosing starts a node that can report lost messages, and one whose evictions never arrive.
func startLosing(t *testing.T) (n, other *testNode, a *losingAdapter, sessions *failingRefresh) {
	t.Helper()
	c := newCluster(adapter.MemoryOptions{})
	first, err := c.memory.Node("aaaa")
	must(t, err)
	second, err := c.memory.Node("bbbb")
	must(t, err)
	t.Cleanup(func() { _ = first.Close(); _ = second.Close() })
	a, sessions = &losingAdapter{first, make(chan func(), 1)}, &failingRefresh{Store: c.sessions}
	n = start(t, Options{Adapter: a, Sessions: sessions})
	return n, start(t, Options{Adapter: dropEvictions{second}, Sessions: c.sessions}), a, sessions
}

// A node to which messages may have been lost looks whether its clients have moved.
func TestLostEvictions(t *testing.T) {
	n, other, a, _ := startLosing(t)
	w, stays := n.client(t), n.client(t)
	if b := other.back(t, w); b.sid != w.sid {
		t.Fatal("not recovered")
	}
	if n.Len() != 2 {
		t.Errorf("%d sockets before it is known, want 2", n.Len())
	}
	receive(t, a.lost)()
	eventually(t, "the former connection has ended", func() bool { return n.Len() == 1 })
	must(t, other.Emit(t.Context(), "e"))
	stays.want(`["e"]`)
}

// Such a node looks again soon if the store does not answer at first.
func TestLostEvictionsAndAFailingRefresh(t *testing.T) {
	n, other, a, sessions := startLosing(t)
	w := n.client(t)
	if b := other.back(t, w); b.sid != w.sid {
		t.Fatal("not recovered")
	}
	sessions.failures.Store(1)
	receive(t, a.lost)()
	eventually(t, "the former connection has ended", func() bool { return n.Len() == 0 })
}

// Evictions for a node that has left the cluster are given up, and a few attempts are made for all of
// them.
func TestEvictionsEndWithTheNode(t *testing.T) {
	const always = 1 << 30
	_, deaf, a, leave, clients := startDeaf(t, always)
	for _, w := range clients {
		deaf.back(t, w)
	}
	eventually(t, "they wait", func() bool {
		deaf.evictions.mu.Lock()
		defer deaf.evictions.mu.Unlock()
		return len(deaf.evictions.waiting["aaaa"]) == len(clients)
	})
	leave()
	eventually(t, "nothing waits", func() bool {
		deaf.evictions.mu.Lock()
		defer deaf.evictions.mu.Unlock()
		return len(deaf.evictions.waiting) == 0
	})
	if tried := always - a.failures.Load(); tried > 100 {
		t.Errorf("got %d attempts, want at most 100", tried)
	}
}

// A node keeps a bounded number of evictions.
func TestWaitingEvictionsAreBounded(t *testing.T) {
	var w evictions
	for range maxEvictions + 10 {
		w.add("a", eviction{}, true)
	}
	if n := w.giveUp("a"); n != maxEvictions {
		t.Errorf("%d wait, want %d", n, maxEvictions)
	}
	if w.add("a", eviction{}, false) {
		t.Error("one waits behind none")
	}
}
