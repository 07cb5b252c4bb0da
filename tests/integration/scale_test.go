package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/rejoin-io/rejoin/tests/integration/sioclient"
)

// each calls f for 0 to n-1, some of them concurrently, and reports the errors.
func each(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	const atOnce = 32
	var group sync.WaitGroup
	next := make(chan int)
	for range min(atOnce, n) {
		group.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// A listener is a client that records the events "n".
type listener struct {
	*sioclient.Client
	mu    sync.Mutex
	heard []int
	more  chan struct{}
}

// listen returns a listener that is not connected yet.
func listen(n *node) *listener {
	l := &listener{more: make(chan struct{}, 1)}
	l.Client = sioclient.New(sioclient.Options{URL: "ws://" + n.addr, OnEvent: l.hear})
	return l
}

func (l *listener) hear(e sioclient.Event) {
	var number int
	if e.Name != "n" || json.Unmarshal(e.Args[0], &number) != nil {
		return
	}
	l.mu.Lock()
	l.heard = append(l.heard, number)
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// all returns the recorded events, once they contain last.
func (l *listener) all(ctx context.Context, last int) ([]int, error) {
	for {
		l.mu.Lock()
		heard := slices.Clone(l.heard)
		l.mu.Unlock()
		if slices.Contains(heard, last) {
			return heard, nil
		}
		select {
		case <-l.more:
		case <-ctx.Done():
			return heard, fmt.Errorf("got only %v: %w", heard, ctx.Err())
		}
	}
}

// call asks the built-in application, which must say ok.
func call(ctx context.Context, c *sioclient.Client, event string, args ...any) (reply, error) {
	var r reply
	answer, err := c.Ask(ctx, event, args...)
	if err != nil {
		return r, err
	}
	if len(answer) != 1 {
		return r, fmt.Errorf("%s: answered with %s", event, answer)
	}
	if err := json.Unmarshal(answer[0], &r); err != nil {
		return r, err
	}
	if !r.OK {
		return r, fmt.Errorf("%s: %s: %s", event, r.Code, r.Message)
	}
	return r, nil
}

// numbers returns from, …, to-1.
func numbers(from, to int) []int {
	all := make([]int, 0, to-from)
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

// TestRecoveryOf500 cuts 500 clients in 100 rooms at the same time, publishes
// 20 events in each room, and reconnects all of them: as the same sockets, with
// every event once and in order.
func TestRecoveryOf500(t *testing.T) {
	const clients, rooms, missed = 500, 100, 20
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	n := startNode(t)
	publisher := listen(n)
	if err := publisher.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	defer publisher.Cut()
	publish := func(from, to int) func(int) error {
		return func(room int) error {
			for i := from; i < to; i++ {
				if _, err := call(ctx, publisher.Client, "to", fmt.Sprint("room ", room), "n", i); err != nil {
					return err
				}
			}
			return nil
		}
	}

	listeners := make([]*listener, clients)
	ids := make([]string, clients)
	defer func() {
		for _, l := range listeners {
			l.Cut()
		}
	}()
	for i := range listeners {
		listeners[i] = listen(n)
	}
	each(t, clients, func(i int) error {
		if err := listeners[i].Connect(ctx); err != nil {
			return err
		}
		ids[i] = listeners[i].ID()
		_, err := call(ctx, listeners[i].Client, "join", fmt.Sprint("room ", i%rooms))
		return err
	})
	// Some rooms have had an event before the cut, the others have not: their
	// members have no offset yet.
	each(t, rooms/2, publish(0, 1))
	each(t, clients, func(i int) error {
		if i%rooms >= rooms/2 {
			return nil
		}
		_, err := listeners[i].all(ctx, 0)
		return err
	})

	for _, l := range listeners {
		l.Cut()
	}
	each(t, rooms, publish(1, 1+missed))
	each(t, clients, func(i int) error { return listeners[i].Connect(ctx) })
	each(t, rooms, publish(1+missed, 2+missed))

	each(t, clients, func(i int) error {
		l := listeners[i]
		heard, err := l.all(ctx, 1+missed)
		if err != nil {
			return err
		}
		want := numbers(1, 2+missed)
		if i%rooms < rooms/2 {
			want = numbers(0, 2+missed)
		}
		if !slices.Equal(heard, want) {
			err = fmt.Errorf("got %v", heard)
		}
		if !l.Recovered() || l.ID() != ids[i] {
			err = errors.Join(err, errors.New("not recovered"))
		}
		return err
	})
	if got := sum(n.metrics(), "rejoin_recoveries_total", `outcome="recovered"`); got != clients {
		t.Errorf("the node counts %v recoveries", got)
	}
}

// TestRecoveryOf50Stock is the same with 50 stock clients.
func TestRecoveryOf50Stock(t *testing.T) {
	const clients, rooms, missed = 50, 10, 20
	n := startNode(t)
	r := startRelay(t, n)
	d := startDriver(t)
	publisher := d.open("publisher", newest, n.url(), transports["websocket"])
	sockets := make([]*npmSocket, clients)
	ids := make([]string, clients)
	for i := range sockets {
		sockets[i] = d.opening(fmt.Sprint("client ", i), newest, r.url(), transports["websocket"])
	}
	for i, s := range sockets {
		ids[i] = s.await("connect").ID
		s.call("join", fmt.Sprint("room ", i%rooms))
	}
	publish := func(from, to int) {
		for i := from; i < to; i++ {
			for room := range rooms {
				publisher.call("to", fmt.Sprint("room ", room), "n", i)
			}
		}
	}
	publish(0, 1)
	for _, s := range sockets {
		s.hears("n", "0")
	}
	r.down()
	publish(1, 1+missed)
	r.up()
	for i, s := range sockets {
		if now := s.await("connect"); !now.Recovered || now.ID != ids[i] {
			t.Errorf("client %d: not recovered: %+v", i, now)
		}
	}
	publish(1+missed, 2+missed)
	for _, s := range sockets {
		for i := 1; i < 2+missed; i++ {
			s.hears("n", fmt.Sprint(i))
		}
	}
}

// TestConnects: of 4,000 connects in a row, in make test 1,500, each with its CONNECT
// sent immediately, none hangs.
func TestConnects(t *testing.T) {
	connects := int(lasting(4000, 1500))
	n := startNode(t)
	each(t, connects, func(int) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c := sioclient.New(sioclient.Options{URL: "ws://" + n.addr})
		defer c.Cut()
		return c.Connect(ctx)
	})
	n.eventually("counting all connects", func() error { // it counts after it has answered
		if got := sum(n.metrics(), "rejoin_connects_total"); got != float64(connects) {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}
