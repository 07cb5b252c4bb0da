package adapter

import (
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/internal/queue"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// What may wait for one node of a Memory. The last item may exceed the bytes.
const (
	feedItems  = 16384
	feedBytes  = 64 << 20
	inboxItems = 1024
	inboxBytes = 16 << 20
)

// MemoryOptions configure a [Memory]. Zero fields mean the defaults.
type MemoryOptions struct {
	// BacklogLimit is how many of a room's newest events can be replayed: 1000 by
	// default, none if negative. Up to twice as many are kept. Without any, sockets
	// that a command joins to a room may miss what is published right after it,
	// and are cut if they do.
	BacklogLimit int

	// BacklogTTL is how long a room may be silent before its backlog is dropped,
	// one hour by default. The room is forgotten with it, and a later Replay finds
	// nothing missing there. So the time must be longer than any cursor waits to
	// be used: longer than sessions outlive their connections.
	BacklogTTL time.Duration

	// BacklogBytes bounds the memory of all backlogs, 256 MiB by default. Beyond
	// it the rooms that were silent for the longest time lose theirs. That is not
	// forgotten: a Replay that might need one of them says ErrTrimmed.
	BacklogBytes int
}

// A Memory is a cluster within one process: the part that its nodes share. It
// has no goroutines and needs no Close.
//
// Nothing is lost on the way to a node. Where up to 16,384 events or 64 MiB wait
// for a node that does not call Next, Publish to a room that it subscribed to
// waits for it, as long as its context allows, and so publishes at the pace of
// the slowest. A goroutine that calls Next should therefore not publish.
type Memory struct {
	mu     sync.Mutex
	epoch  string
	newest Position // of the clock

	nodes       map[NodeID]*memoryNode
	subscribers map[rooms.Room][]*memoryNode // each node once, no empty lists
	backlogs    *backlogs

	newBacklogs func() *backlogs // set once

	receivers []*memoryNode // of the event being published; kept for its space
	publishes uint64        // how often receivers was filled
}

// NewMemory returns a cluster without nodes.
func NewMemory(o MemoryOptions) *Memory {
	limit := o.BacklogLimit
	switch {
	case limit == 0:
		limit = 1000
	case limit < 0:
		limit = 0
	}
	m := &Memory{
		epoch:       newEpoch(),
		nodes:       make(map[NodeID]*memoryNode),
		subscribers: make(map[rooms.Room][]*memoryNode),
		newBacklogs: func() *backlogs {
			return &backlogs{
				limit:    limit,
				ttl:      orDefault(o.BacklogTTL, time.Hour),
				maxBytes: orDefault(o.BacklogBytes, 256<<20),
				byRoom:   make(map[rooms.Room]*backlog),
			}
		},
	}
	m.backlogs = m.newBacklogs()
	m.tick(time.Now())
	return m
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// newEpoch returns eight random letters and digits.
func newEpoch() string { return rand.Text()[:8] }

// Node joins the cluster as one node. It is an error if the id is taken, until
// the adapter that took it is closed.
func (m *Memory) Node(id NodeID) (Adapter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.nodes[id] != nil {
		return nil, fmt.Errorf("adapter: node %q is in the cluster already", id)
	}
	n := &memoryNode{
		memory:        m,
		id:            id,
		feed:          queue.New[fed](feedItems, feedBytes),
		inbox:         queue.New[Message](inboxItems, inboxBytes),
		done:          make(chan struct{}),
		subscriptions: make(map[rooms.Room]int),
	}
	m.nodes[id] = n
	m.subscribe(n, rooms.InNodes())
	return n, nil
}

// Reset starts a new history, as if a store had lost everything: the epoch
// changes, the backlogs are empty, what waits for a node is gone, and every
// node's Next returns a *LostError.
func (m *Memory) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch = newEpoch()
	m.backlogs = m.newBacklogs()
	m.tick(time.Now())
	for _, n := range m.nodes {
		n.feed.Discard()
		n.feed.Put(fed{lost: &LostError{Reason: "the history was reset"}}, 0)
	}
}

// What follows is called with m.mu held.

// tick issues the next position. It follows the wall clock, except backwards.
func (m *Memory) tick(now time.Time) Position {
	if ms := uint64(now.UnixMilli()); ms > m.newest.Ms {
		m.newest = Position{Ms: ms}
	} else {
		m.newest.Seq++
	}
	return m.newest
}

// head returns the cursor that has seen everything.
func (m *Memory) head() Cursor { return Cursor{Epoch: m.epoch, At: m.newest} }

// check returns an error if c is proved not to belong to the current history.
func (m *Memory) check(c Cursor) error {
	switch {
	case c.Epoch != m.epoch:
		return fmt.Errorf("%w: cursor %s is not of the history %s", ErrHistoryLost, c, m.epoch)
	case !m.head().Covers(c.At):
		return fmt.Errorf("%w: cursor %s is ahead of %s", ErrHistoryLost, c, m.head())
	}
	return nil
}

// publish decides e's place, stores it and hands it out. If a receiver's feed is
// full it does nothing of that, and returns a channel that is closed when it is
// worth another try.
func (m *Memory) publish(e *Event) (Receipt, <-chan struct{}) {
	m.receivers = m.receivers[:0]
	m.publishes++
	for _, room := range e.Target.To {
		for _, n := range m.subscribers[room] {
			if n.receives == m.publishes {
				continue
			}
			n.receives = m.publishes
			if space := n.feed.Full(); space != nil {
				return Receipt{}, space
			}
			m.receivers = append(m.receivers, n)
		}
	}
	now := time.Now()
	m.backlogs.sweep(now)
	e.Position = m.tick(now)
	e.Cursor = m.head()
	if e.Stored {
		for _, room := range e.Target.To {
			m.backlogs.add(room, e, now)
		}
	}
	size := e.size()
	for _, n := range m.receivers {
		n.feed.Put(fed{event: e}, size)
	}
	return Receipt{Cursor: e.Cursor, Receivers: len(m.receivers)}, nil
}

func (m *Memory) subscribe(n *memoryNode, room rooms.Room) {
	n.subscriptions[room]++
	if n.subscriptions[room] == 1 {
		m.subscribers[room] = append(m.subscribers[room], n)
	}
}

func (m *Memory) unsubscribe(n *memoryNode, room rooms.Room) {
	switch n.subscriptions[room] {
	case 0:
	case 1:
		m.silence(n, room)
		delete(n.subscriptions, room)
	default:
		n.subscriptions[room]--
	}
}

// silence makes n hear a room no more.
func (m *Memory) silence(n *memoryNode, room rooms.Room) {
	all := m.subscribers[room]
	i := slices.Index(all, n)
	if all = slices.Delete(all, i, i+1); len(all) == 0 {
		delete(m.subscribers, room)
	} else {
		m.subscribers[room] = all
	}
}

// remove takes n out of the cluster, and reports whether it was in it.
func (m *Memory) remove(n *memoryNode) bool {
	if m.nodes[n.id] != n {
		return false
	}
	delete(m.nodes, n.id)
	for room := range n.subscriptions {
		m.silence(n, room)
	}
	return true
}
