package adapter

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/rejoin-io/rejoin/internal/queue"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A memoryNode is the Adapter of one node of a Memory.
type memoryNode struct {
	memory *Memory
	id     NodeID
	feed   *queue.Queue[fed]
	inbox  *queue.Queue[Message]
	done   chan struct{} // closed by Close

	// Guarded by memory.mu.
	subscriptions map[rooms.Room]int
	receives      uint64 // the last of memory.publishes that this node was a receiver in
	progress      func(Cursor)
}

// fed is an item of a node's feed: an event, a loss, or a progress report.
type fed struct {
	event    *Event
	lost     *LostError
	progress Cursor
}

// enter locks the memory, unless ctx has ended or the node has left. On success
// the caller unlocks.
func (n *memoryNode) enter(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	n.memory.mu.Lock()
	if n.memory.nodes[n.id] != n {
		n.memory.mu.Unlock()
		return ErrClosed
	}
	return nil
}

func (n *memoryNode) Node() NodeID { return n.id }

// CursorTTL implements [CursorExpirer]. Older cursors may be refused.
func (n *memoryNode) CursorTTL() time.Duration { return n.memory.ttl }

func (n *memoryNode) Nodes(ctx context.Context) ([]Member, error) {
	if err := n.enter(ctx); err != nil {
		return nil, err
	}
	defer n.memory.mu.Unlock()
	members := make([]Member, 0, len(n.memory.nodes)) // whose feeds are never interrupted
	for _, id := range slices.Sorted(maps.Keys(n.memory.nodes)) {
		members = append(members, Member{ID: id})
	}
	return members, nil
}

func (n *memoryNode) Publish(ctx context.Context, e Event) (Receipt, error) {
	if err := e.CheckSize(); err != nil {
		return Receipt{}, err
	}
	e.From, e.Earlier = n.id, nil
	for {
		receipt, space, err := n.tryPublish(ctx, &e)
		if space == nil {
			return receipt, err
		}
		select {
		case <-space:
		case <-n.done:
		case <-ctx.Done():
			return Receipt{}, fmt.Errorf("adapter: publish: a receiver's feed is full: %w", context.Cause(ctx))
		}
	}
}

func (n *memoryNode) tryPublish(ctx context.Context, e *Event) (Receipt, <-chan struct{}, error) {
	if err := n.enter(ctx); err != nil {
		return Receipt{}, nil, err
	}
	defer n.memory.mu.Unlock()
	if len(e.Target.To) == 0 {
		return Receipt{}, nil, nil
	}
	receipt, space := n.memory.publish(e)
	return receipt, space, nil
}

func (n *memoryNode) Subscribe(ctx context.Context, rooms ...rooms.Room) (Cursor, error) {
	if err := n.enter(ctx); err != nil {
		return Cursor{}, err
	}
	defer n.memory.mu.Unlock()
	for _, room := range rooms {
		n.memory.subscribe(n, room)
	}
	at := n.memory.head(0)
	if n.progress != nil && n.feed.Full() == nil { // otherwise an event follows
		n.feed.Put(fed{progress: at}, 0)
	}
	return at, nil
}

func (n *memoryNode) Unsubscribe(rooms ...rooms.Room) {
	if n.enter(context.Background()) != nil {
		return
	}
	defer n.memory.mu.Unlock()
	for _, room := range rooms {
		n.memory.unsubscribe(n, room)
	}
}

// OnProgress implements [ProgressReporter].
func (n *memoryNode) OnProgress(f func(Cursor)) {
	n.memory.mu.Lock()
	defer n.memory.mu.Unlock()
	n.progress = f
}

func (n *memoryNode) Next(ctx context.Context) (Event, error) {
	for {
		f, err := take(ctx, n, n.feed)
		switch {
		case err != nil:
			return Event{}, err
		case f.lost != nil:
			return Event{}, f.lost
		case f.event == nil:
			n.progress(f.progress)
			continue
		}
		return *f.event, nil // events published before it, in any partition, precede it in the feed
	}
}

func (n *memoryNode) Head(ctx context.Context, seen ...Cursor) (Cursor, error) {
	if err := n.enter(ctx); err != nil {
		return Cursor{}, err
	}
	defer n.memory.mu.Unlock()
	for _, c := range seen {
		if c.IsZero() {
			continue // it has seen no event that could be lost
		}
		if err := n.memory.check(c); err != nil {
			return Cursor{}, err
		}
	}
	return n.memory.head(0), nil
}

