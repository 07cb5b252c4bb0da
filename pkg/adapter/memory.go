package adapter

import (
	"crypto/rand"
	"fmt"
	"hash/fnv"
	"math"
	"runtime/debug"
	"slices"
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

	// BacklogTTL is how long a room may be silent before its backlog is dropped, one hour by
	// default. The room is forgotten with it, and a later Replay does not notice that its events
	// are missing. So the TTL must exceed the age of any cursor in use: it must be longer than
	// sessions outlive their connections.
	BacklogTTL time.Duration

	// BacklogBytes bounds the memory of all backlogs, including Go's overhead for them: a quarter
	// of the runtime's memory limit (GOMEMLIMIT) by default, or 256 MiB if that is not set. Beyond
	// it rooms lose their backlogs: first those without subscribers for BacklogTTL, and within each
	// group the ones that were silent for the longest time. A Replay that might need a dropped
	// backlog returns ErrTrimmed.
	BacklogBytes int

	// Partitions is the number of orders that the rooms are spread over, 1 by default and at most
	// [MaxPartitions]. Use one: several are for tests of programs that run on a Redis Cluster,
	// whose servers share them.
	Partitions int
}

// A Memory is a cluster within one process: the part that its nodes share. It
// has no goroutines and needs no Close.
//
// No event is lost in flight to a node. While 16,384 events or 64 MiB are queued for a node that
// does not call Next, Publish to one of its rooms waits for the node, as long as its context
// allows. So publishers run at the pace of the slowest node. A goroutine that calls Next should
// therefore not publish.
type Memory struct {
	mu     sync.Mutex
	epoch  string
	newest []Position // of the clock of each partition

	nodes       map[NodeID]*memoryNode
	subscribers map[rooms.Room][]*memoryNode // each node once, no empty lists
	left        []int64                      // by bucket of rooms, when one lost its last subscriber, in Unix time; nil if none has
	backlogs    *backlogs
	dropped     uint64 // backlogs of earlier histories dropped because of the memory limit

	newBacklogs func() *backlogs // set once
	ttl         time.Duration    // of a silent backlog; longer than any client stays disconnected

	receivers []*memoryNode // of the event being published; kept to reuse its memory
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
	partitions := min(max(o.Partitions, 1), MaxPartitions)
	maxBytes := orDefault(o.BacklogBytes, defaultBacklogBytes())
	ttl := orDefault(o.BacklogTTL, time.Hour)
	m := &Memory{
		ttl:         ttl,
		newest:      newPositions(partitions),
		nodes:       make(map[NodeID]*memoryNode),
		subscribers: make(map[rooms.Room][]*memoryNode),
	}
	m.newBacklogs = func() *backlogs {
		return &backlogs{
			limit:     limit,
			ttl:       ttl,
			maxBytes:  maxBytes,
			awaited:   m.awaited,
			byRoom:    make(map[rooms.Room]*backlog),
			shares:    make(map[Position]*share),
			forgotten: make([][]Position, partitions),
		}
	}
	m.begin()
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
	b := m.backlogs
	return MemoryStats{BacklogBytes: b.bytes, BacklogLimit: b.maxBytes, BacklogsDropped: m.dropped + b.dropped}
}

// newPositions returns a position in each partition, before all events.
func newPositions(partitions int) []Position {
	list := make([]Position, partitions)
	for i := range list {
		list[i].Partition = uint16(i)
	}
	return list
}

