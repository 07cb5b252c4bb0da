package socketio

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A keeper is a middleware that records the former session, and keeps a text.
type keeper struct {
	mu     sync.Mutex
	text   string
	former Former
	ok     bool
	err    error
}

func (k *keeper) use(ctx context.Context, r *ConnectRequest) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	r.SetUser("ann")
	k.former, k.ok, k.err = r.Former(ctx)
	if k.text != "" {
		r.Keep([]byte(k.text))
	}
	return r.SetData(map[string]string{"kept": k.text})
}

// keeps sets what the next connection keeps.
func (k *keeper) keeps(text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.text = text
}

func (k *keeper) want(t *testing.T, kept string, ok bool) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil || k.ok != ok || string(k.former.Kept) != kept || ok && (k.former.User != "ann" || k.former.Away != 0) {
		t.Errorf("former session %+v, %v, %v; want %q, %v", k.former, k.ok, k.err, kept, ok)
	}
}

// stored returns what the session of a client in a store keeps.
func stored(t *testing.T, c *testCluster, pid string) string {
	t.Helper()
	s, _, err := c.sessions.(session.Peeker).Peek(t.Context(), pid)
	if err != nil {
		t.Fatal(err)
	}
	return string(kept(s.Rooms))
}

// What a middleware keeps is there at the client's next connection, on any node. It is stored even if
// nothing else changes, and forgotten if it is not kept again.
func TestKept(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1, n2 := c.node(t, "aaaa", Options{}), c.node(t, "bbbb", Options{})
	k := &keeper{text: "one"}
	n1.Use(k.use)
	n2.Use(k.use)
	joining(n1.Namespace)
	joining(n2.Namespace)
	w := n1.client(t)
	k.want(t, "", false)
	if got := stored(t, c, w.pid); got != "one" {
		t.Errorf("stored %q, want one", got)
	}
	w.call(`["join","r"]`)
	for i, step := range []struct {
		at   *testNode
		had  string
		text string
	}{{n2, "one", "two"}, {n2, "two", "two"}, {n1, "two", ""}, {n2, "", "three"}} {
		w.cut()
		k.keeps(step.text)
		must(t, n1.To("r").Emit(t.Context(), "n", i))
		back := step.at.back(t, w)
		k.want(t, step.had, true)
		if back.sid != w.sid {
			t.Fatalf("step %d: not recovered: %v", i, step.at.Stats().Recoveries)
		}
		back.want(numbered(i))
		if got := stored(t, c, w.pid); got != step.text {
			t.Errorf("step %d: stored %q, want %q", i, got, step.text)
		}
		w = back
	}
}

// A client that is not recovered begins with what its middlewares have kept now.
func TestKeptWithoutRecovery(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n := c.node(t, "aaaa", Options{})
	k := &keeper{text: "one"}
	n.Use(k.use)
	w := n.client(t)
	w.cut()
	w.offset = "not an offset"
	k.keeps("two")
	back := n.back(t, w)
	k.want(t, "one", true)
	if back.sid == w.sid || back.pid == w.pid {
		t.Fatal("recovered with an offset that is none")
	}
	if got := stored(t, c, back.pid); got != "two" {
		t.Errorf("stored %q, want two", got)
	}
}

// Only the client of a session in this namespace has a former session.
func TestNoFormer(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n := c.node(t, "aaaa", Options{})
	k := &keeper{text: "one"}
	n.Use(k.use)
	other := &keeper{}
	n.Of("/other").Use(other.use)
	w := n.client(t)
	w.cut()
	for _, auth := range []string{`{}`, `{"pid":7}`, `{"pid":"x"}`, `{"pid":"` + newID() + `"}`} {
		n.dial(t).connect("/", auth)
		k.want(t, "", false)
	}
	n.dial(t).connect("/other", `{"pid":"`+w.pid+`"}`)
	other.want(t, "", false)
}

// Older nodes ignore what is kept.
func TestOlderNodesIgnoreWhatIsKept(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1 := c.node(t, "aaaa", Options{})
	k := &keeper{text: `{"user":"ann"}`}
	n1.Use(k.use)
	c.sessions = olderStore{c.sessions}
	n2 := c.node(t, "bbbb", Options{})
	n2.Use(func(_ context.Context, r *ConnectRequest) error { r.SetUser("ann"); return nil })
	joining(n1.Namespace)
	joining(n2.Namespace)
	w := n1.client(t)
	w.call(`["join","r"]`)
	must(t, n1.To("r").Emit(t.Context(), "n", 0))
	w.want(numbered(0))
	for i, n := range []*testNode{n2, n2, n1, n2} {
		w.cut()
		must(t, n1.To("r").Emit(t.Context(), "n", i))
		back := n.back(t, w)
		if back.sid != w.sid {
			t.Fatalf("connection %d: not recovered: %v", i, n.Stats().Recoveries)
		}
		back.want(numbered(i))
		back.call(`["join","other"]`) // the node writes the session
		w = back
	}
}

// An olderStore shows what is kept as nodes of 0.6 see it.
type olderStore struct{ session.Store }

func (s olderStore) Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
	claimed, former, err := s.Store.Claim(ctx, pid, by, ttl, check)
	for i := range claimed.Rooms {
		claimed.Rooms[i].Kind &^= isKept
	}
	return claimed, former, err
}

// While the store is unavailable a middleware learns that it must let the client try again.
func TestFormerIsUnavailable(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n := c.node(t, "aaaa", Options{})
	k := &keeper{text: "one"}
	n.Use(k.use)
	w := n.client(t)
	w.cut()
	c.sessions = unavailableStore{c.sessions}
	broken := c.node(t, "bbbb", Options{})
	got := make(chan error, 1)
	broken.Use(func(ctx context.Context, r *ConnectRequest) error {
		_, _, err := r.Former(ctx)
		got <- err
		return err
	})
	wire := broken.dial(t)
	wire.write(`40{"pid":"` + w.pid + `"}`)
	if err := <-got; !errors.Is(err, ErrTemporary) || !errors.Is(err, errUnavailable) {
		t.Errorf("got %v, want %v", err, ErrTemporary)
	}
	<-wire.closed
}

var errUnavailable = errors.New("unavailable")

type unavailableStore struct{ session.Store }

func (unavailableStore) Peek(context.Context, string) (session.Session, time.Duration, error) {
	return session.Session{}, 0, errUnavailable
}
