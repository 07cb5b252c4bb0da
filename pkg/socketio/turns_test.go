package socketio

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// Sockets with many rooms take turns, and wait for a bounded time; those with few rooms do
// not.
func TestTurns(t *testing.T) {
	turns := make(turns, 1)
	ended, err := turns.take(t.Context(), turnRooms)
	must(t, err)
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.take(impatient, turnRooms); !errors.Is(err, context.Canceled) {
		t.Errorf("a second turn: %v, want it to wait", err)
	}
	few, err := turns.take(impatient, turnRooms-1)
	must(t, err)
	few()
	next := make(chan error, 1)
	go func() {
		_, err := turns.take(t.Context(), turnRooms)
		next <- err
	}()
	ended()
	ended() // which changes nothing
	must(t, <-next)
	if _, err := turns.take(impatient, turnRooms); !errors.Is(err, context.Canceled) {
		t.Errorf("a third turn: %v, want it to wait", err)
	}
}

// A turn ends before the replay, which a client may read at any pace.
func TestTurnsEndBeforeReplays(t *testing.T) {
	n, shared := startRemote(t, 1)
	n.replays.patience = time.Hour
	n.turns = make(turns, 1)
	joiningMany(n.Namespace)
	w := n.client(t)
	w.call(fmt.Sprintf(`["join many",%d]`, turnRooms))
	w.call(`["join","r"]`)
	w.cut()
	for i := range 20 {
		must(t, n.To("r").Emit(t.Context(), "n", i, strings.Repeat("x", 50_000)))
	}
	shared.waits.Store(true)
	if back := n.back(t, w); back.sid != w.sid {
		t.Fatal("not recovered")
	}
	<-shared.waiting
	if len(n.turns) > 0 {
		t.Error("the turn is held during the replay")
	}
}

// A busyStore counts the concurrent writes of sockets with many rooms.
type busyStore struct {
	session.Store
	goOn   chan struct{}
	busy   atomic.Int32
	busier atomic.Bool // more than one ran
}

func (s *busyStore) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	if len(v.Rooms) > turnRooms {
		if s.busy.Add(1) > 1 {
			s.busier.Store(true)
		}
		defer s.busy.Add(-1)
		<-s.goOn
	}
	return s.Store.Save(ctx, v, ttl)
}

// The sessions of sockets with many rooms are written in turn, and those of others
// concurrently.
func TestWritesTakeTurns(t *testing.T) {
	store := &busyStore{Store: session.NewMemory(), goOn: make(chan struct{})}
	n := start(t, Options{Sessions: store})
	n.writes = make(turns, 1)
	joining(n.Namespace)
	joiningMany(n.Namespace)
	var all []*wire
	for range 4 {
		w := n.client(t)
		w.write(fmt.Sprintf(`42100["join many",%d]`, turnRooms))
		all = append(all, w)
	}
	for _, w := range all {
		eventually(t, "it has begun to join", func() bool { return n.Socket(w.sid).RoomCount() == turnRooms })
	}
	n.client(t).call(`["join","r"]`)
	close(store.goOn)
	for _, w := range all {
		if m := w.next(); m != `43100["ok"]` {
			t.Errorf("got %q, want %q", m, `43100["ok"]`)
		}
	}
	if store.busier.Load() {
		t.Error("several were written concurrently")
	}
}

// The obligations of earlier claims remain if the client is not connected in the end.
func TestConnectedCanBeUndone(t *testing.T) {
	n := start(t, Options{})
	s := n.Socket(n.client(t).sid)
	o, owed := &n.owned, s.lostClaim()
	o.mu.Lock()
	o.keep(owed)
	o.mu.Unlock()
	left := func() int {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.lost[s.pid])
	}
	undo := o.connected(&Socket{pid: s.pid, fence: s.fence + 1})
	if left() != 0 {
		t.Error("it is owed although the client has moved")
	}
	undo()
	if left() != 1 {
		t.Error("it is no longer owed")
	}
	o.mu.Lock()
	o.forget(s.pid, func(*lostClaim) bool { return true })
	o.mu.Unlock()
}

// A callback that ends its goroutine during a recovery, as testing.T.FailNow does, does not keep
// the turn.
func TestTurnOfARecoveryThatIsEnded(t *testing.T) {
	n := start(t, Options{})
	joiningMany(n.Namespace)
	ends, ended := make(chan struct{}), make(chan struct{})
	keepRooms(n.Namespace, func(string) bool {
		select {
		case <-ends:
			defer close(ended)
			runtime.Goexit()
		default:
		}
		return true
	})
	w := n.client(t)
	w.call(`["join many",250]`)
	w.cut()
	eventually(t, "it has ended", func() bool { return n.Len() == 0 })
	close(ends)
	n.dial(t).write(fmt.Sprintf(`40{"pid":%q}`, w.pid))
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the callback is not called")
	}
	eventually(t, "its turn has ended", func() bool { return len(n.turns) == 0 })
}

// The turn ends before the missed events are read, because a read can wait for larger ones.
func TestTurnsEndBeforeReads(t *testing.T) {
	reading, goOn := make(chan struct{}, 2), make(chan struct{})
	inner, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("a")
	must(t, err)
	t.Cleanup(func() { _ = inner.Close() })
	n := start(t, Options{Adapter: &busyAdapter{inner, func() {}, func() {
		reading <- struct{}{}
		<-goOn
	}}})
	n.turns = make(turns, 1)
	joiningMany(n.Namespace)
	clients := []*wire{n.client(t), n.client(t)}
	for _, w := range clients {
		w.call(fmt.Sprintf(`["join many",%d]`, turnRooms))
		w.cut()
	}
	eventually(t, "they have ended", func() bool { return n.Len() == 0 })
	for _, w := range clients {
		n.dial(t).write(fmt.Sprintf(`40{"pid":%q}`, w.pid))
	}
	for range clients {
		select {
		case <-reading:
		case <-time.After(patience):
			t.Fatal("a recovery waits for the read of another one")
		}
	}
	close(goOn)
	eventually(t, "they are back", func() bool { return n.Len() == len(clients) })
}

// A socket without a session does not wait for those that write theirs.
func TestLeaveWithoutASessionTakesNoTurn(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	w := n.dial(t).connect("/", `{"recovery":false}`)
	s := n.Socket(w.sid)
	names := make([]string, turnRooms+10)
	for i := range names {
		names[i] = fmt.Sprint("r", i)
	}
	must(t, s.Join(t.Context(), names...))
	for range cap(n.writes) {
		n.writes <- struct{}{}
	}
	must(t, s.Leave(t.Context(), "r0"))
	must(t, n.Emit(t.Context(), "n", 1))
	w.want(`["n",1]`)
	for range cap(n.writes) {
		<-n.writes
	}
}
