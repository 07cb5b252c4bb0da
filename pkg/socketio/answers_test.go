package socketio

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// EmitWithAck sends even if its answers are not read, and they can be read again.
func TestEmitWithAckSendsBeforeItReturns(t *testing.T) {
	n := start(t, Options{})
	a, b := n.client(t), n.client(t)
	_, err := n.EmitWithAck(t.Context(), "q")
	must(t, err)
	a.query()
	b.query()
	answers, err := n.Timeout(time.Minute).EmitWithAck(t.Context(), "q")
	must(t, err)
	a.write("43" + a.query() + "[1]")
	b.write("43" + b.query() + "[2]")
	for range 2 {
		sum := 0
		for answer, err := range answers.All() {
			must(t, err)
			var i int
			must(t, answer.Arg(0, &i))
			sum += i
		}
		if sum != 3 {
			t.Errorf("the answers add up to %d, want 3", sum)
		}
	}
	for range answers.All() {
		break
	}
	eventually(t, "no question is open but the first", func() bool {
		n.queries.mu.Lock()
		defer n.queries.mu.Unlock()
		return len(n.queries.open) == 1
	})
}

// An event that is not sent is an error of the call, in every form.
func TestEmitWithAckReturnsWhyItIsNotSent(t *testing.T) {
	n := start(t, Options{})
	w := n.client(t)
	s := n.Socket(w.sid)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, ask := range map[string]func(context.Context, ...any) error{
		"namespace": func(ctx context.Context, args ...any) error { _, err := n.EmitWithAck(ctx, "q", args...); return err },
		"room": func(ctx context.Context, args ...any) error {
			_, err := n.To("r").EmitWithAck(ctx, "q", args...)
			return err
		},
		"socket": func(ctx context.Context, args ...any) error { _, err := s.EmitWithAck(ctx, "q", args...); return err },
		"server side": func(ctx context.Context, args ...any) error {
			_, err := n.ServerSideEmitWithAck(ctx, "q", args...)
			return err
		},
	} {
		if ask(t.Context(), make(chan int)) == nil {
			t.Errorf("%s: no error for a value that cannot be encoded", name)
		}
		if err := ask(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v for a context that has ended, want context.Canceled", name, err)
		}
	}
	n.queries.mu.Lock()
	defer n.queries.mu.Unlock()
	if len(n.queries.open) > 0 {
		t.Errorf("%d questions are left, want 0", len(n.queries.open))
	}
}

// An ack whose values cannot be encoded can be repeated.
func TestFailedAckCanBeRepeated(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n1, n2 := c.node(t, "1", Options{}), c.node(t, "2", Options{})
	results := make(chan []error, 2)
	handler := func(_ context.Context, e *Event) error {
		results <- []error{e.Ack(make(chan int)), e.Ack("well"), e.Ack("again")}
		return nil
	}
	n1.On("q", handler)
	n2.OnServerSide("q", handler)
	w := n1.client(t)
	if got := w.call(`["q"]`); got != `["well"]` {
		t.Errorf("acked %s, want %s", got, `["well"]`)
	}
	answers, err := n1.ServerSideEmitWithAck(t.Context(), "q")
	must(t, err)
	for answer, err := range answers.All() {
		if got := fmt.Sprintf("%s %v", answer.Raw(0), err); got != `"well" <nil>` {
			t.Errorf("answered %s, want %s", got, `"well" <nil>`)
		}
	}
	for range 2 {
		if got := <-results; got[0] == nil || errors.Is(got[0], ErrNoAck) || got[1] != nil || !errors.Is(got[2], ErrNoAck) {
			t.Errorf("Ack returned %v", got)
		}
	}
}

// An event or command for a socket alone fails once it is disconnected.
func TestSelfAfterDisconnect(t *testing.T) {
	n := start(t, Options{})
	w := n.client(t)
	s := n.Socket(w.sid)
	w.cut()
	<-s.Context().Done()
	ctx := t.Context()
	_, asked := s.Self().EmitWithAck(ctx, "x")
	_, askedOne := s.EmitWithAck(ctx, "x")
	for i, err := range []error{
		s.Emit(ctx, "x"), s.Self().Emit(ctx, "x"), s.Self().Volatile().Emit(ctx, "x"), s.Self().Local().Emit(ctx, "x"),
		s.Self().Send(ctx), s.Self().SocketsJoin(ctx, "r"), s.Self().SocketsLeave(ctx, "r"), s.Self().DisconnectSockets(ctx, false), asked, askedOne,
	} {
		if !errors.Is(err, ErrDisconnected) {
			t.Errorf("%d: got %v, want ErrDisconnected", i, err)
		}
	}
	if err := errors.Join(s.To("r").Emit(ctx, "left"), s.Self().To("r").Emit(ctx, "left")); err != nil {
		t.Errorf("to others: %v", err)
	}
}
