package socketio

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// withExpiry calls a test with clusters whose backlogs expire after ttl. node runs a server of the cluster.
func withExpiry(t *testing.T, ttl time.Duration, test func(t *testing.T, c *testCluster, node func(id adapter.NodeID) *testNode)) {
	o := Options{RecoveryWindow: time.Second}
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			t.Parallel()
			c := newCluster(adapter.MemoryOptions{BacklogTTL: ttl, Partitions: partitions})
			test(t, c, func(id adapter.NodeID) *testNode { return c.node(t, id, o) })
		})
	}
}

// A client attempts to recover again and again, and receives nothing on its connections. Each attempt
// prolongs its session, and nothing prolongs the backlog of its room.
func TestAttemptsDoNotOutliveBacklogs(t *testing.T) {
	t.Parallel() // most of it is waiting
	const ttl = 3 * time.Second
	withExpiry(t, ttl, func(t *testing.T, _ *testCluster, node func(adapter.NodeID) *testNode) {
		n := node("aaaa")
		joining(n.Namespace)
		answered, cut := n.client(t), n.client(t)
		for _, w := range []*wire{answered, cut} {
			w.call(`["join","r"]`)
		}
		must(t, n.To("r").Emit(t.Context(), "n", 0))
		for _, w := range []*wire{answered, cut} {
			w.want(numbered(0))
			w.cut()
		}
		eventually(t, "the clients are away", func() bool { return n.Len() == 0 })
		must(t, n.To("r").Emit(t.Context(), "n", 1))
		for published := time.Now(); time.Since(published) < ttl+ttl/3; time.Sleep(100 * time.Millisecond) {
			n.back(t, answered).cut()
			c := n.dial(t)
			c.write(`40{"pid":"` + cut.pid + `","offset":"` + cut.offset + `"}`)
			time.Sleep(20 * time.Millisecond)
			c.cut()
		}
		for _, w := range []*wire{answered, cut} {
			if b := n.back(t, w); b.sid == w.sid {
				t.Errorf("recovered, although the event has expired: %v", n.Stats().Recoveries)
			}
		}
	})
}

// A client that is connected in a room where nothing is for it for longer than backlogs are kept has
// missed nothing of that time, however its connection ends.
func TestLongSilence(t *testing.T) {
	t.Parallel() // most of it is waiting
	const ttl = 5 * time.Second
	withExpiry(t, ttl, func(t *testing.T, c *testCluster, node func(adapter.NodeID) *testNode) {
		store := &crashingStore{Store: c.sessions}
		c.sessions = store
		n, other := node("aaaa"), node("bbbb")
		joining(n.Namespace)
		joining(other.Namespace)
		type member struct {
			*wire
			name, room string
			missed     int
		}
		var all []*member
		for _, first := range []bool{false, true} {
			for i, end := range []string{"cut", "node killed", "half-open", "half-open, many events", "cut again"} {
				m := &member{n.client(t), fmt.Sprint(end, ", received before: ", first), fmt.Sprint(end, first), 1}
				m.call(`["join","quiet"]`)
				if m.call(`["join","` + m.room + `"]`); first {
					must(t, n.To(m.room).Emit(t.Context(), "n", 0))
					m.want(numbered(0))
				}
				if i == 3 {
					m.missed = 5
				}
				all = append(all, m)
			}
		}
		for begun := time.Now(); time.Since(begun) < ttl/2; time.Sleep(100 * time.Millisecond) { // then these expire as well
			for _, m := range all {
				must(t, n.To(m.room).Except("quiet").Emit(t.Context(), "n", -1))
			}
		}
		time.Sleep(ttl + ttl/6)
		publish := func(m *member) {
			for i := range m.missed {
				must(t, other.To(m.room).Emit(t.Context(), "n", i+1))
			}
		}
		recovered := func(m *member) *wire {
			b := other.back(t, m.wire)
			if b.sid != m.sid {
				t.Errorf("%s: not recovered: %v", m.name, other.Stats().Recoveries)
				return b
			}
			for i := range m.missed {
				b.want(numbered(i + 1))
			}
			return b
		}
		for i, m := range all {
			switch i % 5 {
			case 1:
				store.crashes.Store(true)
				fallthrough
			case 0, 4:
				m.cut()
				eventually(t, "the client is away", func() bool { return n.Socket(m.sid) == nil })
				store.crashes.Store(false)
				publish(m)
				if i%5 == 4 {
					recovered(m).cut()
					eventually(t, "the client is away", func() bool { return other.Socket(m.sid) == nil })
				}
			case 2, 3:
				was := m.offset
				publish(m)
				for i := range m.missed {
					m.want(numbered(i + 1))
				}
				m.offset = was // it has not received them
			}
			recovered(m).quiet()
		}
	})
}

