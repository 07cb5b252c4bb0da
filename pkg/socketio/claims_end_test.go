package socketio

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A client that leaves a namespace ends its session, even while handlers of its
// socket still run: when it joins again, on any node and also on the same connection,
// it gets a new session, and OnDisconnect is called for the former one.
func TestLeaveAndJoinAgainIsANewSession(t *testing.T) {
	for _, where := range []string{"same connection", "same node", "other node"} {
		t.Run(where, func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{})
			n, other := c.node(t, "a", Options{}), c.node(t, "b", Options{})
			n.Of("/other")
			told := make(chan string, 1)
			n.OnConnect(func(s *Socket) { s.OnDisconnect(func(Reason) { told <- s.ID() }) })
			busy, release := make(chan struct{}), make(chan struct{})
			n.On("busy", func(context.Context, *Event) error {
				close(busy)
				<-release
				return nil
			})
			joining(n.Namespace)
			joining(other.Namespace)
			a := n.dial(t).connect("/other", "").connect("/", "")
			sid, pid := a.sid, a.pid
			a.write(`42["busy"]`)
			<-busy
			a.write("41")
			b := a
			if where != "same connection" {
				eventually(t, "the socket has ended", func() bool { return n.owned.over(pid) })
				b = n.dial(t)
			}
			if where == "other node" {
				eventually(t, "the session has ended", func() bool {
					_, _, err := c.sessions.Claim(t.Context(), pid, "", time.Minute, func(session.Session) error { return errors.ErrUnsupported })
					return errors.Is(err, session.ErrNotFound)
				})
				b = other.dial(t)
			}
			b.connect("/", fmt.Sprintf(`{"pid":%q}`, pid))
			if b.sid == sid {
				t.Error("recovered a session that its client has ended")
			}
			close(release)
			select {
			case id := <-told:
				if id != sid {
					t.Errorf("OnDisconnect of %s, want %s", id, sid)
				}
			case <-time.After(patience):
				t.Error("OnDisconnect was not called")
			}
			b.quiet()
		})
	}
}

// A socket that was evicted by a claim is disconnected if the claim fails, because its
// client is then no longer connected: OnDisconnect is called, once.
func TestFailedClaim(t *testing.T) {
	for _, where := range []string{"same node", "other node"} {
		for _, how := range []string{"refused", "cut", "cut before the answer", "two claims"} {
			t.Run(where+", "+how, func(t *testing.T) {
				c := newCluster(adapter.MemoryOptions{})
				limit := 1
				if how != "refused" {
					limit = 10
				}
				n, hold := c.holdingNode(t, "a", limit)
				told := make(chan string, 10)
				n.OnConnect(func(s *Socket) {
					s.OnDisconnecting(func(Reason) { told <- "leaving" })
					s.OnDisconnect(func(Reason) { told <- s.ID() })
				})
				at := n
				if where == "other node" {
					at, hold = c.holdingNode(t, "b", limit)
				}
				joining(at.Namespace)
				a := n.client(t) // stays open, like a connection after a network failure
				must(t, n.Emit(t.Context(), "n", 1))
				must(t, n.Emit(t.Context(), "n", 2))
				hold.claims.Store(how == "cut before the answer")
				hold.subscriptions.Store(how == "cut" || how == "two claims")
				claim := func() *wire {
					b := at.dial(t)
					b.write(fmt.Sprintf(`40{"pid":%q}`, a.pid))
					return b
				}
				b := claim()
				if how == "two claims" {
					<-hold.reached
					b = claim()
				}
				if how == "refused" {
					if m := b.next(); strings.Contains(m, a.sid) {
						t.Fatalf("recovered: %s", m)
					}
				} else {
					<-hold.reached
					b.cut()
				}
				for _, want := range []string{"leaving", a.sid} {
					select {
					case got := <-told:
						if got != want {
							t.Errorf("%s was called, want %s", got, want)
						}
					case <-time.After(patience):
						t.Fatal("OnDisconnect was not called")
					}
				}
				<-a.closed
				eventually(t, "the sockets have ended", func() bool { return how == "refused" || n.Len()+at.Len() == 0 })
				hold.claims.Store(false)
				hold.subscriptions.Store(false)
				if how != "refused" { // the client can still recover
					if back := at.back(t, a); back.sid != a.sid {
						t.Errorf("not recovered: %v", at.Stats().Recoveries)
					}
				}
				if len(told) > 0 {
					t.Errorf("%s was called again", <-told)
				}
			})
		}
	}
}

