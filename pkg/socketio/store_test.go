package socketio

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A gatedStore holds each save until it is released.
type gatedStore struct {
	session.Store
	saving chan struct{} // gets a value for each save that has begun
	goOn   chan struct{} // gives a value for each that may continue; closed for all, as for those of connections that end
}

func (s *gatedStore) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	s.saving <- struct{}{}
	<-s.goOn
	return s.Store.Save(ctx, v, ttl)
}

// The session must name every room whose events the client has received: no event of a room
// reaches it before the session that names the room is stored.
func TestNothingOfARoomComesBeforeTheSessionNamesIt(t *testing.T) {
	store := &gatedStore{session.NewMemory(), make(chan struct{}, 10), make(chan struct{}, 10)}
	defer close(store.goOn)
	n := start(t, Options{Sessions: store})
	joining(n.Namespace)
	a := n.client(t)
	a.write(`42100["join","r"]`)
	<-store.saving
	must(t, n.To("r").Emit(t.Context(), "n", 1))
	must(t, n.Emit(t.Context(), "n", 2)) // no event may overtake it
	// Another client without a wait proves that both were delivered.
	must(t, n.Emit(t.Context(), "n", 3))
	b := n.client(t)
	must(t, n.Emit(t.Context(), "n", 4))
	b.want(numbered(4))
	select {
	case m := <-a.in:
		t.Fatalf("it got %q before the session was stored", m)
	default:
	}
	store.goOn <- struct{}{}
	got := map[string]bool{a.next(): true, a.next(): true, a.next(): true, a.next(): true, a.next(): true}
	if !got[`43100["ok"]`] {
		t.Errorf("no ack among %v", got)
	}
}

// An event behind a command carries an offset that covers it. If the client had it
// before the session is stored, and its node failed, the command would be undone.
func TestNothingComesBehindALeaveByCommandBeforeItIsStored(t *testing.T) {
	store := &gatedStore{session.NewMemory(), make(chan struct{}, 10), make(chan struct{}, 10)}
	defer close(store.goOn)
	n := start(t, Options{Sessions: store})
	joining(n.Namespace)
	a := n.client(t)
	a.write(`42100["join","r"]`)
	<-store.saving
	store.goOn <- struct{}{}
	if got := a.next(); got != `43100["ok"]` {
		t.Fatalf("got %q, want %q", got, `43100["ok"]`)
	}
	must(t, n.ToSocket(a.sid).SocketsLeave(t.Context(), "r"))
	<-store.saving
	must(t, n.Emit(t.Context(), "n", 1))
	b := n.client(t)
	must(t, n.Emit(t.Context(), "n", 2))
	b.want(numbered(2)) // both were delivered
	select {
	case m := <-a.in:
		t.Fatalf("it got %q before the session was stored", m)
	default:
	}
	store.goOn <- struct{}{}
	a.want(numbered(1))
	a.want(numbered(2))
	a.inRooms(n)
}

// A failingStore fails one save after its release.
type failingStore struct {
	gatedStore
	fail atomic.Bool
}

func (s *failingStore) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	if !s.fail.CompareAndSwap(true, false) {
		return s.Store.Save(ctx, v, ttl)
	}
	s.saving <- struct{}{}
	<-s.goOn
	return errors.New("the store fails")
}

