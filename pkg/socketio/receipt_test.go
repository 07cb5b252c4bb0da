package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A crashingStore loses the last write of each session while it crashes, as when a node
// is killed, and can keep the others waiting.
type crashingStore struct {
	session.Store
	crashes, waits atomic.Bool
	saving, goOn   chan struct{}
	lasts          atomic.Int32
}

func newCrashingStore() *crashingStore {
	return &crashingStore{Store: session.NewMemory(), saving: make(chan struct{}), goOn: make(chan struct{})}
}

func (s *crashingStore) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	if last(v) {
		defer s.lasts.Add(1)
		if s.crashes.Load() {
			return nil
		}
	} else if s.waits.Load() {
		s.saving <- struct{}{}
		<-s.goOn
	}
	return s.Store.Save(ctx, v, ttl)
}

// A client that is not meant by what comes to its rooms has missed nothing of it, however
// much that is.
func TestSenderThatReceivesNothing(t *testing.T) {
	const limit = 2 * overlookedEvents
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
					store := newCrashingStore()
					c.sessions = store
					n, other := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{})
					joining(n.Namespace)
					joining(other.Namespace)
					a := n.client(t)
					a.call(`["join","r"]`)
					a.call(`["join","quiet"]`)
					must(t, n.To("r").Emit(t.Context(), "n", 0))
					a.want(numbered(0))
					for range 2*limit + 1 {
						must(t, emit(n, n.Socket(a.sid)))
					}
					must(t, n.ToSocket(a.sid).SocketsLeave(t.Context(), "x")) // the feed has come here
					switch end {
					case "cut":
						a.cut()
					case "closed by the server":
						n.Socket(a.sid).Cut()
					case "node killed":
						store.crashes.Store(true)
						a.cut()
					}
					if end != "half-open" {
						eventually(t, "the client is away", func() bool { return n.Len() == 0 })
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

// What had been queued for a client when its connection ended, and has not reached it, is
// sent again, although its node had given it that.
func TestWhatWasOnItsWay(t *testing.T) {
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
					eventually(t, "the client is away", func() bool { return n.Len() == 0 })
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

// A client that was away while it was removed does not evade that by an offset which
// another connection was given since, whatever becomes of its attempts.
func TestOffsetOfAnotherConnection(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		for _, what := range []string{"disconnect", "leave"} {
			for _, attempts := range []string{"one", "abandoned before", "abandoned after", "concurrent"} {
				t.Run(fmt.Sprint(what, ", ", attempts, ", ", partitions, " partitions"), func(t *testing.T) {
					c := newCluster(adapter.MemoryOptions{Partitions: partitions})
					store := newCrashingStore()
					c.sessions = store
					n := c.node(t, "aaaa", Options{})
					joining(n.Namespace)
					a, w := n.client(t), n.client(t)
					a.call(`["join","team"]`)
					must(t, n.To("team").Emit(t.Context(), "n", 0))
					a.want(numbered(0))
					a.cut()
					eventually(t, "the client is away", func() bool { return n.Len() == 1 })
					abandon := func() { // an attempt that is cut when its session has been stored
						store.waits.Store(true)
						auth, _ := json.Marshal(map[string]string{"pid": a.pid, "offset": a.offset})
						d := n.dial(t)
						d.write("40" + string(auth))
						receive(t, store.saving)
						before := store.lasts.Load()
						d.cut()
						eventually(t, "the attempt has ended", func() bool { return n.Stats().Engine.WebSocket == 1 })
						store.waits.Store(false)
						store.goOn <- struct{}{}
						eventually(t, "the session is stored", func() bool { return store.lasts.Load() > before })
					}
					if attempts == "abandoned before" {
						abandon()
					}
					if what == "leave" {
						must(t, n.To("team").SocketsLeave(t.Context(), "team"))
					} else {
						must(t, n.To("team").DisconnectSockets(t.Context(), false))
					}
					must(t, n.Emit(t.Context(), "n", 1))
					w.want(numbered(1))
					for p := range partitions * 8 { // so that w's offset covers all partitions
						must(t, n.To(fmt.Sprint("x", p)).Emit(t.Context(), "n", 1))
					}
					w.call(`["join","team"]`)
					must(t, n.To("team").Emit(t.Context(), "n", 2))
					w.want(numbered(2))
					if attempts == "abandoned after" && what == "leave" {
						abandon()
					}
					if attempts == "concurrent" && what == "leave" { // the first one waits when it has executed the command
						store.waits.Store(true)
						auth, _ := json.Marshal(map[string]string{"pid": a.pid, "offset": a.offset})
						n.dial(t).write("40" + string(auth))
						receive(t, store.saving)
						store.waits.Store(false)
						defer func() { store.goOn <- struct{}{} }()
					}
					a.offset = w.offset
					b := n.back(t, a)
					if recovered := b.sid == a.sid; recovered != (what == "leave") {
						t.Errorf("recovered is %v: %v", recovered, n.Stats().Recoveries)
					}
					if got := n.Socket(b.sid).Rooms(); len(got) > 0 {
						t.Errorf("in %v", got)
					}
				})
			}
		}
	}
}

// What a recovery has decided of a command is not decided again by the next one, although
// the client's offset has not moved.
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
					store := newCrashingStore()
					c.sessions = store
					n := c.node(t, "aaaa", Options{})
					joining(n.Namespace)
					n.Use(func(ctx context.Context, s *Socket) error {
						return s.KeepRooms(ctx, func(room string) bool { return room != "team" })
					})
					a := n.client(t)
					a.call(`["join","team"]`)
					must(t, n.ToSocket(a.sid).SocketsJoin(t.Context(), "secret"))
					must(t, n.To("team").Emit(t.Context(), "n", 0))
					a.want(numbered(0))
					a.cut()
					away := func() { eventually(t, "the client is away", func() bool { return n.Len() == 0 }) }
					away()
					must(t, command(n))
					want := []string{"secret"}
					if what == "join" { // a room that is not kept excepts from what takes away
						want = []string{"outsiders", "secret"}
					}
					store.crashes.Store(crashes)
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
						b.cut()
						away()
					}
				})
			}
		}
	}
}

// A recovery stores that its client is sent something again, before it is: if its node is
// killed, the offset of that is not another connection's.
func TestRecoveryOpensTheReceipt(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{Partitions: partitions})
			store := newCrashingStore()
			c.sessions = store
			n := c.node(t, "aaaa", Options{})
			joining(n.Namespace)
			a := n.client(t)
			a.call(`["join","r"]`)
			for i := range 3 {
				must(t, n.To("r").Emit(t.Context(), "n", i))
				a.want(numbered(i))
				store.crashes.Store(i > 0)
				a.cut()
				eventually(t, "the client is away", func() bool { return n.Len() == 0 })
				was := a
				if a = n.back(t, was); a.sid != was.sid {
					t.Fatalf("not recovered: %v", n.Stats().Recoveries)
				}
				a.quiet()
			}
		})
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
			{sent: at(4, partitions), given: at(5, partitions), final: true},
		} {
			got, err := restoreReceipt(r.save())
			if err != nil || got != r {
				t.Errorf("%+v became %+v, %v", r, got, err)
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
		eventually(t, "the client is away", func() bool { return n.Len() == 0 })
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

// A receipt of a history that has lost something counts for nothing.
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
	eventually(t, "the client is away", func() bool { return n.Len() == 0 })
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	b := n.back(t, a)
	if b.sid != a.sid {
		t.Fatalf("not recovered: %v", n.Stats().Recoveries)
	}
	b.want(numbered(1))
	b.quiet()
}
