package socketio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

func TestSpreadFillsTheWholeTimeEvenly(t *testing.T) {
	const n, over = 100, 20 * time.Second
	for range 100 {
		moments := spread(n, over)
		for i, m := range moments {
			part := over / n
			if from := time.Duration(i) * part; m < from || m > from+part {
				t.Fatalf("moment %d of %d in %v is %v", i, n, over, m)
			}
		}
		if slices.Equal(moments, spread(n, over)) {
			t.Fatal("two nodes close their connections in step")
		}
	}
	if got := spread(3, 0); !slices.Equal(got, []time.Duration{0, 0, 0}) {
		t.Errorf("in no time: %v", got)
	}
	if got := spread(0, over); len(got) != 0 {
		t.Errorf("without clients: %v", got)
	}
}

// drain starts a Drain and returns a channel for its error.
func (n *testNode) drain(ctx context.Context, over time.Duration) <-chan error {
	done := make(chan error, 1)
	go func() { done <- n.Drain(ctx, over) }()
	return done
}

// awaitDrain fails if the Drain does not end, or not with the wanted error.
func awaitDrain(t *testing.T, done <-chan error, want error) {
	t.Helper()
	select {
	case err := <-done:
		if !errors.Is(err, want) {
			t.Fatalf("Drain: %v, want %v", err, want)
		}
	case <-time.After(patience):
		t.Fatal("Drain does not end")
	}
}

// Events that a client has sent are handled and acked before it is disconnected; later ones
// are dropped as if not sent. The client misses nothing.
func TestDrainLosesNothing(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1, n2 := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{})
	joining(n1.Namespace)
	handling, finish := make(chan struct{}), make(chan struct{})
	late := make(chan string, 10)
	n1.On("slow", func(_ context.Context, e *Event) error {
		close(handling)
		<-finish
		return e.Ack(e.Socket().Connected())
	})
	n1.On("late", func(_ context.Context, e *Event) error { late <- e.Name; return nil })
	reasons := make(chan Reason, 1)
	n1.OnConnect(func(s *Socket) { s.OnDisconnect(func(r Reason) { reasons <- r }) })

	w := n1.client(t)
	w.call(`["join","r"]`)
	must(t, n2.To("r").Emit(t.Context(), "n", 0))
	w.want(numbered(0))
	w.write(`427["slow"]`)
	<-handling
	w.write(`428["join","s"]`)
	eventually(t, "both have arrived", func() bool { return n1.Stats().EventsIn == 3 })
	drained := n1.drain(t.Context(), 0)
	eventually(t, "the client is leaving", func() bool {
		n1.mu.Lock()
		defer n1.mu.Unlock()
		for _, c := range n1.clients {
			return c.leaving.Load()
		}
		return false
	})
	w.write(`42["late"]`)
	w.write(`40/other,`)
	must(t, n2.To("r").Emit(t.Context(), "n", 1)) // while the handler still runs
	w.want(numbered(1))
	close(finish)
	if got := w.next(); got != "437[true]" {
		t.Errorf("got %s, want the ack of the earlier event", got)
	}
	if got := w.next(); got != `438["ok"]` {
		t.Errorf("got %s, want the ack of the join that arrived before", got)
	}
	<-w.closed
	awaitDrain(t, drained, nil)
	if r := <-reasons; r != ServerShutdown {
		t.Errorf("disconnected by %q, want %q", r, ServerShutdown)
	}
	if len(w.in) > 0 || len(late) > 0 {
		t.Errorf("%d more messages; %d late events were handled, want 0, 0", len(w.in), len(late))
	}
	if st := n1.Stats(); st.Drained != 1 || st.Sockets != 0 || st.Engine.WebSocket != 0 {
		t.Errorf("got %+v, want one drained and none left", st)
	}

	must(t, n2.To("r").Emit(t.Context(), "n", 2))
	must(t, n2.To("s").Emit(t.Context(), "n", 3))
	joining(n2.Namespace)
	back := n2.back(t, w)
	back.want(numbered(2), numbered(3))
	back.quiet()
	if back.sid != w.sid {
		t.Error("it has not recovered")
	}
}

// A slowStore delays the last write of a session.
type slowStore struct {
	session.Store
	writing, finish chan struct{}
}