// If a command's change can't be stored, the client gets nothing from behind the command
// before it is cut. So the recovery finds the command.
func TestACommandThatCannotBeStoredIsExecutedByTheRecovery(t *testing.T) {
	for name, command := range map[string]func(Broadcast, context.Context, ...string) error{"join": Broadcast.SocketsJoin, "leave": Broadcast.SocketsLeave} {
		t.Run(name, func(t *testing.T) {
			store := &failingStore{gatedStore: gatedStore{session.NewMemory(), make(chan struct{}, 10), make(chan struct{}, 10)}}
			n := start(t, Options{Sessions: store})
			joining(n.Namespace)
			a := n.client(t)
			var rooms []string
			if name == "leave" {
				a.call(`["join","r"]`)
			} else {
				rooms = []string{"r"}
			}
			store.fail.Store(true)
			must(t, command(n.ToSocket(a.sid), t.Context(), "r"))
			<-store.saving
			must(t, n.Emit(t.Context(), "n", 1))
			b := n.client(t)
			must(t, n.Emit(t.Context(), "n", 2))
			b.want(numbered(2)) // both were delivered
			store.goOn <- struct{}{}
			<-a.closed
			back := n.back(t, a)
			if back.sid != a.sid {
				t.Fatalf("not recovered: %v", n.Stats().Recoveries)
			}
			back.inRooms(n, rooms...)
			back.want(numbered(1))
			back.want(numbered(2))
			select {
			case m := <-a.in:
				t.Errorf("it got %q from behind the command", m)
			default:
			}
		})
	}
}

// With several partitions an offset is never sent that is behind one that the
// client has in any of them.
func TestNoOffsetGoesBackInAnyPartition(t *testing.T) {
	at := func(a, b uint64) adapter.Cursor {
		return adapter.NewCursor("E", 0, []adapter.Position{{Ms: a}, {Ms: b, Partition: 1}})
	}
	var g gate
	g.discard(at(5, 5))
	for _, c := range []struct{ own, want adapter.Cursor }{
		{at(3, 4), at(5, 5)},
		{at(7, 4), at(7, 5)},
		{at(7, 5), at(7, 5)}, // it has passed the replay now
		{at(8, 5), at(8, 5)},
	} {
		got := *g.stamp(&c.own, new(adapter.Cursor))
		for i := range uint16(2) {
			if got.In(i) != c.want.In(i) {
				t.Errorf("%v was stamped %v, want %v", c.own, got, c.want)
			}
		}
	}
}

// Rooms that commands join and leave do not make a session grow while its client stays
// connected: rooms that were left too long ago are no longer stored.
func TestWhatWasLeftLongAgoIsNotStored(t *testing.T) {
	store := &gatedStore{session.NewMemory(), make(chan struct{}, 10), make(chan struct{}, 10)}
	defer close(store.goOn)
	n := start(t, Options{Sessions: store})
	a := n.client(t)
	s := n.Socket(a.sid)
	long := adapter.NewCursor("E", 0, []adapter.Position{{Ms: uint64(time.Now().Add(-time.Hour).UnixMilli())}})
	s.mu.Lock()
	s.rooms.enter("old")
	s.rooms.confirm("old", long)
	s.rooms.leave("old", long)
	s.mu.Unlock()
	store.goOn <- struct{}{}
	must(t, s.Self().SocketsJoin(t.Context(), "new"))
	<-store.saving
	eventually(t, "it is in the new room", func() bool { return s.InRoom("new") })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rooms.count != 1 {
		t.Errorf("%d memberships, want that of the new room alone", s.rooms.count)
	}
}

// A limitedStore refuses sessions with too many memberships or bytes of data.
type limitedStore struct {
	session.Store
	rooms, data int
}

func (s *limitedStore) check(v session.Session) error {
	if len(v.Rooms) > s.rooms || len(v.Data) > s.data {
		return fmt.Errorf("%w: %d rooms, %d bytes of data", session.ErrTooLarge, len(v.Rooms), len(v.Data))
	}
	return nil
}

func (s *limitedStore) Create(ctx context.Context, v session.Session, ttl time.Duration) error {
	if err := s.check(v); err != nil {
		return err
	}
	return s.Store.Create(ctx, v, ttl)
}

func (s *limitedStore) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	if err := s.check(v); err != nil {
		return err
	}
	return s.Store.Save(ctx, v, ttl)
}

