package socketio

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A holdable is a store and an adapter of which calls of Save and Replay can be held.
type holdable struct {
	session.Store
	adapter.Adapter
	mu   sync.Mutex
	held chan error // nil if none are; closed or with an error for each
}

// hold holds calls until the returned function is called, which makes those of Save
// fail with an error unless that is nil.
func (h *holdable) hold() (release func(error)) {
	held := make(chan error, 1000)
	h.mu.Lock()
	h.held = held
	h.mu.Unlock()
	return func(err error) {
		h.mu.Lock()
		h.held = nil
		h.mu.Unlock()
		for range cap(held) {
			held <- err
		}
	}
}

func (h *holdable) wait() error {
	h.mu.Lock()
	held := h.held
	h.mu.Unlock()
	if held == nil {
		return nil
	}
	return <-held
}

func (h *holdable) Save(ctx context.Context, s session.Session, ttl time.Duration) error {
	if err := h.wait(); err != nil {
		return err
	}
	return h.Store.Save(ctx, s, ttl)
}

func (h *holdable) Replay(ctx context.Context, after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor, payload int) iter.Seq2[adapter.Event, error] {
	_ = h.wait()
	return h.Adapter.Replay(ctx, after, upTo, payload)
}

func startHoldable(t *testing.T, o Options) (*testNode, *holdable) {
	t.Helper()
	a, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("node")
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	h := &holdable{Store: session.NewMemory(), Adapter: a}
	o.Adapter, o.Sessions = h, h
	n := start(t, o)
	joining(n.Namespace)
	return n, h
}

// sockets returns the connected sockets with some ids.
func (n *testNode) sockets(t *testing.T, ids ...string) (all []*Socket) {
	t.Helper()
	for _, id := range ids {
		n.Namespace.mu.Lock()
		s := n.Namespace.sockets[id]
		n.Namespace.mu.Unlock()
		if s == nil {
			t.Fatalf("no socket %s", id)
		}
		all = append(all, s)
	}
	return all
}

// handOut emits an event and returns when the feed has looked up its receivers and waits
// for the first of them, whose lock the caller holds.
func (n *testNode) handOut(t *testing.T, b Broadcast, event string) {
	t.Helper()
	must(t, b.Emit(t.Context(), event))
	eventually(t, "the feed hands out the event", func() bool {
		if n.feed.mu.TryLock() {
			n.feed.mu.Unlock()
			return false
		}
		return true
	})
}

// A socket that leaves a room while the feed hands out a later event of the room does not
// get it: because of a command that it could not execute before, or because its join has
// failed.
func TestLeaveWhileAnEventIsHandedOut(t *testing.T) {
	for name, c := range map[string]struct {
		before, join string
		leave        bool
		fail         error
	}{
		"by a command":       {"r", "other", true, nil},
		"a join that failed": {"other", "r", false, errors.New("not stored")},
	} {
		t.Run(name, func(t *testing.T) {
			n, held := startHoldable(t, Options{})
			first, w := n.client(t), n.client(t)
			first.call(`["join","r"]`)
			w.call(`["join","` + c.before + `"]`)
			release := held.hold()
			w.ask(`["join","` + c.join + `"]`)
			s := n.sockets(t, first.sid, w.sid)
			eventually(t, "the join begins", func() bool { return s[1].InRoom(c.join) })
			if c.leave {
				must(t, n.ToSocket(w.sid).SocketsLeave(t.Context(), "r"))
				eventually(t, "the command is held", func() bool {
					s[1].mu.Lock()
					defer s[1].mu.Unlock()
					return len(s[1].gate.held) > 0
				})
			}
			s[0].mu.Lock()
			n.handOut(t, n.To("r"), "late")
			release(c.fail)
			eventually(t, "the socket has left", func() bool { return !s[1].InRoom("r") })
			s[0].mu.Unlock()
			first.want(`["late"]`)
			if m := w.next(); !strings.HasPrefix(m, "43") {
				t.Fatalf("got %s, want an ack", m)
			}
			w.quiet()
			must(t, n.ToSocket(w.sid).Emit(t.Context(), "after"))
			w.want(`["after"]`)
		})
	}
}

