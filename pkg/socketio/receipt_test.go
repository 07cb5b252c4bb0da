package socketio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A crashingStore loses writes while it crashes, as when a node is killed before it has
// written the end of a connection.
type crashingStore struct {
	session.Store
	crashes atomic.Bool
	saves   atomic.Int32 // that have succeeded
}

func (s *crashingStore) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	if s.crashes.Load() {
		return nil
	}
	defer s.saves.Add(1)
	return s.Store.Save(ctx, v, ttl)
}

// A client has missed nothing if the events of its rooms are not for it, even if there are
// many.
func TestSenderThatReceivesNothing(t *testing.T) {
	const limit, events = 2 * overlookedEvents, 4*overlookedEvents + 1
	emits := map[string]func(n *testNode, s *Socket) error{
		"own broadcasts":  func(n *testNode, s *Socket) error { return s.To("r").Emit(t.Context(), "n", 1) },
		"excepted":        func(n *testNode, s *Socket) error { return n.To("r").Except("quiet").Emit(t.Context(), "n", 1) },
		"commands to all": func(n *testNode, s *Socket) error { return n.Except(s.ID()).SocketsLeave(t.Context(), "x") },
	}
	for _, partitions := range []int{1, 4} {
		for _, end := range []string{"cut", "closed by the server", "node killed", "half-open"} {
			for name, emit := range emits {
				t.Run(fmt.Sprint(name, ", ", end, ", ", partitions, " partitions"), func(t *testing.T) {
					t.Parallel()
					c := newCluster(adapter.MemoryOptions{BacklogLimit: limit, Partitions: partitions})
					store := &crashingStore{Store: c.sessions}
					c.sessions = store
					n, other := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{})
					joining(n.Namespace)
					joining(other.Namespace)
					a := n.client(t)
					a.call(`["join","r"]`)
					a.call(`["join","quiet"]`)
					must(t, n.To("r").Emit(t.Context(), "n", 0))
					a.want(numbered(0))
					joins := store.saves.Load()
					for range events {
						must(t, emit(n, n.Socket(a.sid)))
					}
					must(t, n.ToSocket(a.sid).SocketsLeave(t.Context(), "x")) // the feed has reached this
					switch end {
					case "cut":
						a.cut()
					case "closed by the server":
						n.Socket(a.sid).Cut()
					default:
						eventually(t, "the session is written", func() bool { return store.saves.Load()-joins == events/overlookedEvents })
						if end == "node killed" {
							store.crashes.Store(true)
							a.cut()
						}
					}
					if end != "half-open" {
						eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
					}
					b := other.back(t, a)
					if b.sid != a.sid {
						t.Fatalf("not recovered: %v", other.Stats().Recoveries)
					}
					must(t, n.To("r").Emit(t.Context(), "n", 2))
					b.want(numbered(2))
					b.quiet()
				})
			}
		}
	}
}

// The count that a killed node had not written continues on the next one: several nodes that
// were each killed just before a write of the session must not add up.
func TestSenderWhoseNodesAreKilled(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{Partitions: partitions})
			store := &crashingStore{Store: c.sessions}
			c.sessions = store
			n, other := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{})
			joining(n.Namespace)
			a := n.client(t)
			a.call(`["join","r"]`)
			must(t, n.To("r").Emit(t.Context(), "n", 0))
			a.want(numbered(0))
			for range overlookedEvents - 2 { // a command follows
				must(t, n.Socket(a.sid).To("r").Emit(t.Context(), "n", 1))
			}
			must(t, n.ToSocket(a.sid).SocketsLeave(t.Context(), "x")) // the feed has reached this
			store.crashes.Store(true)
			a.cut()
			eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
			store.crashes.Store(false)
			if b := other.back(t, a); b.sid != a.sid {
				t.Fatalf("not recovered: %v", other.Stats().Recoveries)
			}
			written := store.saves.Load()
			for range 2 {
				must(t, other.Socket(a.sid).To("r").Emit(t.Context(), "n", 1))
			}
			eventually(t, "the session is written", func() bool { return store.saves.Load() > written })
		})
	}
}