// A client that commands have joined to more rooms than a session can hold gets a new
// session, because no later recovery could store it either.
func TestCommandsMakeASessionTooLarge(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprint("away=", away), func(t *testing.T) {
			n := start(t, Options{Sessions: &limitedStore{session.NewMemory(), 10, 10}})
			a := n.client(t)
			if away {
				a.cut()
				eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
			}
			var names []string
			for i := range 20 {
				names = append(names, fmt.Sprint("r", i))
			}
			must(t, n.ToSocket(a.sid).SocketsJoin(t.Context(), names...))
			if !away {
				<-a.closed
			}
			b := n.back(t, a)
			if b.sid == a.sid || n.Stats().Recoveries[refusedRooms] != 1 {
				t.Fatalf("%s, before %s: %v", b.sid, a.sid, n.Stats().Recoveries)
			}
			b.inRooms(n)
			if c := n.back(t, a); c.sid == a.sid || n.Stats().Recoveries[refusedUnknown] != 1 {
				t.Errorf("the session is not over: %v", n.Stats().Recoveries)
			}
		})
	}
}

// Middlewares that make a session too large do so each time.
func TestMiddlewaresMakeASessionTooLarge(t *testing.T) {
	n := start(t, Options{Sessions: &limitedStore{session.NewMemory(), 10, 10}})
	n.Use(func(_ context.Context, r *ConnectRequest) error { return r.SetData("0123456789") })
	w := n.dial(t)
	w.write("40")
	if m := w.next(); m != `44{"message":"Session too large"}` {
		t.Errorf("got %s, want %s", m, `44{"message":"Session too large"}`)
	}
	if n.Len() != 0 {
		t.Errorf("got %d sockets, want 0", n.Len())
	}
}

// Data that cannot be stored is not kept either, because no later write could succeed.
func TestDataThatIsTooLarge(t *testing.T) {
	n := start(t, Options{Sessions: &limitedStore{session.NewMemory(), 10, 10}})
	a := n.client(t)
	s := n.Socket(a.sid)
	must(t, s.SetData(t.Context(), "small"))
	if err := s.SetData(t.Context(), "0123456789"); !errors.Is(err, session.ErrTooLarge) {
		t.Errorf("SetData: %v, want session.ErrTooLarge", err)
	}
	var got string
	if must(t, s.Data(&got)); got != "small" {
		t.Errorf(`the data is %q, want "small"`, got)
	}
	must(t, s.Join(t.Context(), "r"))
}

// Data that a middleware has set is also there if the claimed session is refused.
func TestDataOfAMiddlewareAfterARefusal(t *testing.T) {
	n := newCluster(adapter.MemoryOptions{BacklogLimit: 5}).node(t, "node", Options{})
	n.Use(func(_ context.Context, r *ConnectRequest) error { return r.SetData("set") })
	a := n.client(t)
	must(t, n.Emit(t.Context(), "n", 0))
	a.want(numbered(0))
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	for i := range 20 {
		must(t, n.Emit(t.Context(), "n", i))
	}
	b := n.back(t, a)
	if b.sid == a.sid || n.Stats().Recoveries[refusedTrimmed] != 1 {
		t.Fatalf("%s, before %s: %v", b.sid, a.sid, n.Stats().Recoveries)
	}
	var got string
	if must(t, n.Socket(b.sid).Data(&got)); got != "set" {
		t.Errorf(`the data is %q, want "set"`, got)
	}
}

// A largeClaim is a store whose sessions are too large with the name of another owner.
type largeClaim struct{ session.Store }

func (largeClaim) Claim(context.Context, string, string, time.Duration, func(session.Session) error) (session.Session, string, error) {
	return session.Session{}, "", session.ErrTooLarge
}

// A client whose session is too large to be claimed gets a new one.
func TestAClaimThatIsTooLarge(t *testing.T) {
	n := start(t, Options{Sessions: largeClaim{session.NewMemory()}})
	a := n.client(t)
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	if b := n.back(t, a); b.sid == a.sid || n.Stats().Recoveries[refusedRooms] != 1 {
		t.Errorf("%s, before %s: %v", b.sid, a.sid, n.Stats().Recoveries)
	}
}
