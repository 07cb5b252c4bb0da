package socketio

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// Connections present a private id while the node that serves its session drains or closes.
// At most one of them is served in the end. If none is, OnDisconnect has been called
// exactly once for the last one that was, unless that was on the node that closed, which
// can no longer be notified of a failed claim on another node. In all cases the session can
// be recovered on another node, with every event once.
func TestClaimsDuringADrain(t *testing.T) {
	for _, how := range []string{"drain", "close"} {
		for _, nodes := range []int{1, 2, 3} {
			t.Run(fmt.Sprintf("%s, %d nodes", how, nodes), func(t *testing.T) {
				for round := range 20 {
					claimDuringADrain(t, how, nodes, round)
				}
			})
		}
	}
}

// presence is an application's knowledge of one session.
type presence struct {
	mu           sync.Mutex
	connected    map[uint64]int // calls of OnConnect by fence
	disconnected map[uint64]int // calls of OnDisconnect by fence
	highest      uint64         // fence for which OnConnect was called
	last         *testNode      // its node
}

func (p *presence) watch(n *testNode) {
	n.OnConnect(func(s *Socket) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.connected[s.fence]++; s.fence > p.highest {
			p.highest, p.last = s.fence, n
		}
		s.OnDisconnect(func(Reason) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.disconnected[s.fence]++
		})
	})
}

// newest reports whether a socket is the last one that was connected.
func (p *presence) newest(s *Socket) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return s.fence == p.highest
}

// online reports whether the application believes that the client is connected, to
// another node than the one that has closed.
func (p *presence) online(t *testing.T, closed *testNode) bool {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for fence, n := range p.connected {
		if n > 1 || p.disconnected[fence] > 1 {
			t.Fatalf("fence %d: OnConnect was called %d times, OnDisconnect %d times, want at most 1, at most 1", fence, n, p.disconnected[fence])
		}
	}
	return p.disconnected[p.highest] == 0 && p.last != closed
}

func claimDuringADrain(t *testing.T, how string, nodes, round int) {
	t.Helper()
	c := newCluster(adapter.MemoryOptions{})
	p := &presence{connected: map[uint64]int{}, disconnected: map[uint64]int{}}
	var all []*testNode
	for i := range nodes + 1 { // the last one has no claims
		n := c.node(t, adapter.NodeID(fmt.Sprint("node", i)), Options{})
		joining(n.Namespace)
		p.watch(n)
		all = append(all, n)
	}
	owner, spare := all[0], all[nodes]
	first := owner.client(t)
	must(t, spare.Emit(t.Context(), "n", 1))
	first.want(numbered(1))
	must(t, spare.Emit(t.Context(), "n", 2))
	var wires []*wire
	for i := range 3 {
		w := all[i%nodes].dial(t)
		w.pid, w.offset = first.pid, first.offset
		wires = append(wires, w)
	}
	var closed *testNode
	if how == "close" {
		closed = owner
	}
	ended := make(chan error, 1)
	go func() {
		pause(round)
		if how == "drain" {
			ended <- owner.Drain(context.Background(), 0)
		} else {
			ended <- owner.Close(context.Background())
		}
	}()
	for _, w := range wires {
		pause(round)
		w.write(fmt.Sprintf(`40{"pid":%q,"offset":%q}`, w.pid, w.offset))
	}
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(patience):
		t.Fatal("the node does not end")
	}
	var served []*wire
	eventually(t, "at most one connection is left, and the application knows of it", func() bool {
		served = nil
		sockets := 0
		for _, n := range all {
			for s := range n.Sockets() {
				if sockets++; !p.newest(s) {
					return false // its node has not learned of a later claim yet
				}
			}
		}
		for _, w := range append(wires, first) {
			select {
			case <-w.closed:
			default:
				served = append(served, w)
			}
		}
		return len(served) <= 1 && sockets == len(served) && p.online(t, closed) == (len(served) == 1)
	})
	last := first
	if len(served) == 1 {
		last = served[0]
		if connect := last.next(); !strings.Contains(connect, first.sid) {
			t.Fatalf("round %d: the survivor was answered %q, want the id %s", round, connect, first.sid)
		}
		last.sid = first.sid
		last.want(numbered(2))
		last.cut()
		eventually(t, "OnDisconnect of the survivor", func() bool { return !p.online(t, closed) })
	} else {
		last.offset = first.offset
	}
	must(t, spare.Emit(t.Context(), "n", 3))
	back := spare.back(t, last)
	if back.sid != first.sid {
		t.Fatalf("round %d: not recovered: %v", round, spare.Stats().Recoveries)
	}
	if last == first {
		back.want(numbered(2))
	}
	back.want(numbered(3))
	back.quiet()
}

// pause varies the order of concurrent actions.
func pause(round int) {
	if round%4 > 0 {
		time.Sleep(time.Duration(rand.IntN(300*(round%4))) * time.Microsecond)
	}
}