func (s slowStore) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	s.writing <- struct{}{}
	select {
	case <-s.finish:
	case <-ctx.Done():
	}
	return s.Store.Save(ctx, v, ttl)
}

func TestDrainStoresBeforeItCloses(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	store := slowStore{c.sessions, make(chan struct{}), make(chan struct{})}
	c.sessions = store
	n := c.node(t, "aaaa", Options{})
	w := n.client(t)
	drained := n.drain(t.Context(), 0)
	<-store.writing
	if n := n.Stats().Engine.WebSocket; n != 1 {
		t.Errorf("%d connections, though the session has not been stored yet, want 1", n)
	}
	close(store.finish)
	<-w.closed
	awaitDrain(t, drained, nil)
}

func TestDrainEndsWithItsClients(t *testing.T) {
	n := start(t, Options{})
	a, b := n.client(t), n.client(t)
	drained := n.drain(t.Context(), 24*time.Hour)
	a.cut()
	b.cut()
	awaitDrain(t, drained, nil)
	awaitDrain(t, n.drain(t.Context(), 24*time.Hour), nil)
	if d := n.Stats().Drained; d != 0 {
		t.Errorf("%d were closed, want 0", d)
	}
}

// The end of the context leaves the rest to Close, which does not wait for
// handlers that hang.
func TestDrainEndsWithItsContext(t *testing.T) {
	n := start(t, Options{})
	handling, finish := make(chan struct{}), make(chan struct{})
	n.On("hang", func(context.Context, *Event) error {
		close(handling)
		<-finish
		return nil
	})
	w := n.client(t)
	w.write(`42["hang"]`)
	<-handling
	enough := errors.New("enough")
	for _, over := range []time.Duration{24 * time.Hour, 0} {
		ctx, cancel := context.WithCancelCause(t.Context())
		drained := n.drain(ctx, over)
		if over == 0 {
			eventually(t, "the client is leaving", func() bool {
				n.mu.Lock()
				defer n.mu.Unlock()
				for _, c := range n.clients {
					return c.leaving.Load()
				}
				return false
			})
		}
		cancel(enough)
		if over > 0 {
			awaitDrain(t, drained, enough)
		} else {
			awaitDrain(t, drained, nil) // it was about to be closed, and is
			<-w.closed
		}
	}
	close(finish)
}

func TestDrainRefusesNewClients(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	var clients []*wire
	for range 5 {
		clients = append(clients, n.client(t))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	drained := n.drain(ctx, 24*time.Hour)
	eventually(t, "new clients are refused", func() bool {
		ws, res, err := websocket.DefaultDialer.Dial(n.url+"/socket.io/?EIO=4&transport=websocket", nil)
		if err == nil {
			_ = ws.Close()
			return false
		}
		return res != nil && res.StatusCode == 503
	})
	for i, w := range clients {
		w.call(fmt.Sprintf(`["join","r%d"]`, i)) // existing clients are still served
	}
	cancel()
	awaitDrain(t, drained, context.Canceled)
}

// A client whose route shuts down is disconnected as in a Drain. Other clients stay, and
// new ones can connect.
func TestCloseForAnotherNode(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	handling, finish := make(chan struct{}), make(chan struct{})
	n.On("slow", func(_ context.Context, e *Event) error {
		close(handling)
		<-finish
		return e.Ack("done")
	})
	w := n.client(t)
	n.mu.Lock()
	var id string
	for id = range n.clients {
	}
	n.mu.Unlock()
	other := n.client(t)
	n.SendAway(t.Context(), "nobody's")

	w.write(`427["slow"]`)
	<-handling
	left := make(chan struct{})
	go func() { n.SendAway(t.Context(), id); close(left) }()
	close(finish)
	if got := w.next(); got != `437["done"]` {
		t.Errorf("got %s, want the ack of the earlier event", got)
	}
	select {
	case <-left:
	case <-time.After(patience):
		t.Fatal("SendAway does not end")
	}
	<-w.closed
	n.SendAway(t.Context(), id) // it has gone
	other.call(`["join","r"]`)
	n.back(t, w)
	if st := n.Stats(); st.Drained != 1 || st.Sockets != 2 {
		t.Errorf("got %+v, want one drained and 2 sockets", st)
	}
}
