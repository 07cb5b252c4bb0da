// Package redis connects the nodes of a cluster through Redis: its Streams keep the order of events
// and every room's backlog, its pub/sub distributes events, and one script does both in one step.
// The package implements the contract of package adapter, and the protocol between nodes; names.go
// and wire.go document the stored data.
//
// A node that loses its connection reads the events that it missed and continues: its clients see
// a pause. If Redis itself has lost events, the loss is detected and reported.
package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/queue"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
)

// Options configure an [Adapter]. Zero fields mean the defaults. All nodes of a cluster need the
// same values, except for Node, Address, ReplayBytes, ReplayEntries and Logger.
type Options struct {
	Redis *redisurl.Target // required
	Node  adapter.NodeID   // this node's id; required
	// Address is the host:port at which other nodes reach this one's internal port.
	Address string
	// Prefix begins the names of all keys and channels: "rejoin:" by default. It must not contain
	// braces.
	Prefix string

	// Partitions is the number of orders that the rooms are spread over: 1 by default, at most 64.
	// It is for a Redis Cluster, whose servers share them. Events are in order within a partition;
	// receivers may see those of rooms in different partitions in different orders. It cannot be
	// changed while the prefix is in use.
	Partitions int

	// BacklogLimit is the number of a room's newest events that can be replayed: 1000 by default,
	// none if negative. About twice as many are kept. Without backlogs a subscription that breaks
	// cannot be repaired, and sockets that a command joins to a room are cut, because they may have
	// missed events.
	BacklogLimit int
	// ReplayBytes is the maximum memory for the reads of one replay, or of a catch-up: 256 MiB by
	// default. Each partition may use an equal share of it. A larger replay fails with
	// adapter.ErrTrimmed. A larger catch-up gives up the rooms with the most events: their
	// members are cut.
	ReplayBytes int
	// ReplayEntries is the maximum number of stored events that one replay reads: 20,000 by default.
	// An event counts once for each of the replay's rooms that it was published to. A larger replay
	// fails with adapter.ErrTooMany.
	ReplayEntries int
	// BacklogTTL is how long a silent room's backlog is kept: one hour by default. It should exceed
	// the age of any cursor in use, because a replay after one that is older, less a tenth or 5 s for
	// clocks that differ, fails with adapter.ErrTrimmed. A feed that was interrupted for longer is not
	// repaired: all its members are cut.
	BacklogTTL time.Duration
	// ClockTTL is how long the clock keeps its entries: ten minutes by default. A lost history is
	// detected by cursors that are younger.
	ClockTTL time.Duration

	// Timeout bounds each call to Redis, and how long an event waits for Redis to recover: 3 s by
	// default.
	Timeout time.Duration
	// ProbeInterval is the time between two probes: 1 s by default. A dead connection of the
	// subscriber is detected within three intervals.
	ProbeInterval time.Duration

	Logger *zap.Logger // none by default
}

// An Adapter is one node's connection to the others through Redis. It implements [adapter.Adapter],
// with these additions:
//
//   - Publish waits for Redis at most Options.Timeout, and fails immediately if Redis has been
//     unavailable for longer. Concurrent calls share round trips.
//   - An acknowledged event is as durable as Redis is configured to be.
//   - Nodes returns the result of the last heartbeat, at most a second old.
//   - An adapter that loses its id to another node, after too long a silence, closes itself: its
//     errors wrap [ErrTaken] and [adapter.ErrClosed].
type Adapter struct {
	*composed
	partitions []*partition
	registry   *registry
	queue      *queue.Queue[adapter.Item]
	inbox      *queue.Queue[adapter.Message]
	onLost     atomic.Pointer[func()] // called when messages may have been lost
	large      chan struct{}          // holds a token while a replay holds many events
	slow       chan struct{}          // holds a token while a partition on a slow line reads backlogs
	counters   *counters              // of all partitions

	ctx     context.Context // its cause wraps adapter.ErrClosed
	cancel  context.CancelCauseFunc
	closing bool          // guarded by the mu of all partitions
	closed  chan struct{} // when Close has ended
}

// composed has the methods of the adapter that are distributed over the partitions.
type composed = adapter.Partitions

var (
	_ adapter.Adapter          = (*Adapter)(nil)
	_ adapter.Fallible         = (*Adapter)(nil)
	_ adapter.Refresher        = (*Adapter)(nil)
	_ adapter.ProgressReporter = (*Adapter)(nil)
	_ adapter.CursorExpirer    = (*Adapter)(nil)
	_ adapter.LossReporter     = (*Adapter)(nil)
)

// New joins the cluster as a node. It returns once the node's feed is live, or with an error when
// ctx ends first. The caller closes the adapter. While another node holds the id, New waits; if ctx ends meanwhile, the error
// wraps [ErrTaken]. New also waits for the last node of a release before 0.4 to end; that error
// wraps [ErrOldPeer]. An error that wraps [ErrPartitions] is final. An error that wraps
// [ErrRights] names the rights that the Redis user lacks.
func New(ctx context.Context, o Options) (*Adapter, error) {
	if o.Redis == nil || o.Node == "" {
		return nil, errors.New("adapter/redis: Options.Redis and Options.Node are required")
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Partitions = cmp.Or(o.Partitions, 1); o.Partitions < 1 || o.Partitions > adapter.MaxPartitions {
		return nil, fmt.Errorf("adapter/redis: Options.Partitions is %d: there can be 1 to %d", o.Partitions, adapter.MaxPartitions)
	}
	a := &Adapter{
		queue:    queue.New[adapter.Item](feedItems, feedBytes),
		large:    make(chan struct{}, 1),
		slow:     make(chan struct{}, 1),
		counters: newCounters(),
		inbox:    queue.New[adapter.Message](inboxItems, inboxBytes),
		closed:   make(chan struct{}),
	}
	a.ctx, a.cancel = context.WithCancelCause(context.Background())
	for i, tag := range tags(o.Partitions) {
		a.partitions = append(a.partitions, a.newPartition(o, uint16(i), tag))
	}
	a.registry = newRegistry(a, o.Node, o.Address)
	for _, p := range a.partitions {
		p.changed = a.registry.changed
	}
	ended := context.AfterFunc(ctx, func() { a.cancel(adapter.ErrClosed) }) // and with it calls that wait for Redis
	err := a.start(ctx, o.Redis)
	if !ended() && err == nil {
		err = fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))
	}
	if err != nil {
		_ = a.Close()
		return nil, err
	}
	return a, nil
}

