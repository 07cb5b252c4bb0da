package adapter

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rejoin-io/rejoin/internal/queue"
)

// A memoryNode is the Adapter of one node of a Memory.
type memoryNode struct {
	*Partitions
	memory *Memory
	id     NodeID
	parts  []*memoryPartition // by number, never changed
	feed   *queue.Queue[Item]
	inbox  *queue.Queue[Message]
	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
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

// CursorTTL implements [CursorExpirer]. Older cursors may be refused.
func (n *memoryNode) CursorTTL() time.Duration { return n.memory.logs[0].backlogs.ttl }

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
	return n.inbox.Take(ctx, n.ctx)
}

func (n *memoryNode) Close() error {
	n.memory.mu.Lock()
	defer n.memory.mu.Unlock()
	if n.memory.nodes[n.id] != n {
		return nil
	}
	delete(n.memory.nodes, n.id)
	for _, p := range n.parts {
		for room := range p.subscriptions {
			p.log.silence(p, room)
		}
	}
	n.cancel(ErrClosed)
	n.feed.Discard() // wakes publishers that wait for it
	return nil
}

// report adds to the feed the position that it has reached in each partition. All that the partition has
// published for the node is in the feed. memory.mu is held.
func (n *memoryNode) report() {
	for _, p := range n.parts {
		if newest := p.log.newest; p.passed != newest {
			p.passed = newest
			n.feed.Put(Item{At: newest}, 0)
		}
	}
}
