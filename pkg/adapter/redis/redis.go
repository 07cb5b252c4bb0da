// Package redis connects the nodes of a cluster through Redis: its Streams keep
// the order of events and every room's backlog, its pub/sub hands them out, and
// one script does both at once. It is an implementation of the contract of
// package adapter, and the protocol between nodes; package names and wire.go say
// what is stored.
//
// A node that loses its connection reads what it missed and goes on: its clients
// see a pause. Where Redis itself has lost something, that is found out and said.
package redis

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/queue"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Options configure an [Adapter]. Zero fields mean the defaults. All nodes of a
// cluster need the same, but for Node, Address and Logger.
type Options struct {
	Redis *redisurl.Target // required
	Node  adapter.NodeID   // this node's id; required
	// Address is where other nodes reach this one's internal port, as host:port.
	Address string
	// Prefix begins the names of all keys and channels: "rejoin:" by default. It
	// holds no braces.
	Prefix string

	// BacklogLimit is how many of a room's newest events can be replayed: 1000 by
	// default, none if negative. About twice as many are kept.
	BacklogLimit int
	// BacklogTTL is how long a silent room's backlog is kept, one hour by default.
	// It must be longer than any cursor waits to be used.
	BacklogTTL time.Duration
	// ClockTTL is how long the clock remembers its entries, ten minutes by
	// default. A lost history is found by cursors that are younger.
	ClockTTL time.Duration

	// Timeout bounds each call to Redis, and how long an event waits for Redis to
	// come back: 3 s by default.
	Timeout time.Duration
	// ProbeInterval is the time between two probes: 1 s by default. A dead
	// connection of the subscriber is noticed within three times as much.
	ProbeInterval time.Duration

	Logger *zap.Logger // none by default
}

// An Adapter is one node's connection to the others through Redis. It implements
// [adapter.Adapter]. Beside what that says:
//
//   - Publish waits for Redis at most Options.Timeout, and fails at once while
//     Redis has been away for longer. Concurrent calls share round trips.
//   - An acknowledged event is as durable as Redis is configured to be.
//   - Nodes and Address know what the last heartbeat said, a second ago at most.
type Adapter struct {
	p        *partition
	registry *registry
	closed   chan struct{} // when Close has ended
}

var _ adapter.Adapter = (*Adapter)(nil)