func (n *memoryNode) Replay(ctx context.Context, after map[rooms.Room]Cursor, upTo Cursor, payload int) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		missed, from, err := n.missed(ctx, after, upTo)
		if err != nil {
			yield(Event{}, fmt.Errorf("adapter: replay: %w", err))
			return
		}
		progress, held := NewProgress(from), 0
		for shared := range Merge(missed) {
			e := *shared
			e.Cursor, e.copies = progress.To(e.Position), 0
			if size := e.payload(); payload > 0 && held+size > payload {
				e.Data, e.Attachments, e.Omitted = nil, nil, uint32(size)
			} else {
				held += size
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// missed returns the events of a replay, room by room, and where it begins: in each partition where
// the first of its rooms begins, or at the end if it has none.
func (n *memoryNode) missed(ctx context.Context, after map[rooms.Room]Cursor, upTo Cursor) (missed [][]*Event, from Cursor, err error) {
	if err := n.enter(ctx); err != nil {
		return nil, from, err
	}
	m := n.memory
	defer m.mu.Unlock()
	if err := m.check(upTo); err != nil {
		return nil, from, err
	}
	m.backlogs.sweep(time.Now())
	begin := make([]Position, len(m.newest))
	for i := range begin {
		begin[i] = upTo.In(uint16(i))
	}
	for room, c := range after {
		if err := m.check(c); err != nil {
			return nil, from, err
		}
		at := m.home(room)
		events, err := m.backlogs.between(room, c.In(at), upTo.In(at))
		if err != nil {
			return nil, from, err
		}
		missed = append(missed, events)
		if c.In(at).Compare(begin[at]) < 0 {
			begin[at] = c.In(at)
		}
	}
	return missed, NewCursor(m.epoch, upTo.At.Partition, begin), nil
}

func (n *memoryNode) Fetch(ctx context.Context, history Cursor, places []Place) ([]Event, error) {
	if err := n.enter(ctx); err != nil {
		return nil, fmt.Errorf("adapter: fetch: %w", err)
	}
	m := n.memory
	defer m.mu.Unlock()
	if err := m.check(history); err != nil {
		return nil, fmt.Errorf("adapter: fetch: %w", err)
	}
	events := make([]Event, len(places))
	for i, p := range places {
		kept, _ := m.backlogs.kept(p.Room, p.At.Partition)
		at, found := slices.BinarySearchFunc(kept, p.At, compareToPosition)
		if !found {
			return nil, fmt.Errorf("adapter: fetch: %w: room %q has lost an event", ErrTrimmed, p.Room.Name)
		}
		events[i] = *kept[at]
		events[i].copies = 0
	}
	return events, nil
}

func (n *memoryNode) History(ctx context.Context, room rooms.Room, page Page) ([]Event, bool, error) {
	kept, more, err := n.history(ctx, room, page)
	if err != nil {
		return nil, false, fmt.Errorf("adapter: history: %w", err)
	}
	events := make([]Event, len(kept))
	for i, e := range kept {
		events[i] = *e
		events[i].Cursor, events[i].copies = n.memory.only(e.Cursor.Epoch, e.Position), 0
	}
	return events, more, nil
}

func (n *memoryNode) history(ctx context.Context, room rooms.Room, page Page) ([]*Event, bool, error) {
	if err := n.enter(ctx); err != nil {
		return nil, false, err
	}
	defer n.memory.mu.Unlock()
	at := n.memory.home(room)
	end := Position{Ms: math.MaxUint64, Partition: at}
	if !page.Before.IsZero() {
		if err := n.memory.check(page.Before); err != nil {
			return nil, false, err
		}
		end = page.Before.In(at)
	}
	n.memory.backlogs.sweep(time.Now())
	events, more := n.memory.backlogs.before(room, end, page)
	return events, more, nil
}

func (n *memoryNode) Send(ctx context.Context, to NodeID, m Message) error {
	if err := n.enter(ctx); err != nil {
		return err
	}
	defer n.memory.mu.Unlock()
	receiver := n.memory.nodes[to]
	if receiver == nil {
		return fmt.Errorf("%w: %q", ErrNoNode, to)
	}
	if receiver.inbox.Full() != nil {
		return fmt.Errorf("%w: too many messages wait for node %q", ErrUnavailable, to)
	}
	m.From = n.id
	receiver.inbox.Put(m, len(m.Data))
	return nil
}

func (n *memoryNode) Receive(ctx context.Context) (Message, error) {
	return take(ctx, n, n.inbox)
}

func (n *memoryNode) Close() error {
	n.memory.mu.Lock()
	defer n.memory.mu.Unlock()
	if n.memory.remove(n) {
		close(n.done)
		n.feed.Discard() // wakes publishers that wait for it
	}
	return nil
}

// take returns the next item of one of n's queues.
func take[T any](ctx context.Context, n *memoryNode, q *queue.Queue[T]) (T, error) {
	v, err := q.Take(ctx, n.done)
	if errors.Is(err, queue.ErrDone) {
		err = ErrClosed
	}
	return v, err
}
