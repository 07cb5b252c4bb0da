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
	"sync"
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

	// Partitions is how many orders the rooms are spread over: 1 by default, at most
	// 64. It is for a Redis Cluster, whose servers share them. Events are in order
	// within a partition; those of rooms in different ones may be seen in different
	// orders. It can't be changed while the prefix is in use.
	Partitions int

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
//   - One that loses its id to another node, having been silent for too long,
//     closes itself: its errors wrap [ErrTaken] and [adapter.ErrClosed].
type Adapter struct {
	node       adapter.NodeID
	partitions []*partition
	registry   *registry
	feed       *queue.Queue[fed]
	inbox      *queue.Queue[adapter.Message]

	ctx     context.Context // its cause wraps adapter.ErrClosed
	cancel  context.CancelCauseFunc
	closing bool          // guarded by the first partition's mu
	closed  chan struct{} // when Close has ended

	// Of whoever calls Next: how far it has come, and in which histories.
	progress *adapter.Progress
	epochs   []string
}

var (
	_ adapter.Adapter  = (*Adapter)(nil)
	_ adapter.Fallible = (*Adapter)(nil)
)

// New joins the cluster as a node. It returns once the node's feed is live, or
// with an error when ctx ends before. An id that another node holds is waited for
// until then, and the error wraps [ErrTaken]; one that wraps [ErrPartitions] is
// final.
func New(ctx context.Context, o Options) (*Adapter, error) {
	if o.Redis == nil || o.Node == "" {
		return nil, errors.New("adapter/redis: Options.Redis and Options.Node are required")
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Partitions = orDefault(o.Partitions, 1); o.Partitions < 1 || o.Partitions > adapter.MaxPartitions {
		return nil, fmt.Errorf("adapter/redis: Options.Partitions is %d: there can be 1 to %d", o.Partitions, adapter.MaxPartitions)
	}
	a := &Adapter{
		node:   o.Node,
		feed:   queue.New[fed](feedItems, feedBytes),
		inbox:  queue.New[adapter.Message](inboxItems, inboxBytes),
		closed: make(chan struct{}),
	}
	a.ctx, a.cancel = context.WithCancelCause(context.Background())
	for i, tag := range tags(o.Partitions) {
		a.partitions = append(a.partitions, a.newPartition(o, uint16(i), tag))
	}
	a.registry = newRegistry(a, o.Address)
	for _, p := range a.partitions {
		p.changed = a.registry.changed
	}
	ended := context.AfterFunc(ctx, func() { a.cancel(adapter.ErrClosed) }) // and with it what Redis keeps waiting
	err := a.start(ctx)
	if !ended() && err == nil {
		err = fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))
	}
	if err != nil {
		_ = a.Close()
		return nil, err
	}
	return a, nil
}

// await returns what f does, or that ctx or the adapter has ended before f has:
// Redis may keep it waiting until its own deadline.
func await[T any](ctx context.Context, a *Adapter, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	p := a.partitions[0]
	p.mu.Lock() // which Close takes before it waits
	if a.ctx.Err() == nil {
		p.running.Go(func() {
			v, err := f()
			done <- result{v, err}
		})
	}
	p.mu.Unlock()
	var none T
	select {
	case r := <-done:
		if r.err != nil && a.ctx.Err() != nil {
			return none, context.Cause(a.ctx)
		}
		return r.value, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))
	case <-a.ctx.Done():
		return none, context.Cause(a.ctx)
	}
}