// begin begins a history.
func (m *Memory) begin() {
	m.epoch = newEpoch()
	if m.backlogs != nil {
		m.dropped += m.backlogs.dropped
	}
	m.backlogs = m.newBacklogs()
	now := time.Now()
	for i := range m.newest {
		m.tick(uint16(i), now)
	}
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

// Node joins the cluster as one node. It returns an error if the id is in use, until the adapter
// that uses it is closed.
func (m *Memory) Node(id NodeID) (Adapter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.nodes[id] != nil {
		return nil, fmt.Errorf("adapter: node ID %q already in use", id)
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

// Reset starts a new history, as if a store had lost everything: the epoch changes, the backlogs
// are empty, nodes' queues are dropped, and every node's Next returns a *LostError.
func (m *Memory) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begin()
	for _, n := range m.nodes {
		n.feed.Discard()
		n.feed.Put(fed{lost: &LostError{Reason: "the history was reset", Cursor: m.head(0)}}, 0)
	}
}

// m.mu is held in all of the following.

// tick issues the next position of a partition. Positions follow the wall clock, but never go
// back.
func (m *Memory) tick(partition uint16, now time.Time) Position {
	newest := &m.newest[partition]
	if ms := uint64(now.UnixMilli()); ms > newest.Ms {
		newest.Ms, newest.Seq = ms, 0
	} else {
		newest.Seq++
	}
	return *newest
}

// head returns the cursor that covers everything. Its At is that of a partition.
func (m *Memory) head(at uint16) Cursor { return NewCursor(m.epoch, at, m.newest) }

// only returns the cursor that covers one partition up to a position, and nothing of the others.
func (m *Memory) only(epoch string, at Position) Cursor {
	positions := newPositions(len(m.newest))
	positions[at.Partition] = at
	return NewCursor(epoch, at.Partition, positions)
}

// home returns the partition of a room.
func (m *Memory) home(r rooms.Room) uint16 {
	if len(m.newest) == 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = fmt.Fprint(h, r.Kind, r.Namespace, ",", r.Name)
	return uint16(h.Sum32() % uint32(len(m.newest)))
}

// check returns an error if c is proved not to belong to the current history.
func (m *Memory) check(c Cursor) error {
	switch head := m.head(c.At.Partition % uint16(len(m.newest))); {
	case !c.SameHistory(head):
		return fmt.Errorf("%w: cursor %s is not of the history %s", ErrHistoryLost, c, m.epoch)
	case !head.Includes(c):
		return fmt.Errorf("%w: cursor %s is ahead of %s", ErrHistoryLost, c, head)
	}
	return nil
}

// publish gives e its position, stores it and delivers it: in each partition of its rooms, in
// ascending order, one copy. If a receiver's feed is full, publish does none of that and
// returns a channel that is closed when a retry may succeed.
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
	newRooms := m.newRooms(e)
	if len(e.Target.To) == 1 {
		m.place(e, now)
		return Receipt{Cursor: e.Cursor, Receivers: len(m.receivers), NewRooms: newRooms}, nil
	}
	var earlier []Copy
	var last *Event
	for _, part := range m.split(e.Target.To) {
		c := *e
		last = &c
		last.Target.To, last.Earlier = part, slices.Clip(earlier)
		m.place(last, now)
		earlier = append(last.Earlier, Copy{At: last.Position, To: part})
	}
	receipt := Receipt{Cursor: last.Cursor, Receivers: len(m.receivers), NewRooms: newRooms}
	if len(earlier) > 1 {
		receipt.Copies = earlier
	}
	return receipt, nil
}

// newRooms returns how many rooms of an event have no subscriber, and no backlog yet.
func (m *Memory) newRooms(e *Event) (n int) {
	if !e.Stored {
		return 0
	}
	for _, room := range e.Target.To {
		if len(m.subscribers[room]) == 0 && m.backlogs.byRoom[room] == nil {
			n++
		}
	}
	return n
}

// split returns rooms by partition, each room once.
func (m *Memory) split(list []rooms.Room) [][]rooms.Room {
	parts := make([][]rooms.Room, len(m.newest))
	seen := make(map[rooms.Room]struct{}, len(list))
	for _, r := range list {
		if _, ok := seen[r]; !ok {
			seen[r] = struct{}{}
			parts[m.home(r)] = append(parts[m.home(r)], r)
		}
	}
	return slices.DeleteFunc(parts, func(part []rooms.Room) bool { return len(part) == 0 })
}

// place gives e, whose rooms are in one partition, its position there, stores it, and delivers it
// to the receivers. Each backlog and each receiver gets the copy for its own rooms.
func (m *Memory) place(e *Event, now time.Time) {
	at := m.home(e.Target.To[0])
	e.Position = m.tick(at, now)
	e.Cursor = m.head(at)
	if len(e.Target.To) == 1 {
		if e.Stored {
			m.backlogs.add(e.Target.To[0], e, now)
		}
		for _, n := range m.subscribers[e.Target.To[0]] {
			n.feed.Put(fed{event: e}, e.size())
		}
		return
	}
	if e.Stored {
		for i, room := range e.Target.To {
			one := *e
			one.Target.To, one.copies = e.Target.To[i:i+1:i+1], uint32(len(e.Target.To)) // of at most MaxRooms
			m.backlogs.add(room, &one, now)
		}
	}
	heard := make(map[*memoryNode]*Event, len(m.receivers))
	for _, room := range e.Target.To {
		for _, n := range m.subscribers[room] {
			if heard[n] == nil {
				its := *e
				its.Target.To = nil
				heard[n] = &its
			}
			heard[n].Target.To = append(heard[n].Target.To, room)
		}
	}
	for n, its := range heard {
		n.feed.Put(fed{event: its}, its.size())
	}
}

func (m *Memory) subscribe(n *memoryNode, room rooms.Room) {
	n.subscriptions[room]++
	if n.subscriptions[room] == 1 {
		m.subscribers[room] = append(m.subscribers[room], n)
		m.backlogs.await(room)
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

// awaited reports whether a room has subscribers, or recently had some whose members may need its
// events when they reconnect.
func (m *Memory) awaited(room rooms.Room) bool {
	return len(m.subscribers[room]) > 0 || m.left != nil && time.Since(time.Unix(m.left[bucket(room)], 0)) <= m.ttl+time.Second
}

// silence unsubscribes n from a room.
func (m *Memory) silence(n *memoryNode, room rooms.Room) {
	all := m.subscribers[room]
	i := slices.Index(all, n)
	if all = slices.Delete(all, i, i+1); len(all) == 0 {
		delete(m.subscribers, room)
		if m.left == nil {
			m.left = make([]int64, buckets)
		}
		m.left[bucket(room)] = time.Now().Unix()
	} else {
		m.subscribers[room] = all
	}
}

// remove removes n from the cluster, and reports whether it was a member.
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