// A node may be killed right after it has recovered a client after many events that were not
// for the client.
func TestNodesAreKilledRightAfterRecoveries(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{BacklogLimit: 2 * overlookedEvents})
	store := &crashingStore{Store: c.sessions}
	c.sessions = store
	n, other, third := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{}), c.node(t, "cccc", Options{})
	joining(n.Namespace)
	a := n.client(t)
	a.call(`["join","r"]`)
	a.call(`["join","quiet"]`)
	must(t, n.To("r").Emit(t.Context(), "n", 0))
	a.want(numbered(0))
	killed := func(at *testNode) {
		t.Helper()
		store.crashes.Store(true)
		a.cut()
		eventually(t, "the client is disconnected", func() bool { return at.Len() == 0 })
		store.crashes.Store(false)
	}
	for range overlookedEvents - 10 {
		must(t, n.Socket(a.sid).To("r").Emit(t.Context(), "n", 1))
	}
	must(t, n.ToSocket(a.sid).SocketsLeave(t.Context(), "x")) // the feed has reached this
	for _, next := range []*testNode{other, third} {
		killed(map[*testNode]*testNode{other: n, third: other}[next])
		for range overlookedEvents * 3 / 5 {
			must(t, n.To("r").Except("quiet").Emit(t.Context(), "n", 1))
		}
		b := next.back(t, a)
		if b.sid != a.sid {
			t.Fatalf("not recovered: %v", next.Stats().Recoveries)
		}
		b.offset = a.offset
		a = b
	}
}

// Events that were queued for a client when its connection ended, and have not reached it,
// are sent again, although its node had given them to it.
func TestEventsInFlightAtACut(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		for received := range 4 {
			t.Run(fmt.Sprint(received, " of 3, ", partitions, " partitions"), func(t *testing.T) {
				c := newCluster(adapter.MemoryOptions{Partitions: partitions})
				n := c.node(t, "aaaa", Options{})
				joining(n.Namespace)
				a := n.client(t)
				a.call(`["join","r"]`)
				for i := 1; i <= 3; i++ {
					must(t, n.To("r").Emit(t.Context(), "n", i))
					must(t, n.Socket(a.sid).To("r").Emit(t.Context(), "own"))
					must(t, n.ToSocket(a.sid).Volatile().Emit(t.Context(), "volatile"))
				}
				all := []string{a.next(), a.next(), a.next(), a.next(), a.next(), a.next()}
				for i := range received {
					a.hear(all[2*i])
				}
				for range 3 { // the offset stays, and each recovery begins there
					a.cut()
					eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
					b := n.back(t, a)
					if b.sid != a.sid {
						t.Fatalf("not recovered: %v", n.Stats().Recoveries)
					}
					for i := received + 1; i <= 3; i++ {
						b.want(numbered(i))
					}
					b.quiet()
					b.offset = a.offset
					a = b
				}
			})
		}
	}
}

// A recovery's decision about a command is not repeated by the next recovery, although the
// client's offset has not changed.
func TestCommandsAreExecutedOnce(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		for what, command := range map[string]func(n *testNode) error{
			"disconnect": func(n *testNode) error { return n.Except("team").DisconnectSockets(t.Context(), false) },
			"join":       func(n *testNode) error { return n.Except("team").SocketsJoin(t.Context(), "outsiders") },
			"leave":      func(n *testNode) error { return n.Except("team").SocketsLeave(t.Context(), "secret") },
		} {
			for _, crashes := range []bool{false, true} {
				t.Run(fmt.Sprint(what, ", crashes ", crashes, ", ", partitions, " partitions"), func(t *testing.T) {
					c := newCluster(adapter.MemoryOptions{Partitions: partitions})
					store := &crashingStore{Store: c.sessions}
					c.sessions = store
					n := c.node(t, "aaaa", Options{})
					joining(n.Namespace)
					keepRooms(n.Namespace, func(room string) bool { return room != "team" })
					a := n.client(t)
					a.call(`["join","team"]`)
					must(t, n.ToSocket(a.sid).SocketsJoin(t.Context(), "secret"))
					must(t, n.To("team").Emit(t.Context(), "n", 0))
					a.want(numbered(0))
					a.cut()
					away := func() { eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 }) }
					away()
					must(t, command(n))
					want := []string{"secret"}
					if what == "join" { // a room that is not kept still excepts the client from commands
						want = []string{"outsiders", "secret"}
					}
					for i := range 3 {
						b := n.back(t, a)
						if b.sid != a.sid {
							t.Fatalf("%d: not recovered: %v", i, n.Stats().Recoveries)
						}
						if got := n.Socket(b.sid).Rooms(); !slices.Equal(got, want) {
							t.Errorf("%d: in %v, want %v", i, got, want)
						}
						must(t, n.ToSocket(b.sid).Emit(t.Context(), "n", i+1)) // and again from before it
						for k := range i + 1 {
							b.want(numbered(k + 1))
						}
						b.quiet()
						store.crashes.Store(crashes)
						b.cut()
						away()
						store.crashes.Store(false)
					}
				})
			}
		}
	}
}