func (a *Adapter) newPartition(o Options, number uint16, tag string) *partition {
	limit := orDefault(o.BacklogLimit, 1000)
	p := &partition{
		number:  number,
		node:    o.Node,
		names:   newNames(orDefault(o.Prefix, "rejoin:"), tag),
		pubsub:  plain,
		log:     o.Logger,
		timeout: orDefault(o.Timeout, 3*time.Second),
		limit:   max(limit, 0),
		life:    orDefault(o.BacklogTTL, time.Hour),
		keep:    orDefault(o.ClockTTL, 10*time.Minute),
		probing: orDefault(o.ProbeInterval, time.Second),
		ctx:     a.ctx,
		linking: make(chan struct{}, 1),
		feed:    a.feed,
		inbox:   a.inbox,
		kick:    make(chan struct{}, 1),
		rooms:   make(map[string]*heard),
	}
	if o.Redis.Form() == redisurl.Cluster {
		p.pubsub = sharded
	}
	if o.Partitions > 1 {
		p.log = p.log.With(zap.Uint16("partition", number))
	}
	p.outbox.ready = make(chan struct{}, 1)
	p.heads.ready = make(chan struct{}, 1)
	p.backlogs.ready = make(chan struct{}, 1)
	p.stats.init()
	key := p.names.epoch()
	p.primary = func(ctx context.Context) (*goredis.Options, error) { return o.Redis.Primary(ctx, key) }
	// What a node hears without a member.
	p.rooms[probe(p.node)] = &heard{members: 1, ready: make(chan struct{})}
	if nodes := name(rooms.InNodes()); a.home(nodes, o.Partitions) == number {
		p.rooms[nodes] = &heard{members: 1, ready: make(chan struct{})}
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
	for _, p := range a.partitions {
		p.running.Go(p.runHeads)
		for range backlogReaders {
			p.running.Go(p.runBacklogs)
		}
	}
	places := make([]place, len(a.partitions))
	search := func(i int, p *partition) (err error) {
		if _, _, err = p.search(ctx); err == nil {
			places[i] = p.seen()
		}
		return err
	}
	for _, step := range []func() error{
		func() error { return a.agree(ctx) },
		func() error { return a.registry.claim(ctx) },
		func() error { return a.each(search) },
	} {
		err := step()
		for errors.Is(err, adapter.ErrUnavailable) && ctx.Err() == nil { // Redis may come
			err = step()
		}
		if err != nil {
			return err
		}
	}
	a.progress = adapter.NewProgress(cursor(0, places))
	for _, at := range places {
		a.epochs = append(a.epochs, at.epoch)
	}
	for _, p := range a.partitions {
		p.running.Go(p.runPublisher)
		p.running.Go(p.runSubscriber)
		p.running.Go(p.runProbes)
	}
	a.partitions[0].running.Go(func() { a.registry.run(a.ctx) })
	return a.each(func(_ int, p *partition) error { return p.awaitLive(ctx) })
}

// each does something in every partition at once, and returns when all have.
func (a *Adapter) each(f func(i int, p *partition) error) error {
	errs := make([]error, len(a.partitions))
	var all sync.WaitGroup
	for i, p := range a.partitions[1:] {
		all.Go(func() { errs[i+1] = f(i+1, p) })
	}
	errs[0] = f(0, a.partitions[0])
	all.Wait()
	return errors.Join(errs...)
}

// Ready returns nil if this node's feed works: Redis answers, its probes come
// back, and nothing is being caught up with. Otherwise it says what is wrong.
func (a *Adapter) Ready() error {
	for _, p := range a.partitions {
		if err := p.ready(); err != nil {
			return err
		}
	}
	return nil
}

// Done is closed when the adapter is: by Close, or by itself, and then Err says why.
func (a *Adapter) Done() <-chan struct{} { return a.ctx.Done() }

// Err returns nil until Done is closed, [adapter.ErrClosed] after a Close, and an
// error that wraps [ErrTaken] once another node has taken this one's id.
func (a *Adapter) Err() error { return context.Cause(a.ctx) }

// Stats returns the adapter's figures.
func (a *Adapter) Stats() Stats {
	s := a.partitions[0].snapshot()
	for _, p := range a.partitions[1:] {
		s.add(p.snapshot())
	}
	s.Epoch = cursor(0, a.seen()).Epoch
	return s
}

// Node returns the node's id.
func (a *Adapter) Node() adapter.NodeID { return a.node }

// Address returns where a node's internal port is: what it said as
// [Options].Address. The error wraps [adapter.ErrNoNode] if there is no such node.
func (a *Adapter) Address(ctx context.Context, node adapter.NodeID) (string, error) {
	if err := a.enter(ctx); err != nil {
		return "", err
	}
	return await(ctx, a, func() (string, error) { return a.registry.address(ctx, node) })
}

// enter returns why a call can't be made.
func (a *Adapter) enter(ctx context.Context) error {
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
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

// Publish implements [adapter.Adapter]. An event whose rooms lie in several
// partitions is published in one after another; where that fails in the middle, the
// error wraps [adapter.ErrUnavailable].
func (a *Adapter) Publish(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
	if err := a.enter(ctx); err != nil {
		return adapter.Receipt{}, err
	}
	if len(e.Target.To) == 0 {
		return adapter.Receipt{}, nil
	}
	e.From, e.Earlier = a.node, nil
	var places []place
	var receipt adapter.Receipt
	for _, part := range a.split(e.Target.To) {
		e.Target.To = part.rooms
		o := part.p.send(ctx, &parcel{rooms: unique(part.names), stored: e.Stored, payload: encodeEvent(&e)})
		switch {
		case o.err != nil && len(e.Earlier) > 0:
			return adapter.Receipt{}, fmt.Errorf("%w: it was published in %d partitions, and then: %w", adapter.ErrUnavailable, len(e.Earlier), o.err)
		case o.err != nil:
			return adapter.Receipt{}, o.err
		}
		if len(a.partitions) == 1 {
			return adapter.Receipt{Cursor: cursor(0, []place{o.place}), Receivers: o.receivers}, nil
		}
		if places == nil {
			places = a.seen()
		}
		places[part.p.number] = o.place
		e.Earlier = append(e.Earlier, adapter.Copy{At: o.at, To: part.rooms})
		receipt = adapter.Receipt{Cursor: cursor(part.p.number, places), Receivers: receipt.Receivers + o.receivers}
	}
	return receipt, nil
}

// Subscribe implements [adapter.Adapter].
func (a *Adapter) Subscribe(ctx context.Context, list ...rooms.Room) (adapter.Cursor, error) {
	if err := a.enter(ctx); err != nil {
		return adapter.Cursor{}, err
	}
	parts := a.split(list)
	places := a.seen()
	joined := make([]place, len(parts))
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for i, part := range parts {
		join := func() { joined[i], errs[i] = part.p.subscribe(ctx, part.names) }
		if i == len(parts)-1 {
			join()
		} else {
			all.Go(join)
		}
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		for i, part := range parts {
			if errs[i] == nil {
				part.p.unsubscribe(part.names)
			}
		}
		return adapter.Cursor{}, err
	}
	at := uint16(0)
	for i, part := range parts {
		at = part.p.number
		places[at] = joined[i]
	}
	return cursor(at, places), nil
}

// Unsubscribe implements [adapter.Adapter].
func (a *Adapter) Unsubscribe(list ...rooms.Room) {
	for _, part := range a.split(list) {
		part.p.unsubscribe(part.names)
	}
}

// Next implements [adapter.Adapter].
func (a *Adapter) Next(ctx context.Context) (adapter.Event, error) {
	f, err := take(ctx, a, a.feed)
	switch {
	case err != nil:
		return adapter.Event{}, err
	case f.lost != nil:
		a.epochs[f.from.at.Partition] = f.from.epoch
		a.progress.Reset(combine(a.epochs), f.from.at)
		return adapter.Event{}, f.lost
	}
	e := *f.event // which others may share
	e.Cursor = a.progress.To(e.Position)
	return e, nil
}

// take returns the next item of one of a's queues.
func take[T any](ctx context.Context, a *Adapter, q *queue.Queue[T]) (T, error) {
	v, err := q.Take(ctx, a.ctx.Done())
	if errors.Is(err, queue.ErrDone) {
		err = context.Cause(a.ctx)
	}
	return v, err
}

// Head implements [adapter.Adapter].
func (a *Adapter) Head(ctx context.Context, seen ...adapter.Cursor) (adapter.Cursor, error) {
	if err := a.enter(ctx); err != nil {
		return adapter.Cursor{}, err
	}
	seen = slices.DeleteFunc(slices.Clone(seen), adapter.Cursor.IsZero)
	places := make([]place, len(a.partitions))
	err := a.each(func(i int, p *partition) (err error) {
		var at []adapter.Position
		for _, c := range seen {
			if q := c.In(uint16(i)); q.Ms > 0 {
				at = append(at, q)
			}
		}
		places[i], err = p.head(ctx, at...)
		return err
	})
	if err != nil {
		return adapter.Cursor{}, err
	}
	head := newest(places)
	for _, c := range seen {
		if err := sameHistory(c, head); err != nil {
			return adapter.Cursor{}, err
		}
	}
	return head, nil
}

// Condemn implements [adapter.Fallible].
func (a *Adapter) Condemn(ctx context.Context, seen adapter.Cursor) error {
	if err := a.enter(ctx); err != nil {
		return err
	}
	if !seen.SameHistory(cursor(0, a.seen())) {
		return nil // it is past
	}
	return a.each(func(i int, p *partition) error {
		at := seen.In(uint16(i))
		if at.Ms == 0 {
			return nil
		}
		current, err := p.head(ctx, at)
		if !errors.Is(err, adapter.ErrHistoryLost) {
			return err
		}
		return p.forked(ctx, current.epoch, err.Error())
	})
}

func sameHistory(c, current adapter.Cursor) error {
	if !c.SameHistory(current) {
		return fmt.Errorf("%w: cursor %s is not of the history %s", adapter.ErrHistoryLost, c, current.Epoch)
	}
	return nil
}

// Replay implements [adapter.Adapter].
func (a *Adapter) Replay(ctx context.Context, after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor) iter.Seq2[adapter.Event, error] {
	return func(yield func(adapter.Event, error) bool) {
		r, err := await(ctx, a, func() (r missed, err error) {
			r.events, r.from, err = a.missed(ctx, after, upTo)
			return r, err
		})
		if err != nil {
			yield(adapter.Event{}, fmt.Errorf("adapter/redis: replay: %w", err))
			return
		}
		progress := adapter.NewProgress(r.from)
		for shared := range adapter.Merge(r.events) {
			e := *shared
			e.Cursor = progress.To(e.Position)
			if !yield(e, nil) {
				return
			}
		}
	}
}

type missed struct {
	events [][]*adapter.Event
	from   adapter.Cursor
}

// missed reads what a replay consists of, and says where it begins: in each
// partition where the first of its rooms does, or at the end where there is none.
func (a *Adapter) missed(ctx context.Context, after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor) (events [][]*adapter.Event, from adapter.Cursor, err error) {
	if err := a.enter(ctx); err != nil {
		return nil, from, err
	}
	current := a.seen()
	if err := sameHistory(upTo, cursor(0, current)); err != nil {
		return nil, from, err
	}
	asked := make([]map[string]adapter.Position, len(a.partitions))
	places := make([]place, len(a.partitions))
	for i := range places {
		asked[i] = make(map[string]adapter.Position)
		places[i] = place{current[i].epoch, upTo.In(uint16(i))}
	}
	for r, c := range after {
		if err := sameHistory(c, upTo); err != nil {
			return nil, from, err
		}
		n := name(r)
		i := a.home(n, len(a.partitions))
		asked[i][n] = c.In(i)
		if c.In(i).Compare(places[i].at) < 0 {
			places[i].at = c.In(i)
		}
	}
	read := make([][][]*adapter.Event, len(a.partitions))
	err = a.each(func(i int, p *partition) (err error) {
		read[i], err = p.missed(ctx, current[i].epoch, asked[i], upTo.In(uint16(i)))
		return err
	})
	return slices.Concat(read...), newest(places), err
}

// History implements [adapter.Adapter].
func (a *Adapter) History(ctx context.Context, room rooms.Room, before adapter.Cursor, limit int) ([]adapter.Event, bool, error) {
	head, err := a.Head(ctx)
	if err != nil {
		return nil, false, err
	}
	if !before.IsZero() {
		if err := sameHistory(before, head); err != nil {
			return nil, false, err
		}
	}
	n := name(room)
	i := a.home(n, len(a.partitions))
	more := false
	read, err := await(ctx, a, func() (read []*adapter.Event, err error) {
		read, more, err = a.partitions[i].recent(ctx, a.partitions[i].history(), n, before.In(i), limit)
		return read, err
	})
	if err != nil {
		return nil, false, fmt.Errorf("adapter/redis: history: %w", err)
	}
	events := make([]adapter.Event, len(read))
	places := make([]place, len(a.partitions)) // of what is in other partitions it says nothing
	for j, e := range read {
		places[i].at = e.Position
		e.Cursor = cursor(i, places)
		e.Cursor.Epoch = head.Epoch
		events[j] = *e
	}
	return events, more, nil
}

// Send implements [adapter.Adapter].
func (a *Adapter) Send(ctx context.Context, to adapter.NodeID, m adapter.Message) error {
	if err := a.enter(ctx); err != nil {
		return err
	}
	m.From = a.node
	p := a.partitions[0]
	return p.send(ctx, &parcel{inbox: p.names.inbox(to), payload: encodeMessage(m)}).err
}

// Receive implements [adapter.Adapter].
func (a *Adapter) Receive(ctx context.Context) (adapter.Message, error) {
	return take(ctx, a, a.inbox)
}

// Close implements [adapter.Adapter]. It does not wait for Redis longer than a
// second.
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
	a.feed.Discard()
	return nil
}

// stop ends everything, and reports whether nobody has before.
func (a *Adapter) stop() bool {
	a.partitions[0].mu.Lock()
	defer a.partitions[0].mu.Unlock()
	first := !a.closing
	a.closing = true
	a.cancel(adapter.ErrClosed)
	return first
}
