package adapter

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/internal/queue"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Limits of the queues of one node of a Memory. The last item may exceed the bytes.
const (
	feedItems  = 16384
	feedBytes  = 64 << 20
	inboxItems = 1024
	inboxBytes = 16 << 20
)

// MemoryOptions configure a [Memory]. Zero fields mean the defaults.
type MemoryOptions struct {
	// BacklogLimit is the number of a room's newest events that can be replayed: 1000 by default,
	// none if negative. Up to twice as many are kept. Without backlogs, sockets that a command
	// joins to a room may miss events published right after the command, and are cut if they do.
	BacklogLimit int

	// BacklogTTL is how long a room may be silent before its backlog is dropped: one hour by
	// default. A later Replay that might need one of its events returns ErrTrimmed. So the TTL should
	// exceed the age of any cursor in use: it should be longer than sessions outlive their
	// connections.
	BacklogTTL time.Duration

	// BacklogBytes bounds the memory of all backlogs, including Go's overhead for them: a quarter
	// of the runtime's memory limit (GOMEMLIMIT) by default, or 256 MiB if that is not set. Beyond
	// it rooms lose their backlogs: first those without subscribers for BacklogTTL, and within each
	// group the ones that were silent for the longest time. A Replay that might need a dropped
	// backlog returns ErrTrimmed.
	BacklogBytes int

	// Partitions is the number of orders that the rooms are spread over: 1 by default, at most
	// [MaxPartitions]. Use one: several are for tests of programs that run on a Redis Cluster,
	// whose servers share them. Each may use an equal share of BacklogBytes.
	Partitions int
}

// A Memory is a cluster within one process: the part that its nodes share. Its methods are safe for
// concurrent use. It has no goroutines and needs no Close.
//
// No event is lost in flight to a node. While 16,384 events or 64 MiB are queued for a node that
// does not call Next, Publish to one of its rooms waits for the node, as long as its context
// allows. So publishers run at the pace of the slowest node. A goroutine that calls Next should
// therefore not publish.
type Memory struct {
	mu    sync.Mutex
	logs  []*memoryLog
	nodes map[NodeID]*memoryNode
}

// NewMemory returns a cluster without nodes.
func NewMemory(o MemoryOptions) *Memory {
	limit := max(cmp.Or(o.BacklogLimit, 1000), 0)
	partitions := min(max(o.Partitions, 1), MaxPartitions)
	maxBytes := cmp.Or(o.BacklogBytes, defaultBacklogBytes())
	m := &Memory{nodes: make(map[NodeID]*memoryNode)}
	for i := range partitions {
		l := &memoryLog{
			newest:      Position{Partition: uint16(i)},
			subscribers: make(map[rooms.Room][]*memoryPartition),
			backlogs:    backlogs{limit: limit, ttl: cmp.Or(o.BacklogTTL, time.Hour), maxBytes: maxBytes / partitions},
		}
		l.backlogs.awaited = l.awaited
		l.begin()
		m.logs = append(m.logs, l)
	}
	return m
}

// defaultBacklogBytes returns a part of the memory that the process may use. A larger part would
// keep the garbage collector busy with events that are not read.
func defaultBacklogBytes() int {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 { // a negative value only queries
		return int(limit / 4)
	}
	return 256 << 20
}

// MemoryStats are numbers of a [Memory].
type MemoryStats struct {
	BacklogBytes    int    // current memory of the backlogs
	BacklogLimit    int    // its limit
	BacklogsDropped uint64 // rooms whose backlog was dropped because of that limit
}

// Stats returns the memory's numbers. It is safe for concurrent use.
func (m *Memory) Stats() MemoryStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	var s MemoryStats
	for _, l := range m.logs {
		s.BacklogBytes += l.backlogs.bytes
		s.BacklogLimit += l.backlogs.maxBytes
		s.BacklogsDropped += l.backlogs.dropped
	}
	return s
}

// Node joins the cluster as one node. It returns an error if the id is in use, until the adapter
// that uses it is closed.
func (m *Memory) Node(id NodeID) (Adapter, error) {
	n := &memoryNode{
		memory: m,
		id:     id,
		feed:   queue.New[Item](feedItems, feedBytes),
		inbox:  queue.New[Message](inboxItems, inboxBytes),
	}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	if err := m.join(n); err != nil {
		return nil, err
	}
	c := Composition{
		Node: id,
		Key:  memoryKey,
		Next: func(ctx context.Context) (Item, error) { return n.feed.Take(ctx, n.ctx) },
	}
	for _, p := range n.parts {
		c.Partitions = append(c.Partitions, p)
	}
	var err error
	if n.Partitions, err = Compose(context.Background(), c); err != nil {
		return nil, err
	}
	return n, nil
}

// memoryKey is the Key of a Composition.
func memoryKey(r rooms.Room) string { return fmt.Sprint(r.Kind, r.Namespace, ",", r.Name) }

// join makes n a member that receives what is for all nodes.
func (m *Memory) join(n *memoryNode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.nodes[n.id] != nil {
		return fmt.Errorf("adapter: node ID %q already in use", n.id)
	}
	m.nodes[n.id] = n
	for _, l := range m.logs {
		n.parts = append(n.parts, &memoryPartition{node: n, log: l, subscriptions: make(map[rooms.Room]int), passed: l.newest})
	}
	n.parts[Home(memoryKey(rooms.InNodes()), len(n.parts))].subscribe(rooms.InNodes())
	return nil
}

// Reset starts a new history, as if a store had lost everything: the epoch changes, the backlogs
// are empty, nodes' queues are dropped, and every node's Next returns a *LostError, one for each
// partition.
func (m *Memory) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.logs {
		l.begin()
	}
	for _, n := range m.nodes {
		n.feed.Discard()
		for _, p := range n.parts {
			p.passed = p.log.newest
			n.feed.Put(Item{Lost: &LostError{Reason: "the history was reset"}, Epoch: p.log.epoch, At: p.passed}, 0)
		}
	}
}
