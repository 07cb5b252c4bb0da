package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestOrder: any two clients get the events that both get in the same order,
// whichever nodes publish them.
func TestOrder(t *testing.T) {
	t.Parallel()
	t.Run("one node", func(t *testing.T) {
		testOrder(t, []*node{startNode(t)}, 6, 3, 250)
	})
	t.Run("cluster", func(t *testing.T) {
		var nodes []*node
		for _, n := range startCluster(t, 4).nodes {
			nodes = append(nodes, n.node)
		}
		testOrder(t, nodes, 40, 20, 100)
	})
}

// testOrder has 4 publishers on each node, which send this many events each.
func testOrder(t *testing.T, nodes []*node, clients, rooms, events int) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	// Each client is in two thirds of the rooms, so that any two share some.
	names := make([]string, rooms)
	for i := range names {
		names[i] = fmt.Sprint("room ", i)
	}
	members := make([]*listener, clients)
	for i := range members {
		members[i] = listen(nodes[i%len(nodes)])
		defer members[i].Cut()
	}
	each(t, clients, func(i int) error {
		if err := members[i].Connect(ctx); err != nil {
			return err
		}
		var some []string
		for room, name := range names {
			if (i+room)%3 > 0 {
				some = append(some, name)
			}
		}
		_, err := call(ctx, members[i].Client, "join", some)
		return err
	})
	publishers := 4 * len(nodes)
	var sending sync.WaitGroup
	for p := range publishers {
		l := listen(nodes[p%len(nodes)])
		if err := l.Connect(ctx); err != nil {
			t.Fatal(err)
		}
		defer l.Cut()
		sending.Go(func() {
			for i := range events {
				to := names[rand.N(rooms):] // many rooms
				if i%10 > 0 {
					to = to[:1]
				}
				if _, err := call(ctx, l.Client, "to", to, "n", p*events+i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	sending.Wait()
	last := publishers * events
	if _, err := call(ctx, members[0].Client, "all", "n", last); err != nil {
		t.Fatal(err)
	}
	heard := make([][]int, clients)
	each(t, clients, func(i int) (err error) {
		heard[i], err = members[i].all(ctx, last)
		return err
	})
	for i := range heard {
		if len(heard[i]) < events {
			t.Errorf("client %d got only %d events", i, len(heard[i]))
		}
		for j := range i {
			if a, b := common(heard[i], heard[j]), common(heard[j], heard[i]); !slices.Equal(a, b) {
				t.Errorf("clients %d and %d got different orders:\n%v\n%v", i, j, a, b)
			}
		}
	}
}

// common returns the events of a that are in b too.
func common(a, b []int) []int {
	in := map[int]bool{}
	for _, n := range b {
		in[n] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(n int) bool { return !in[n] })
}

// TestContinuityOnOneNode is TestContinuity with one node without Redis: numbers for
// some seconds while the clients are cut at random, and each client must have
// each number once and in order. Nothing here is a reason to refuse a recovery,
// so none may be refused.
func TestContinuityOnOneNode(t *testing.T) {
	t.Parallel()
	const clients, duration = 12, 5 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), duration+2*patience)
	defer cancel()
	n := startNode(t, "REJOIN_SESSION_RECOVERIES=100000")
	publisher := listen(n)
	if err := publisher.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	defer publisher.Cut()
	members := make([]*listener, clients)
	for i := range members {
		members[i] = listen(n)
		if err := members[i].Connect(ctx); err != nil {
			t.Fatal(err)
		}
		defer members[i].Cut()
		if _, err := call(ctx, members[i].Client, "join", "room"); err != nil {
			t.Fatal(err)
		}
	}
	over := time.After(duration)
	published := make(chan int, 1)
	go func() { // ends with the duration
		for i := 0; ; i++ {
			select {
			case <-over:
				published <- i
				close(published)
				return
			default:
			}
			if _, err := call(ctx, publisher.Client, "to", "room", "n", i); err != nil {
				t.Errorf("publishing %d: %v", i, err)
				published <- i
				close(published)
				return
			}
		}
	}()
	cuts := make([]int, clients)
	var cutting sync.WaitGroup
	stop := make(chan struct{})
	for i, m := range members {
		cutting.Go(func() {
			id := m.ID()
			for {
				select {
				case <-stop:
					return
				case <-time.After(rand.N(100 * time.Millisecond)): // how long a connection lives
				}
				m.Cut()
				cuts[i]++
				if err := m.Connect(ctx); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				if !m.Recovered() || m.ID() != id {
					t.Errorf("client %d: cut %d was not recovered", i, cuts[i])
					return
				}
			}
		})
	}
	last := <-published
	close(stop)
	cutting.Wait()
	if t.Failed() {
		return
	}
	if _, err := call(ctx, publisher.Client, "to", "room", "n", last); err != nil {
		t.Fatal(err)
	}
	each(t, clients, func(i int) error {
		heard, err := members[i].all(ctx, last)
		if err != nil {
			return err
		}
		for at, number := range heard {
			if number != at {
				return fmt.Errorf("after %d cuts: got %v around position %d, of %d", cuts[i], heard[max(0, at-3):min(len(heard), at+4)], at, last)
			}
		}
		return nil
	})
	t.Logf("%d numbers, cuts %v", last, cuts)
}