// A former socket that learns of a claim from the store, before the claim is answered, is
// also notified if the claim fails; and a claim that learns of a later one in this way
// leaves the notification to it.
func TestClaimThatFailsBeforeItIsAnswered(t *testing.T) {
	for _, claims := range []int{1, 2} {
		t.Run(fmt.Sprint(claims, " claims"), func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{})
			n, hold := c.holdingNode(t, "a", 10)
			told := make(chan string, 10)
			n.OnConnect(func(s *Socket) { s.OnDisconnect(func(Reason) { told <- s.ID() }) })
			a := n.client(t)
			hold.answer = []chan struct{}{make(chan struct{}), make(chan struct{})}
			hold.delayed.Store(true)
			hold.subscriptions.Store(true)
			var all []*wire
			for range claims {
				b := n.dial(t)
				b.write(fmt.Sprintf(`40{"pid":%q}`, a.pid))
				<-hold.reached // executed, not answered
				all = append(all, b)
			}
			a.cut() // its node learns from the store that the client has moved
			eventually(t, "the socket has ended", func() bool { return n.Len() == 0 })
			for i, b := range all {
				close(hold.answer[i])
				<-hold.reached // subscribes
				b.cut()
				eventually(t, "the claim has ended", func() bool {
					n.owned.mu.Lock()
					defer n.owned.mu.Unlock()
					return n.owned.served[a.pid] == nil
				})
			}
			select {
			case id := <-told:
				if id != a.sid {
					t.Errorf("OnDisconnect of %s, want %s", id, a.sid)
				}
			case <-time.After(patience):
				t.Fatal("OnDisconnect was not called")
			}
			hold.subscriptions.Store(false)
			hold.delayed.Store(false)
			if back := n.back(t, a); back.sid != a.sid {
				t.Errorf("not recovered: %v", n.Stats().Recoveries)
			}
			if len(told) > 0 {
				t.Errorf("OnDisconnect of %s again", <-told)
			}
		})
	}
}

// Claims on several nodes overlap, each made while the previous one is pending, and all
// fail: in any order of their ends, OnDisconnect is called once, for the socket that was
// connected.
func TestFailedClaimsOnSeveralNodes(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{})
			told := make(chan string, 10)
			var nodes []*testNode
			var holds []*hold
			for _, id := range []adapter.NodeID{"a", "b"} {
				n, h := c.holdingNode(t, id, 10)
				n.OnConnect(func(s *Socket) { s.OnDisconnect(func(Reason) { told <- fmt.Sprint(id, " ", s.fence) }) })
				nodes, holds = append(nodes, n), append(holds, h)
			}
			a := nodes[0].client(t)
			var wires []*wire
			for _, at := range []int{1, 0, 1} {
				holds[at].subscriptions.Store(true)
				w := nodes[at].dial(t)
				w.write(fmt.Sprintf(`40{"pid":%q}`, a.pid))
				<-holds[at].reached
				wires = append(wires, w)
			}
			for _, i := range order {
				wires[i].cut()
			}
			select {
			case got := <-told:
				if got != "a 1" {
					t.Errorf("OnDisconnect of socket %s, want a 1", got)
				}
			case <-time.After(patience):
				t.Fatal("OnDisconnect was not called")
			}
			for _, h := range holds {
				h.subscriptions.Store(false)
			}
			if back := nodes[0].back(t, a); back.sid != a.sid {
				t.Errorf("not recovered: %v", nodes[0].Stats().Recoveries)
			}
			if len(told) > 0 {
				t.Errorf("OnDisconnect of socket %s again", <-told)
			}
		})
	}
}