// A crowdedStore takes some time for each write, and counts those at the same time.
type crowdedStore struct {
	session.Store
	saves, most atomic.Int32
}

func (s *crowdedStore) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	n := s.saves.Add(1)
	defer s.saves.Add(-1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	time.Sleep(50 * time.Millisecond)
	return s.Store.Save(ctx, v, ttl)
}

// The sessions of many sockets whose silence ends at once are written a few at a time: the queue of the
// store is for others, too.
func TestRenewalsTakeTurns(t *testing.T) {
	t.Parallel() // most of it is waiting
	const clients = 4 * renewals
	c := newCluster(adapter.MemoryOptions{BacklogTTL: 5 * time.Second})
	store := &crowdedStore{Store: c.sessions}
	c.sessions = store
	n := c.node(t, "aaaa", Options{RecoveryWindow: time.Second})
	for range clients {
		n.client(t)
	}
	renewed := func() (all bool) {
		must(t, n.To("nobody").Emit(t.Context(), "n"))
		_, err := n.adapter.Head(t.Context()) // the feed reaches it
		must(t, err)
		_, served := n.owned.alive(time.Time{})
		for _, s := range served {
			s.mu.Lock()
			old := s.receipt.given == s.rooms.born
			s.mu.Unlock()
			if old {
				return false
			}
		}
		return len(served) == clients
	}
	eventually(t, "all sessions are written again", renewed)
	if most := store.most.Load(); most > renewals || most < 2 {
		t.Errorf("%d sessions were written concurrently, want at most %d", most, renewals)
	}
}

// The receipt of the last long silence says where to begin if the newest one does not apply. It does not
// change what an older node reads, which takes the last receipt.
func TestFormerReceipts(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		at := func(ms uint64) adapter.Cursor {
			if ms == 0 {
				return adapter.Cursor{}
			}
			return adapter.NewCursor("E", 0, slices.Repeat([]adapter.Position{{Ms: ms}}, partitions))
		}
		saved := []session.Membership{{Join: at(1).String()}}
		for _, r := range []receipt{{sent: at(10), given: at(50)}, {sent: at(60), given: at(70)}} {
			saved = append(saved, r.save())
		}
		_, r, err := restore(saved)
		if want := (receipt{sent: at(60), given: at(70)}); err != nil || r.former == nil || r.sent != want.sent || r.given != want.given {
			t.Fatalf("restored %+v, %v", r, err)
		}
		for offset, want := range map[uint64]uint64{0: 0, 5: 5, 10: 50, 40: 50, 50: 50, 55: 55, 60: 70, 70: 70, 75: 75} {
			if got := r.from(at(offset)); got != at(want) {
				t.Errorf("%d partitions: a client at %d is recovered from %v, want %d", partitions, offset, got, want)
			}
		}
		r.former = &receipt{given: at(40)} // before anything was sent
		for offset, want := range map[uint64]uint64{0: 40, 10: 40, 45: 45, 60: 70} {
			if got := r.from(at(offset)); got != at(want) {
				t.Errorf("%d partitions: a client at %d is recovered from %v, want %d", partitions, offset, got, want)
			}
		}
	}
}
