package socketio

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// Several connections present one private id concurrently. One of them becomes the socket,
// and the others are closed, in any order in which their claims are answered and their
// nodes learn of them. OnDisconnect is not called.
func TestConcurrentClaims(t *testing.T) {
	for _, nodes := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{})
			all := make([]*testNode, nodes)
			var told atomic.Int32
			for i := range all {
				all[i] = c.node(t, adapter.NodeID(fmt.Sprint("node", i)), Options{})
				joining(all[i].Namespace)
				all[i].OnConnect(func(s *Socket) { s.OnDisconnect(func(Reason) { told.Add(1) }) })
			}
			for round := range 100 {
				claimConcurrently(t, all, round, &told)
			}
		})
	}
}

func claimConcurrently(t *testing.T, nodes []*testNode, round int, told *atomic.Int32) {
	t.Helper()
	first := nodes[0].client(t)
	must(t, nodes[0].Emit(t.Context(), "first"))
	first.want(`["first"]`)
	if round%2 == 0 {
		first.cut()
		eventually(t, "OnDisconnect of the first socket", func() bool { return told.CompareAndSwap(1, 0) })
	}
	must(t, nodes[0].Emit(t.Context(), "n", 0))
	const claimants = 3
	var wires []*wire
	for i := range claimants {
		wires = append(wires, nodes[i%len(nodes)].dial(t))
	}
	for _, w := range wires {
		w.pid = first.pid
		w.write(fmt.Sprintf(`40{"pid":%q,"offset":%q}`, first.pid, first.offset))
	}
	var survivor *wire
	eventually(t, "one connection is left", func() bool {
		open := 0
		for _, w := range append(wires, first) {
			select {
			case <-w.closed:
			default:
				survivor = w
				open++
			}
		}
		return open == 1
	})
	if survivor == first {
		t.Fatalf("round %d: the old connection is the one that is left", round)
	}
	connect := survivor.next()
	if !strings.Contains(connect, `"sid":"`+first.sid+`"`) {
		t.Fatalf("round %d: the survivor was answered %q, want the id %s", round, connect, first.sid)
	}
	survivor.sid = first.sid
	survivor.want(numbered(0))
	must(t, nodes[0].Emit(t.Context(), "n", 1))
	survivor.want(numbered(1))
	survivor.quiet()
	for _, w := range wires {
		for len(w.in) > 0 {
			if m := <-w.in; strings.HasPrefix(m, `42["n",1`) {
				t.Errorf("round %d: another socket of the session got %s", round, m)
			}
		}
	}
	eventually(t, "one socket is connected", func() bool {
		total := 0
		for _, n := range nodes {
			total += n.Len()
		}
		return total == 1
	})
	eventually(t, "no claim is in flight", func() bool {
		left := 0
		for _, n := range nodes {
			n.owned.mu.Lock()
			left += len(n.owned.claims)
			n.owned.mu.Unlock()
		}
		return left == 0
	})
	if got := told.Load(); got > 0 {
		t.Errorf("round %d: OnDisconnect was called %d times for a client that is served, want 0", round, got)
	}
	survivor.cut()
	eventually(t, "OnDisconnect of the survivor", func() bool { return told.CompareAndSwap(1, 0) })
	back := nodes[round%len(nodes)].back(t, survivor)
	if back.sid != first.sid {
		t.Fatalf("round %d: the survivor is not recovered: %v", round, nodes[round%len(nodes)].Stats().Recoveries)
	}
	back.quiet()
	back.write("41")
	eventually(t, "OnDisconnect of the last socket", func() bool { return told.CompareAndSwap(1, 0) })
}
