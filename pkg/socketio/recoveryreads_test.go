package socketio

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A remoteAdapter reads missed events from outside the process.
type remoteAdapter struct {
	adapter.Adapter
	reading func() // called by each Replay
}

func (a *remoteAdapter) Replay(ctx context.Context, after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor, payload int) iter.Seq2[adapter.Event, error] {
	if a.reading != nil {
		a.reading()
	}
	return func(yield func(adapter.Event, error) bool) {
		for ev, err := range a.Adapter.Replay(ctx, after, upTo, payload) {
			adapter.CountRead(ctx, len(ev.Data))
			if !yield(ev, err) {
				return
			}
		}
	}
}

func (a *remoteAdapter) Fetch(ctx context.Context, history adapter.Cursor, places []adapter.Place) ([]adapter.Event, error) {
	events, err := a.Adapter.Fetch(ctx, history, places)
	for i := range events {
		adapter.CountRead(ctx, len(events[i].Data))
	}
	return events, err
}

// A sharedLimit is a limit that several clients share.
type sharedLimit struct {
	charged atomic.Int64
	waits   atomic.Bool
	waiting chan struct{} // gets a value when a recovery waits
}

func (l *sharedLimit) Charge(bytes int) { l.charged.Add(int64(bytes)) }

func (l *sharedLimit) Wait() time.Duration {
	if !l.waits.Load() {
		return 0
	}
	select {
	case l.waiting <- struct{}{}:
	default:
	}
	return time.Millisecond
}

func startRemote(t *testing.T, burst int) (*testNode, *sharedLimit) {
	t.Helper()
	c := newCluster(adapter.MemoryOptions{})
	a, err := c.memory.Node("a")
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	shared := &sharedLimit{waiting: make(chan struct{}, 1)}
	n := start(t, Options{Adapter: &remoteAdapter{Adapter: a}, Sessions: c.sessions, RecoveryLimit: func(*ConnectRequest) RecoveryLimit { return shared }})
	n.recoveries.pace, n.recoveries.most = pace{burst, time.Hour}, 1000*time.Hour
	joining(n.Namespace)
	return n, shared
}

// A recovery is charged for the bytes that it reads, in the pace of its session. Before its
// client is told that it is connected, it reads no more than the session may.
func TestRecoveriesPayForWhatTheyRead(t *testing.T) {
	n, shared := startRemote(t, 30)
	n.replays.patience = time.Hour
	shared.waits.Store(true)
	w := n.client(t)
	w.call(`["join","r"]`)
	w.cut()
	for i := range 20 {
		must(t, n.To("r").Emit(t.Context(), "n", i, strings.Repeat("x", 10_000)))
	}
	recovered := 0 // each counts as 17
	for again := true; again; {
		next := n.dial(t)
		next.write(fmt.Sprintf(`40{"pid":%q}`, w.pid))
		select {
		case m := <-next.in:
			if !strings.Contains(m, w.pid) {
				t.Fatalf("connected as %s", m)
			}
			if first := next.event(); !strings.HasPrefix(first, `["n",0,`) { // the events that it may read come immediately
				t.Errorf("at first %.20s", first)
			}
			recovered++
			next.cut()
		case <-next.closed:
			again = false
		}
	}
	if recovered != 2 {
		t.Errorf("%d recoveries of 200 kB, want 2", recovered)
	}
	if charged := shared.charged.Load(); charged > recoveryRead {
		t.Errorf("%d bytes are charged to others, want at most %d", charged, recoveryRead)
	}
}

// A replay that is not held waits for the limit, but not for long in total, because its client
// cannot join rooms meanwhile. The client is connected, and receives all events later. Bytes
// beyond the session's pace are charged to the shared limit.
func TestLargeReplaysWaitForTheirLimit(t *testing.T) {
	t.Run("the limit allows it later", func(t *testing.T) { largeReplay(t, time.Hour) })
	t.Run("the limit never allows it", func(t *testing.T) { largeReplay(t, 100*time.Millisecond) })
}

func largeReplay(t *testing.T, patient time.Duration) {
	n, shared := startRemote(t, 20)
	n.replays.patience = patient
	w := n.client(t)
	w.call(`["join","r"]`)
	w.cut()
	const events = 20
	for i := range events {
		must(t, n.To("r").Emit(t.Context(), "n", i, strings.Repeat("x", 50_000)))
	}
	shared.waits.Store(true)
	back := n.back(t, w)
	if back.pid != w.pid {
		t.Fatal("not recovered")
	}
	select {
	case <-shared.waiting:
	case <-time.After(patience):
		t.Fatal("it does not wait")
	}
	if patient == time.Hour {
		shared.waits.Store(false)
	}
	back.write(`421["join","s"]`)
	for i := range events {
		var number int
		if _, err := fmt.Sscanf(back.event(), `["n",%d`, &number); err != nil || number != i {
			t.Fatalf("event %d is %d: %v, want %d", i, number, err, i)
		}
	}
	back.wantAck("431")
	if got, want := shared.charged.Load(), int64(events*50_000-19*recoveryRead); got < want-recoveryRead || got > want+recoveryRead {
		t.Errorf("%d bytes are charged, want about %d", got, want)
	}
}

// A replay that is read repeatedly, because commands join the client to further rooms, reads no
// more than the session may each time.
func TestReplaysThatAreReadAgain(t *testing.T) {
	n, shared := startRemote(t, 30)
	w := n.client(t)
	w.call(`["join","r"]`)
	w.call(`["join","group 0"]`)
	w.cut()
	eventually(t, "it has ended", func() bool { return n.Len() == 0 })
	const again, events, size = 60, 200, 1000
	for i := range again {
		must(t, n.To(fmt.Sprint("group ", i)).SocketsJoin(t.Context(), fmt.Sprint("group ", i+1)))
	}
	for i := range events {
		must(t, n.To("r").Emit(t.Context(), "n", i, strings.Repeat("x", size)))
	}
	back := n.back(t, w)
	if back.pid != w.pid {
		t.Fatal("not recovered")
	}
	for range events {
		back.event()
	}
	if got, most := shared.charged.Load(), int64(again*recoveryRead+events*(size+100)); got > most {
		t.Errorf("%d bytes are charged to others, want at most %d", got, most)
	}
}

// A recovery with little allowance left still holds a little, so that few missed events are
// not read twice.
func TestTheLastRecoveryOfABurstHoldsLittle(t *testing.T) {
	n, shared := startRemote(t, 1)
	n.replays.patience = time.Hour
	shared.waits.Store(true)
	w := n.client(t)
	w.call(`["join","r"]`)
	w.cut()
	must(t, n.To("r").Emit(t.Context(), "n", strings.Repeat("x", 1000)))
	back := n.back(t, w)
	if got := back.event(); !strings.HasPrefix(got, `["n","xxx`) {
		t.Errorf("got %.20s", got)
	}
}