// Nodes before 0.5 take a receipt for a copy that is apart, and forget it at the first
// recovery, with any offset. A session that they have stored has none.
func TestReceiptInMixedClusters(t *testing.T) {
	at := func(ms uint64, partitions int) adapter.Cursor {
		return adapter.NewCursor("E", 0, slices.Repeat([]adapter.Position{{Ms: ms}}, partitions))
	}
	for _, partitions := range []int{1, 4} {
		for _, r := range []receipt{
			{given: at(5, partitions)},
			{sent: at(4, partitions), given: at(5, partitions)},
		} {
			got, err := restoreReceipt(r.save())
			if err != nil || got != r {
				t.Errorf("%+v became %+v, %v, want %+v", r, got, err, r)
			}
			older := r.save()
			older.Kind &^= isReceipt
			for _, seen := range []adapter.Cursor{{}, at(1, partitions), at(5, partitions), at(uint64(time.Now().UnixMilli()), partitions)} {
				m, none, err := restore([]session.Membership{{Join: at(1, partitions).String()}, older})
				if err != nil || none != (receipt{}) || m.count > 0 {
					t.Fatalf("an older node reads %+v, %v", m, err)
				}
				if m.suspend(seen); len(m.apart) > 0 || !m.unsaved {
					t.Errorf("an older node keeps %v, unsaved %v", m.apart, m.unsaved)
				}
			}
		}
	}
	c := newCluster(adapter.MemoryOptions{})
	c.sessions = strippingStore{c.sessions}
	n := c.node(t, "aaaa", Options{})
	joining(n.Namespace)
	a := n.client(t)
	a.call(`["join","r"]`)
	for i := range 3 {
		must(t, n.To("r").Emit(t.Context(), "n", 10*i))
		a.want(numbered(10 * i))
		a.cut()
		eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
		must(t, n.To("r").Emit(t.Context(), "n", 10*i+1))
		b := n.back(t, a)
		if b.sid != a.sid {
			t.Fatalf("not recovered: %v", n.Stats().Recoveries)
		}
		b.want(numbered(10*i + 1))
		a = b
	}
}

// A strippingStore stores no receipts, as nodes before 0.5.
type strippingStore struct{ session.Store }

func (s strippingStore) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	v.Rooms = slices.DeleteFunc(v.Rooms, func(m session.Membership) bool { return m.Kind&isReceipt != 0 })
	return s.Store.Save(ctx, v, ttl)
}

// A receipt of a history that has lost events does not count.
func TestReceiptAheadOfTheHistory(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	a := n.client(t)
	a.call(`["join","r"]`)
	must(t, n.To("r").Emit(t.Context(), "n", 0))
	a.want(numbered(0))
	s := n.Socket(a.sid)
	s.mu.Lock()
	s.receipt.given = adapter.NewCursor(s.receipt.given.Epoch, 0, []adapter.Position{{Ms: uint64(time.Now().Add(time.Hour).UnixMilli())}})
	s.mu.Unlock()
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	b := n.back(t, a)
	if b.sid != a.sid {
		t.Fatalf("not recovered: %v", n.Stats().Recoveries)
	}
	b.want(numbered(1))
	b.quiet()
}