// A socket whose recovery is refused while the feed hands out an event does not get
// it: it is a new one, and not connected yet.
func TestRefusalWhileAnEventIsHandedOut(t *testing.T) {
	refused, proceed := make(chan struct{}), make(chan struct{})
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), zapcore.AddSync(io.Discard), zap.InfoLevel), zap.Hooks(func(e zapcore.Entry) error {
		if e.Message == "session not recovered" {
			close(refused)
			<-proceed
		}
		return nil
	}))
	n, held := startHoldable(t, Options{ReplayLimit: 1, Logger: log})
	first, w := n.client(t), n.client(t)
	s := n.sockets(t, first.sid)[0]
	release := lostBy(t, n, held, w)
	again := n.reconnect(t, w)
	defer again.cut()
	eventually(t, "the recovery is held", func() bool { return n.index.Len(rooms.InEveryone("/")) == 2 })
	s.mu.Lock()
	n.handOut(t, n.Everyone(), "late")
	release(nil)
	<-refused
	s.mu.Unlock()
	eventually(t, "the event has been handed out", func() bool {
		passed := n.feed.mu.TryLock()
		if passed {
			n.feed.mu.Unlock()
		}
		return passed
	})
	close(proceed)
	if m := again.next(); !strings.HasPrefix(m, "40") || strings.Contains(m, w.sid) {
		t.Fatalf("got %s, want a new session", m)
	}
	again.quiet()
}

// A query that a recovering socket holds does not wait for it once the recovery is
// refused.
func TestQueryDuringARefusedRecovery(t *testing.T) {
	n, held := startHoldable(t, Options{ReplayLimit: 1})
	w := n.client(t)
	release := lostBy(t, n, held, w)
	again := n.reconnect(t, w)
	defer again.cut()
	eventually(t, "the recovery is held", func() bool { return n.index.Len(rooms.InEveryone("/")) == 1 })
	answers, err := n.Timeout(time.Hour).EmitWithAck(t.Context(), "question")
	must(t, err)
	ended := make(chan error)
	go func() {
		var last error
		for _, err := range answers.All() {
			last = err
		}
		ended <- last
	}()
	eventually(t, "the question is held", func() bool {
		for s := range n.index.Members(rooms.InEveryone("/")) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.gate.held) > 0
		}
		return false
	})
	release(nil)
	select {
	case err := <-ended:
		if silent := (*UnansweredError)(nil); !errors.As(err, &silent) || len(silent.Sockets) != 1 || silent.Sockets[0] != w.sid {
			t.Errorf("the question ended with %v, want socket %s unanswered", err, w.sid)
		}
	case <-time.After(patience):
		t.Error("the question waits for a socket whose recovery was refused")
	}
}

// lostBy makes a client lose its connection and more events than can be replayed, and
// holds the recovery.
func lostBy(t *testing.T, n *testNode, held *holdable, w *wire) (release func(error)) {
	t.Helper()
	must(t, n.ToSocket(w.sid).Emit(t.Context(), "first"))
	w.want(`["first"]`)
	w.cut()
	id := w.sid
	eventually(t, "the client is disconnected", func() bool {
		n.Namespace.mu.Lock()
		defer n.Namespace.mu.Unlock()
		return n.Namespace.sockets[id] == nil
	})
	for range 3 {
		must(t, n.ToSocket(w.sid).Emit(t.Context(), "missed"))
	}
	return held.hold()
}

// reconnect sends the CONNECT of a client that reconnects.
func (n *testNode) reconnect(t *testing.T, was *wire) *wire {
	t.Helper()
	w := n.dial(t)
	w.write(`40{"pid":"` + was.pid + `","offset":"` + was.offset + `"}`)
	return w
}
