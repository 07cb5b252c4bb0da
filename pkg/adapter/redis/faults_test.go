package redis

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// patience bounds every wait of a test.
const patience = 20 * time.Second

// start starts a node that reaches Redis at a URL, with the other options of o.
func start(t *testing.T, url string, id adapter.NodeID, o Options) *Adapter {
	t.Helper()
	o = options(t, url, id, o)
	a, err := New(deadline(t), o)
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func options(t *testing.T, url string, id adapter.NodeID, o Options) Options {
	t.Helper()
	target, err := redisurl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	o.Redis, o.Node = target, id
	if o.Logger == nil {
		o.Logger = zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)).Named(string(id))
	}
	return o
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func room(name string) rooms.Room { return rooms.InNamed("/", name) }

func event(data string, to ...rooms.Room) adapter.Event {
	return adapter.Event{Target: rooms.Target{To: to}, Stored: true, Data: []byte(data)}
}

func subscribe(t *testing.T, a *Adapter, to ...rooms.Room) adapter.Cursor {
	t.Helper()
	c, err := a.Subscribe(deadline(t), to...)
	if err != nil {
		t.Fatalf("%s: Subscribe: %v", a.Node(), err)
	}
	return c
}

func publish(t *testing.T, a *Adapter, e adapter.Event) adapter.Cursor {
	t.Helper()
	r, err := a.Publish(deadline(t), e)
	if err != nil {
		t.Fatalf("%s: Publish %q: %v", a.Node(), e.Data, err)
	}
	return r.Cursor
}

// expect reads the feed and checks that these events are next.
func expect(t *testing.T, a *Adapter, want ...string) {
	t.Helper()
	for _, w := range want {
		e, err := a.Next(deadline(t))
		if err != nil {
			t.Fatalf("%s: Next: %v, want %q", a.Node(), err, w)
		}
		if string(e.Data) != w {
			t.Fatalf("%s: Next: %q, want %q", a.Node(), e.Data, w)
		}
	}
}

// expectLoss reads the feed up to the next LostError, and returns the events before it.
func expectLoss(t *testing.T, a *Adapter) (before []string) {
	t.Helper()
	for {
		e, err := a.Next(deadline(t))
		var lost *adapter.LostError
		switch {
		case errors.As(err, &lost):
			return before
		case err != nil:
			t.Fatalf("%s: Next: %v after %q, want a LostError", a.Node(), err, before)
		}
		before = append(before, string(e.Data))
	}
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx := deadline(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never came to this: %s", what)
		}
	}
}
