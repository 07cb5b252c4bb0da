package socketio

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A slowAdapter can hold back the events of single partitions, as if the connections to the
// servers of a Redis Cluster had different speeds.
type slowAdapter struct {
	adapter.Adapter
	markers atomic.Int64 // published by the node
	emitted func()       // if not nil, called when an event has been published, before the node knows

	mu       sync.Mutex
	held     map[uint16]bool
	waiting  []adapter.Event
	progress *adapter.Progress
	cursor   adapter.Cursor
	changed  chan struct{}
	head     func(context.Context) (adapter.Cursor, error) // reads the clocks, unless it is nil
	// If unmarked is not nil markers fail. It gets a value before their rooms are unsubscribed,
	// and another one when the node continues.
	unmarked chan struct{}
	failed   bool // since the last Unsubscribe
}

// Head reads the clocks at one instant, unless setHead has set another way.
func (a *slowAdapter) Head(ctx context.Context, proof ...adapter.Cursor) (adapter.Cursor, error) {
	a.mu.Lock()
	head := a.head
	a.mu.Unlock()
	if head != nil {
		return head(ctx)
	}
	return a.Adapter.Head(ctx, proof...)
}

// setHead sets the way in which the clocks are read from here on; nil means at one instant.
func (a *slowAdapter) setHead(head func(context.Context) (adapter.Cursor, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.head = head
}

// fixHead sets the result of reading the clocks from here on.
func (a *slowAdapter) fixHead(at adapter.Cursor) {
	a.setHead(func(context.Context) (adapter.Cursor, error) { return at, nil })
}

// readAmid makes the second read of the clocks from here on happen during an action: after it in
// the late partitions, and before it in the others.
func (a *slowAdapter) readAmid(t *testing.T, happens func(), late ...uint16) {
	t.Helper()
	var reads atomic.Int64
	t.Cleanup(func() {
		if n := reads.Load(); n < 2 {
			t.Errorf("the clocks were read %d times, want at least 2", n)
		}
	})
	a.setHead(func(ctx context.Context) (adapter.Cursor, error) {
		early, err := a.Adapter.Head(ctx)
		if reads.Add(1) != 2 || err != nil {
			return early, err
		}
		happens()
		now, err := a.Adapter.Head(ctx)
		return mixed(early, now, late...), err
	})
}

// mixed returns a later cursor in the late partitions and an earlier one in the others.
func mixed(early, later adapter.Cursor, late ...uint16) adapter.Cursor {
	progress := adapter.NewProgress(early)
	for _, p := range late {
		early = progress.To(later.In(p))
	}
	return early
}

func (a *slowAdapter) Publish(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
	if e.Kind == kindMarker {
		a.markers.Add(1)
		a.mu.Lock()
		a.failed = a.unmarked != nil
		fails := a.failed
		a.mu.Unlock()
		if fails {
			return adapter.Receipt{}, adapter.ErrNotPublished
		}
	}
	r, err := a.Adapter.Publish(ctx, e)
	if e.Kind == kindEmit && a.emitted != nil {
		a.emitted()
	}
	return r, err
}

func (a *slowAdapter) Unsubscribe(list ...rooms.Room) {
	a.mu.Lock()
	failed := a.failed
	a.failed = false
	a.mu.Unlock()
	if failed {
		a.unmarked <- struct{}{}
		a.unmarked <- struct{}{}
	}
	a.Adapter.Unsubscribe(list...)
}

// hold holds partitions back, and release delivers their held events.
func (a *slowAdapter) hold(partitions ...uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range partitions {
		a.held[p] = true
	}
}

func (a *slowAdapter) release(partitions ...uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range partitions {
		delete(a.held, p)
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

// free takes the first waiting event of a partition that is not held.
func (a *slowAdapter) free() (ev adapter.Event, found bool, changed chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, ev := range a.waiting {
		if !a.held[ev.Position.Partition] {
			a.waiting = append(a.waiting[:i:i], a.waiting[i+1:]...)
			ev.Cursor = a.progress.To(ev.Position)
			a.cursor = ev.Cursor
			return ev, true, nil
		}
	}
	return ev, false, a.changed
}

func (a *slowAdapter) Next(ctx context.Context) (adapter.Event, error) {
	for {
		ev, found, changed := a.free()
		if found {
			return ev, nil
		}
		wait, cancel := context.WithCancel(ctx)
		go func() {
			select {
			case <-changed:
				cancel()
			case <-wait.Done():
			}
		}()
		ev, err := a.Adapter.Next(wait)
		interrupted := wait.Err() != nil && ctx.Err() == nil
		cancel()
		if err != nil && !interrupted {
			return ev, err
		}
		if err == nil {
			a.mu.Lock()
			a.waiting = append(a.waiting, ev)
			a.mu.Unlock()
		}
	}
}

// A slowCluster has nodes that receive partitions at different paces.
type slowCluster struct {
	memory   *adapter.Memory
	sessions session.Store
	homes    map[uint16][]string // names of rooms by partition
}

const slowPartitions = 4

func newSlowCluster(t *testing.T) *slowCluster {
	t.Helper()
	c := &slowCluster{
		memory:   adapter.NewMemory(adapter.MemoryOptions{Partitions: slowPartitions}),
		sessions: session.NewMemory(),
		homes:    make(map[uint16][]string),
	}
	a, err := c.memory.Node("probe")
	must(t, err)
	defer func() { _ = a.Close() }()
	for i := range 40 {
		name := fmt.Sprint("r", i)
		r, err := a.Publish(t.Context(), adapter.Event{Target: rooms.Target{To: []rooms.Room{rooms.InNamed("/", name)}}})
		must(t, err)
		p := r.Cursor.At.Partition
		c.homes[p] = append(c.homes[p], name)
	}
	return c
}

// room returns the n-th room of a partition.
func (c *slowCluster) room(partition uint16, n int) string { return c.homes[partition][n] }

func (c *slowCluster) node(t *testing.T, id adapter.NodeID, o Options) (*testNode, *slowAdapter) {
	t.Helper()
	inner, err := c.memory.Node(id)
	must(t, err)
	t.Cleanup(func() { _ = inner.Close() })
	head, err := inner.Head(t.Context())
	must(t, err)
	a := &slowAdapter{
		Adapter: inner, held: make(map[uint16]bool), progress: adapter.NewProgress(head), changed: make(chan struct{}),
	}
	o.Adapter, o.Sessions = a, c.sessions
	n := start(t, o)
	joining(n.Namespace)
	return n, a
}

// two runs two nodes.
func (c *slowCluster) two(t *testing.T) (n1, n2 *testNode, a1, a2 *slowAdapter) {
	t.Helper()
	n1, a1 = c.node(t, "aaaa", Options{})
	n2, a2 = c.node(t, "bbbb", Options{})
	return n1, n2, a1, a2
}

// member connects a new client and joins it to rooms.
func (n *testNode) member(t *testing.T, names ...string) *wire {
	t.Helper()
	w := n.client(t)
	for _, name := range names {
		w.call(`["join","` + name + `"]`)
	}
	return w
}

// recovered reconnects a client, which must be recovered.
func (n *testNode) recovered(t *testing.T, was *wire) *wire {
	t.Helper()
	w := n.back(t, was)
	if w.sid != was.sid {
		t.Fatalf("not recovered: %v", n.Stats().Recoveries)
	}
	return w
}
