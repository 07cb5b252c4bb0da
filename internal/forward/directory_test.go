package forward

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A script answers each question by a function.
type script func(ctx context.Context, node adapter.NodeID) (string, error)

func (s script) Address(ctx context.Context, node adapter.NodeID) (string, error) {
	return s(ctx, node)
}

func TestLookupsAreShared(t *testing.T) {
	var asked atomic.Int32
	begun, answer := make(chan struct{}), make(chan struct{})
	a := newAddresses(script(func(context.Context, adapter.NodeID) (string, error) {
		asked.Add(1)
		close(begun)
		<-answer
		return "10.0.0.1:3001", nil
	}))
	a.now = func() time.Time { return time.UnixMilli(0) }
	var all sync.WaitGroup
	ask := func() {
		if addr, err := a.of(t.Context(), "n001"); err != nil || addr != "10.0.0.1:3001" {
			t.Errorf("%q, %v", addr, err)
		}
	}
	all.Go(ask)
	receive(t, begun)
	for range 10 {
		all.Go(ask)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.of(gone, "n001"); !errors.Is(err, context.Canceled) {
		t.Errorf("who is gone waits: %v", err)
	}
	close(answer)
	all.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// The client that happens to ask first may leave.
func TestLookupOutlivesItsClient(t *testing.T) {
	a := newAddresses(script(func(ctx context.Context, _ adapter.NodeID) (string, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("no deadline")
		}
		return "10.0.0.1:3001", ctx.Err()
	}))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if addr, err := a.of(gone, "n001"); err != nil || addr == "" {
		t.Errorf("%q, %v", addr, err)
	}
}

func TestAddressesAge(t *testing.T) {
	now := time.UnixMilli(0)
	none := fmt.Errorf("script: %w", adapter.ErrNoNode)
	away := errors.New("redis is away")
	addr, fault, asked := "10.0.0.1:3001", error(nil), 0
	a := newAddresses(script(func(context.Context, adapter.NodeID) (string, error) {
		asked++
		return addr, fault
	}))
	a.now = func() time.Time { return now }
	for _, step := range []struct {
		after time.Duration
		addr  string
		fault error
		want  string
		err   error
		asked int
	}{
		{0, "a", nil, "a", nil, 1},
		{addressLife - 1, "b", nil, "a", nil, 1},
		{1, "b", nil, "b", nil, 2},
		{time.Hour, "", away, "b", nil, 3},       // the last answer holds
		{time.Hour, "", away, "b", nil, 4},       // and goes on to
		{addressLife, "c", nil, "c", nil, 5},     // until there is another
		{addressLife, "", none, "", none, 6},     // such as that the node is gone
		{addressLife - 1, "d", nil, "", none, 6}, // which is kept as well
		{addressLife, "", away, "", none, 7},     //
		{addressLife, "d", nil, "d", nil, 8},
	} {
		now = now.Add(step.after)
		addr, fault = step.addr, step.fault
		got, err := a.of(t.Context(), "n001")
		if got != step.want || !errors.Is(err, step.err) || asked != step.asked {
			t.Errorf("%+v: %q, %v, asked %d times", step, got, err, asked)
		}
	}
	fault = away
	if _, err := a.of(t.Context(), "n002"); !errors.Is(err, away) {
		t.Errorf("a node never heard of: %v", err)
	}
}

// Made-up ids neither fill the memory nor push out what is needed.
func TestAddressesAreBounded(t *testing.T) {
	away := false
	a := newAddresses(script(func(_ context.Context, node adapter.NodeID) (string, error) {
		switch {
		case away:
			return "", errors.New("redis is away")
		case node == "n001":
			return "10.0.0.1:3001", nil
		}
		return "", adapter.ErrNoNode
	}))
	now := time.UnixMilli(0)
	a.now = func() time.Time { return now }
	_, _ = a.of(t.Context(), "n001")
	away = true
	now = now.Add(addressLife)
	for i := range 3 * maxAddresses {
		_, _ = a.of(t.Context(), fmt.Sprint("x", i))
		if len(a.known) > maxAddresses {
			t.Fatalf("%d addresses are known", len(a.known))
		}
	}
	if addr, err := a.of(t.Context(), "n001"); err != nil || addr == "" {
		t.Errorf("%q, %v", addr, err)
	}
}