// If a claim fails, and the former socket had itself recovered the session from another
// node, OnDisconnect is called for that former socket only.
func TestFailedClaimAfterARecovery(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	told := make(chan adapter.NodeID, 10)
	tell := func(n *testNode) {
		n.OnConnect(func(s *Socket) { s.OnDisconnect(func(Reason) { told <- n.adapter.Node() }) })
	}
	first, second := c.node(t, "first", Options{}), c.node(t, "second", Options{})
	third, hold := c.holdingNode(t, "third", 10)
	tell(first)
	tell(second)
	a := first.client(t)
	b := second.back(t, a)
	if b.sid != a.sid {
		t.Fatalf("not recovered: %v", second.Stats().Recoveries)
	}
	<-a.closed
	hold.subscriptions.Store(true)
	w := third.dial(t)
	w.write(fmt.Sprintf(`40{"pid":%q}`, a.pid))
	<-hold.reached
	w.cut()
	select {
	case node := <-told:
		if node != "second" {
			t.Errorf("OnDisconnect on the node %q, want second", node)
		}
	case <-time.After(patience):
		t.Fatal("OnDisconnect was not called")
	}
	hold.subscriptions.Store(false)
	if back := third.back(t, b); back.sid != a.sid {
		t.Errorf("not recovered: %v", third.Stats().Recoveries)
	}
	if len(told) > 0 {
		t.Errorf("OnDisconnect again, on the node %q", <-told)
	}
}

// A claim of another node has failed, and the client has been recovered since: the
// notification is late, and OnDisconnect is not called.
func TestNotificationAfterARecovery(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n := c.node(t, "a", Options{})
	told := make(chan uint64, 10)
	n.OnConnect(func(s *Socket) { s.OnDisconnect(func(Reason) { told <- s.fence }) })
	a := n.client(t)
	failed, _, err := c.sessions.Claim(t.Context(), a.pid, "b", time.Minute, nil)
	must(t, err)
	b := n.back(t, a)
	if b.sid != a.sid {
		t.Fatalf("not recovered: %v", n.Stats().Recoveries)
	}
	<-a.closed
	n.evict(eviction{session.Ref{PID: a.pid, Fence: failed.Fence}, true})
	b.cut()
	if fence := <-told; fence != failed.Fence+1 || len(told) > 0 {
		t.Errorf("OnDisconnect of fence %d and %d others, want only %d", fence, len(told), failed.Fence+1)
	}
}

// A hold selects the calls whose answers a node does not get.
type hold struct {
	session.Store
	adapter.Adapter
	claims, subscriptions atomic.Bool
	delayed               atomic.Bool // claims wait for answer, in the order of their fences
	answer                []chan struct{}
	reached               chan struct{}
}

func (c *testCluster) holdingNode(t *testing.T, id adapter.NodeID, limit int) (*testNode, *hold) {
	t.Helper()
	a, err := c.memory.Node(id)
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	h := &hold{Store: c.sessions, Adapter: a, reached: make(chan struct{})}
	return start(t, Options{Adapter: h, Sessions: h, ReplayLimit: limit}), h
}

func (h *hold) wait(ctx context.Context) error {
	h.reached <- struct{}{}
	<-ctx.Done()
	return context.Cause(ctx)
}

func (h *hold) Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
	claimed, former, err := h.Store.Claim(ctx, pid, by, ttl, check)
	if err == nil && h.claims.Load() {
		return session.Session{}, "", h.wait(ctx)
	}
	if err == nil && h.delayed.Load() {
		h.reached <- struct{}{}
		<-h.answer[claimed.Fence-2]
	}
	return claimed, former, err
}

func (h *hold) Subscribe(ctx context.Context, all ...rooms.Room) (adapter.Cursor, error) {
	if h.subscriptions.Load() {
		return adapter.Cursor{}, h.wait(ctx)
	}
	return h.Adapter.Subscribe(ctx, all...)
}