func (a *Adapter) start(ctx context.Context, target *redisurl.Target) error {
	for _, p := range a.partitions {
		p.running.Go(p.runHeads)
		for range backlogReaders {
			p.running.Go(p.runBacklogs)
			p.running.Go(p.runPages)
		}
	}
	for _, step := range []func() error{
		func() error { return a.mayRun(ctx, target) },
		func() error { return a.agree(ctx) },
		func() error { return a.registry.claim(ctx) },
		func() error { return a.registry.awaitPeers(ctx) },
		func() error { return a.compose(ctx) },
	} {
		err := step()
		for errors.Is(err, adapter.ErrUnavailable) && ctx.Err() == nil { // Redis may become reachable
			err = step()
		}
		if err != nil {
			return err
		}
	}
	for _, p := range a.partitions {
		p.running.Go(p.runPublisher)
		p.running.Go(p.runSubscriber)
		p.running.Go(p.runProbes)
		p.running.Go(p.runKeyChecks)
		p.running.Go(p.runNews)
	}
	a.partitions[0].running.Go(func() { a.registry.run(a.ctx) })
	for _, p := range a.partitions {
		if err := p.awaitLive(ctx); err != nil {
			return err
		}
	}
	return nil
}

// compose makes the partitions one adapter.
func (a *Adapter) compose(ctx context.Context) (err error) {
	c := adapter.Composition{
		Node: a.registry.id,
		Key:  name,
		Next: func(ctx context.Context) (adapter.Item, error) { return a.queue.Take(ctx, a.ctx) },
	}
	for _, p := range a.partitions {
		c.Partitions = append(c.Partitions, p)
	}
	a.composed, err = adapter.Compose(ctx, c)
	return err
}

// Ready returns nil if this node's feed works: Redis answers, its probes return, no catch-up is in
// progress, the keys that all rooms need can be read, and the lease on the node id is renewed.
// Otherwise the error says what is wrong; if another program has overwritten a key, it names that
// key.
func (a *Adapter) Ready() error {
	for _, p := range a.partitions {
		if err := p.ready(); err != nil {
			return err
		}
	}
	return a.registry.ready()
}

// Done returns a channel that is closed when the adapter is closed, by Close or because it has
// lost its node id; Err then returns the reason.
func (a *Adapter) Done() <-chan struct{} { return a.ctx.Done() }

// Err returns nil until Done is closed, [adapter.ErrClosed] after a Close, and an
// error that wraps [ErrTaken] once another node has taken this one's id.
func (a *Adapter) Err() error { return context.Cause(a.ctx) }

// Address returns the host:port of a node's internal port, as that node set [Options].Address. A
// node that the last heartbeat did not list, or listed at the address stale ("" for none), is
// looked up in Redis, so a node is found from the moment its New returns. Concurrent look-ups share
// one command, of which Redis gets at most 20 a second. The error wraps [adapter.ErrNoNode] if
// Redis has answered that the cluster has no such node; any other error says nothing about the
// node. Address is safe for concurrent use, and returns when ctx ends.
func (a *Adapter) Address(ctx context.Context, node adapter.NodeID, stale string) (string, error) {
	if err := a.partitions[0].enter(ctx); err != nil {
		return "", err
	}
	return a.registry.address(ctx, node, stale)
}

// CursorTTL implements [adapter.CursorExpirer]. Older cursors are refused.
func (a *Adapter) CursorTTL() time.Duration { return a.partitions[0].cursorTTL() }

// Nodes implements [adapter.Adapter].
func (a *Adapter) Nodes(ctx context.Context) ([]adapter.Member, error) {
	if err := a.partitions[0].enter(ctx); err != nil {
		return nil, err
	}
	return a.registry.members(), nil
}

// FreshNodes implements [adapter.Refresher]. It shares its command with Address.
func (a *Adapter) FreshNodes(ctx context.Context) ([]adapter.Member, error) {
	if err := a.partitions[0].enter(ctx); err != nil {
		return nil, err
	}
	if err := a.registry.refresh(ctx); err != nil {
		return nil, err
	}
	return a.registry.members(), nil
}

// Close implements [adapter.Adapter]. It waits for Redis for at most a second.
func (a *Adapter) Close() error {
	if !a.stop() {
		<-a.closed
		return nil
	}
	defer close(a.closed)
	for _, p := range a.partitions {
		p.running.Wait()
	}
	a.registry.leave()
	for _, p := range a.partitions {
		if l := p.link.Swap(nil); l != nil {
			_ = l.close()
		}
	}
	a.queue.Discard()
	return nil
}

// stop ends the adapter's goroutines and calls, and reports whether this was the first call.
func (a *Adapter) stop() bool {
	for _, p := range a.partitions {
		p.mu.Lock()
		defer p.mu.Unlock()
	}
	first := !a.closing
	a.closing = true
	a.cancel(adapter.ErrClosed)
	return first
}