// A fullStore has no memory for writes once it is full.
type fullStore struct {
	session.Store
	full      atomic.Bool
	prolonged atomic.Int32
}

func (s *fullStore) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	if s.full.Load() {
		return errors.New("out of memory")
	}
	return s.Store.Save(ctx, v, ttl)
}

func (s *fullStore) Refresh(ctx context.Context, live []session.Ref, ttl time.Duration) ([]session.Ref, error) {
	gone, err := s.Store.Refresh(ctx, live, ttl)
	if s.full.Load() && err == nil && len(gone) == 0 {
		s.prolonged.Add(1)
	}
	return gone, err
}

// If the end of a connection cannot be written its client still has the whole recovery
// window.
func TestEndThatCannotBeWritten(t *testing.T) {
	store := &fullStore{Store: session.NewMemory()}
	n := start(t, Options{Sessions: store})
	joining(n.Namespace)
	a := n.client(t)
	a.call(`["join","r"]`)
	must(t, n.To("r").Emit(t.Context(), "n", 0))
	a.want(numbered(0))
	store.full.Store(true)
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	if n := store.prolonged.Load(); n != 1 {
		t.Errorf("the session was prolonged %d times, want 1", n)
	}
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	b := n.back(t, a)
	if b.sid != a.sid {
		t.Fatalf("not recovered: %v", n.Stats().Recoveries)
	}
	b.want(numbered(1))
	b.quiet()
}

// A client that shows an older offset than before gets the later events again, although its
// node has already given them to it.
func TestAnOlderOffset(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		n := newCluster(adapter.MemoryOptions{Partitions: partitions}).node(t, "aaaa", Options{})
		a := n.client(t)
		must(t, n.Emit(t.Context(), "n", 0))
		a.want(numbered(0))
		older := a.offset
		must(t, n.Emit(t.Context(), "n", 1))
		a.want(numbered(1))
		for range 2 { // the second time a recovery has nothing to send
			a.cut()
			eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
			b := n.back(t, a)
			if b.sid != a.sid {
				t.Fatalf("not recovered: %v", n.Stats().Recoveries)
			}
			a = b
		}
		a.cut()
		eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
		a.offset = older
		n.back(t, a).want(numbered(1))
	}
}

// A disconnect that excepted a client, and reaches its new node only while the client reads
// its replay slowly, is not executed.
func TestDisconnectThatSparedComesDuringAReplay(t *testing.T) {
	c := newSlowCluster(t)
	c.memory = adapter.NewMemory(adapter.MemoryOptions{}) // one partition, in which a room that is not kept is forgotten
	n1, _ := c.node(t, "aaaa", Options{})
	n2, slow := c.node(t, "bbbb", Options{})
	keepRooms(n2.Namespace, func(room string) bool { return room != "team" })
	other := n2.client(t) // so that the node receives events to everyone
	a := n1.client(t)
	a.call(`["join","team"]`)
	slow.hold(0)
	must(t, n1.Except("team").ExceptSocket(other.sid).DisconnectSockets(t.Context(), false))
	must(t, n1.ToSocket(a.sid).Emit(t.Context(), "spared"))
	a.want(`["spared"]`)
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n1.Len() == 0 })
	for i := range largeEvents {
		must(t, n1.ToSocket(a.sid).Emit(t.Context(), "r00", large(i)...))
	}
	b := n2.backSlow(t, a)
	if b.sid != a.sid {
		t.Fatalf("not recovered: %v", n2.Stats().Recoveries)
	}
	must(t, n1.ToSocket(other.sid).Emit(t.Context(), "passed"))
	slow.release(0)
	other.want(`["passed"]`) // the node has reached the disconnect
	for i := range largeEvents {
		if _, n := numberOf(b); n != i {
			t.Fatalf("got %d, want %d", n, i)
		}
	}
}