// New joins the cluster as a node. It returns once the node's feed is live, or
// with an error when ctx ends before. An id that another node holds is waited for
// until then, and the error wraps [ErrTaken].
func New(ctx context.Context, o Options) (*Adapter, error) {
	if o.Redis == nil || o.Node == "" {
		return nil, errors.New("adapter/redis: Options.Redis and Options.Node are required")
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	a := &Adapter{p: newPartition(o, "0"), closed: make(chan struct{})}
	a.registry = newRegistry(a.p, o.Address)
	if err := a.start(ctx); err != nil {
		_ = a.Close()
		return nil, err
	}
	return a, nil
}

func newPartition(o Options, tag string) *partition {
	limit := orDefault(o.BacklogLimit, 1000)
	handOut := plain
	if o.Redis.Form() == redisurl.Cluster {
		handOut = sharded
	}
	p := &partition{
		pubsub:  handOut,
		node:    o.Node,
		names:   newNames(orDefault(o.Prefix, "rejoin:"), tag),
		log:     o.Logger,
		timeout: orDefault(o.Timeout, 3*time.Second),
		limit:   max(limit, 0),
		life:    orDefault(o.BacklogTTL, time.Hour),
		keep:    orDefault(o.ClockTTL, 10*time.Minute),
		probing: orDefault(o.ProbeInterval, time.Second),
		linking: make(chan struct{}, 1),
		feed:    queue.New[fed](feedItems, feedBytes),
		inbox:   queue.New[adapter.Message](inboxItems, inboxBytes),
		rooms:   make(map[string]*heard),
	}
	p.outbox.ready = make(chan struct{}, 1)
	p.heads.ready = make(chan struct{}, 1)
	p.kick = make(chan struct{}, 1)
	p.stats.init()
	key := p.names.epoch()
	p.primary = func(ctx context.Context) (*goredis.Options, error) { return o.Redis.Primary(ctx, key) }
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	// What a node hears without a member.
	for _, own := range []string{name(rooms.InNodes()), probe(p.node)} {
		p.rooms[own] = &heard{members: 1, ready: make(chan struct{})}
	}
	return p
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func (a *Adapter) start(ctx context.Context) error {
	p := a.p
	p.running.Go(p.runHeads)
	if err := a.registry.claim(ctx); err != nil {
		return err
	}
	if _, _, err := p.search(ctx); err != nil {
		return err
	}
	p.running.Go(p.runPublisher)
	p.running.Go(p.runSubscriber)
	p.running.Go(p.runProbes)
	p.running.Go(func() { a.registry.run(p.ctx) })
	return p.awaitLive(ctx)
}

// Ready returns nil if this node's feed works: Redis answers, its probes come
// back, and nothing is being caught up with. Otherwise it says what is wrong.
func (a *Adapter) Ready() error { return a.p.ready() }

// Stats returns the adapter's figures.
func (a *Adapter) Stats() Stats { return a.p.snapshot() }

// Node returns the node's id.
func (a *Adapter) Node() adapter.NodeID { return a.p.node }

// Address returns where a node's internal port is: what it said as
// [Options].Address. The error wraps [adapter.ErrNoNode] if there is no such node.
func (a *Adapter) Address(ctx context.Context, node adapter.NodeID) (string, error) {
	if err := a.enter(ctx); err != nil {
		return "", err
	}
	return a.registry.address(ctx, node)
}

// enter returns why a call can't be made.
func (a *Adapter) enter(ctx context.Context) error {
	if a.p.ctx.Err() != nil {
		return adapter.ErrClosed
	}
	if ctx.Err() != nil {
		return fmt.Errorf("adapter/redis: %w", context.Cause(ctx))
	}
	return nil
}

// Nodes implements [adapter.Adapter].
func (a *Adapter) Nodes(ctx context.Context) ([]adapter.Member, error) {
	if err := a.enter(ctx); err != nil {
		return nil, err
	}
	return a.registry.members(), nil
}

// Publish implements [adapter.Adapter].
func (a *Adapter) Publish(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
	if err := a.enter(ctx); err != nil {
		return adapter.Receipt{}, err
	}
	names := roomNames(e.Target.To)
	if len(names) == 0 {
		return adapter.Receipt{}, nil
	}
	e.From = a.p.node
	return a.p.send(ctx, &parcel{rooms: names, stored: e.Stored, payload: encodeEvent(&e)})
}

// roomNames returns the names of rooms, each once.
func roomNames(list []rooms.Room) []string {
	names := make([]string, 0, len(list))
	for _, r := range list {
		if n := name(r); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// Subscribe implements [adapter.Adapter].
func (a *Adapter) Subscribe(ctx context.Context, list ...rooms.Room) (adapter.Cursor, error) {
	if err := a.enter(ctx); err != nil {
		return adapter.Cursor{}, err
	}
	return a.p.subscribe(ctx, everyName(list))
}

// Unsubscribe implements [adapter.Adapter].
func (a *Adapter) Unsubscribe(list ...rooms.Room) { a.p.unsubscribe(everyName(list)) }

// everyName returns the names of rooms, as often as they are there.
func everyName(list []rooms.Room) []string {
	names := make([]string, len(list))
	for i, r := range list {
		names[i] = name(r)
	}
	return names
}

// Next implements [adapter.Adapter].
func (a *Adapter) Next(ctx context.Context) (adapter.Event, error) {
	f, err := take(ctx, a, a.p.feed)
	switch {
	case err != nil:
		return adapter.Event{}, err
	case f.lost != nil:
		return adapter.Event{}, f.lost
	}
	return *f.event, nil
}

// take returns the next item of one of a's queues.
func take[T any](ctx context.Context, a *Adapter, q *queue.Queue[T]) (T, error) {
	v, err := q.Take(ctx, a.p.ctx.Done())
	if errors.Is(err, queue.ErrDone) {
		err = adapter.ErrClosed
	}
	return v, err
}

// Head implements [adapter.Adapter].
func (a *Adapter) Head(ctx context.Context, seen ...adapter.Cursor) (adapter.Cursor, error) {
	if err := a.enter(ctx); err != nil {
		return adapter.Cursor{}, err
	}
	return a.p.head(ctx, seen...)
}

// Replay implements [adapter.Adapter].
func (a *Adapter) Replay(ctx context.Context, after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor) iter.Seq2[adapter.Event, error] {
	return func(yield func(adapter.Event, error) bool) {
		if err := a.enter(ctx); err != nil {
			yield(adapter.Event{}, err)
			return
		}
		names := make(map[string]adapter.Cursor, len(after))
		for r, c := range after {
			names[name(r)] = c
		}
		a.p.replay(ctx, names, upTo)(yield)
	}
}

// History implements [adapter.Adapter].
func (a *Adapter) History(ctx context.Context, room rooms.Room, before adapter.Cursor, limit int) ([]adapter.Event, bool, error) {
	if err := a.enter(ctx); err != nil {
		return nil, false, err
	}
	return a.p.recent(ctx, name(room), before, limit)
}

// Send implements [adapter.Adapter].
func (a *Adapter) Send(ctx context.Context, to adapter.NodeID, m adapter.Message) error {
	if err := a.enter(ctx); err != nil {
		return err
	}
	m.From = a.p.node
	_, err := a.p.send(ctx, &parcel{inbox: a.p.names.inbox(to), payload: encodeMessage(m)})
	return err
}

// Receive implements [adapter.Adapter].
func (a *Adapter) Receive(ctx context.Context) (adapter.Message, error) {
	return take(ctx, a, a.p.inbox)
}

// Close implements [adapter.Adapter]. It does not wait for Redis longer than a
// second.
func (a *Adapter) Close() error {
	p := a.p
	p.mu.Lock()
	first := p.ctx.Err() == nil
	p.cancel(adapter.ErrClosed)
	p.mu.Unlock()
	if !first {
		<-a.closed
		return nil
	}
	defer close(a.closed)
	p.running.Wait()
	a.registry.leave()
	if l := p.link.Swap(nil); l != nil {
		_ = l.close()
	}
	p.feed.Discard()
	return nil
}
