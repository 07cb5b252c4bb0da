package redis

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rejoin-io/rejoin/internal/batch"
	"github.com/rejoin-io/rejoin/internal/queue"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A partition is the unit of order: one clock, and the rooms whose events it
// numbers. It is served by one Redis server at a time. It implements [adapter.Partition].
type partition struct {
	number  uint16
	node    adapter.NodeID
	names   names
	primary func(context.Context) (*goredis.Options, error) // returns the current server
	pubsub  pubsub
	log     *zap.Logger
	sampled *zap.Logger   // for events that other programs can cause at any rate: it is sampled
	timeout time.Duration // of a call, and of an event in the outbox
	limit   int           // of a replay in one room; if negative, nothing is stored
	tried   int           // maximum size of a replay's first read with XRANGE, in bytes
	entries int           // maximum number of entries that one replay reads
	replay  int           // maximum memory for reads of one replay, or a catch-up, in bytes
	life    time.Duration // of a silent backlog
	keep    time.Duration // of the clock
	probing time.Duration
	sizes   sizes // of events

	ctx     context.Context // ends with the adapter; its cause is adapter.ErrClosed
	changed func()          // makes the registry report the feed's condition
	running sync.WaitGroup

	link     atomic.Pointer[link]
	linking  chan struct{} // a lock around the following fields
	nextLink time.Time
	linkErr  error
	explored sync.Once   // reports missing rights
	roleless atomic.Bool // the server does not report whether it is the primary
	pace     pace        // of reads of backlogs

	outbox    *batch.Queue[content, outcome]
	abandoned *identity // the publisher's: a connection whose last call may still be executed

	queue        *queue.Queue[adapter.Item] // of the feeds of all partitions
	inbox        *queue.Queue[adapter.Message]
	messagesLost func()                                           // reports that messages may have been lost
	heads        *batch.Queue[[]adapter.Position, adapter.Cursor] // reads of the clock, with positions to look up there
	pages        *batch.Queue[*pageRequest, pageAnswer]
	backlogs     *batch.Queue[*backlogRequest, map[backlogID]*backlog]
	kick         chan struct{} // holds a token if a probe is wanted immediately
	searchWanted chan struct{} // holds a token if a search for the history is wanted

	mu    sync.Mutex
	feed  *feed.Feed               // delivered items
	rooms map[string]*subscription // subscriptions, by name within the epoch
	gen   *generation              // nil between two
	// The condition of Redis.
	downSince time.Time // of the first failure since the last success; zero if none
	downCause error
	denied    error         // why it refused the last call; nil if it did not
	unusable  error         // which of the keys that all rooms need cannot be read; nil if all can
	probeSent time.Time     // when the last probe was
	probeDue  time.Time     // when a pending probe must have returned; zero if none is pending
	probed    time.Time     // when the last one returned
	roundTrip time.Duration // of the last probe
	counts    bool          // the server counts the subscribers that a probe reaches

	newer atomic.Int64 // Unix time in nanoseconds at which a newer wire version was last received
	stats *counters
}

func (a *Adapter) newPartition(o Options, number uint16, tag string) *partition {
	limit := cmp.Or(o.BacklogLimit, 1000)
	p := &partition{
		number:       number,
		node:         o.Node,
		names:        newNames(cmp.Or(o.Prefix, "rejoin:"), tag),
		pubsub:       plain,
		log:          o.Logger,
		timeout:      cmp.Or(o.Timeout, 3*time.Second),
		limit:        max(limit, 0),
		tried:        readBytes / max(o.Partitions, 1),
		entries:      cmp.Or(o.ReplayEntries, 20_000),
		replay:       cmp.Or(o.ReplayBytes, 256<<20) / max(o.Partitions, 1), // a replay reads all of them concurrently
		life:         cmp.Or(o.BacklogTTL, time.Hour),
		keep:         cmp.Or(o.ClockTTL, 10*time.Minute),
		probing:      cmp.Or(o.ProbeInterval, time.Second),
		ctx:          a.ctx,
		linking:      make(chan struct{}, 1),
		queue:        a.queue,
		inbox:        a.inbox,
		messagesLost: a.messagesLost,
		kick:         make(chan struct{}, 1),
		searchWanted: make(chan struct{}, 1),
		rooms:        make(map[string]*subscription),
		stats:        a.counters,
	}
	if o.Redis.Form() == redisurl.Cluster {
		p.pubsub = sharded
	}
	if o.Partitions > 1 {
		p.log = p.log.With(zap.Uint16("partition", number))
	}
	p.sampled = p.log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, time.Second, 10, 0)
	}))
	p.outbox = batch.New[content, outcome](p.ctx, batch.Options{MaxItems: outboxItems, MaxBytes: outboxBytes, Patience: p.timeout})
	p.heads = batch.New[[]adapter.Position, adapter.Cursor](p.ctx, batch.Options{})
	p.pages = batch.New[*pageRequest, pageAnswer](p.ctx, batch.Options{})
	p.backlogs = batch.New[*backlogRequest, map[backlogID]*backlog](p.ctx, batch.Options{})
	p.pace.timeout, p.pace.turns = p.timeout, a.slow
	key := p.names.epoch()
	p.primary = func(ctx context.Context) (*goredis.Options, error) { return o.Redis.Primary(ctx, key) }
	p.feed = p.newFeed()
	// Subscriptions that need no member.
	always := []string{probe(p.node), listsName}
	if nodes := name(rooms.InNodes()); adapter.Home(nodes, o.Partitions) == number {
		always = append(always, nodes)
	}
	for _, name := range always {
		p.listen(name).members = 1
		p.feed.From(name, adapter.Position{})
	}
	return p
}

// maxSkew is how far the clocks of a primary and of the one before it may differ: positions never go
// back, but events expire by the clock of the server that stored them.
const maxSkew = 5 * time.Second

// cursorTTL is the age by the clock of Redis up to which a position proves something: an event behind
// it has not expired.
func (p *partition) cursorTTL() time.Duration { return p.life - min(p.life/10, maxSkew) }

// failed records that a call that began at some time failed because Redis was unavailable.
func (p *partition) failed(err error, began time.Time) {
	if p.ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	first := p.downSince.IsZero()
	if first {
		p.downSince = began
	}
	p.downCause = err
	p.mu.Unlock()
	if first {
		p.log.Warn("Redis unreachable, retrying", zap.Error(err))
	}
}

// worked records that a call succeeded.
func (p *partition) worked() {
	p.mu.Lock()
	since := p.downSince
	p.downSince, p.downCause = time.Time{}, nil
	p.mu.Unlock()
	if !since.IsZero() {
		p.log.Info("Redis reachable again", zap.Duration("after", time.Since(since).Round(time.Millisecond)))
	}
}

// answered records Redis' reply to the last call: nil if the call was executed, otherwise the
// reason for the refusal.
func (p *partition) answered(denied error) {
	p.mu.Lock()
	before := p.denied
	p.denied = denied
	p.mu.Unlock()
	switch {
	case denied != nil && (before == nil || before.Error() != denied.Error()):
		p.log.Warn("Redis refuses events", zap.Error(denied))
	case denied == nil && before != nil:
		p.log.Info("Redis accepts events again")
	}
}

// down returns why publishing would fail immediately, or nil.
func (p *partition) down() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.downSince.IsZero() || time.Since(p.downSince) < p.timeout {
		return nil
	}
	return p.downCause
}

// observe records a clock entry in a reply.
func (p *partition) observe(epoch string, e feed.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.feed.Observe(epoch, e, time.Now())
}

// newerFor is how long a node that received a newer wire version is not ready.
const newerFor = time.Minute

// meets records that a peer has sent data of a newer wire version, if err says so. Events in
// a backlog do not count, because their node may have left.
func (p *partition) meets(err error) {
	if !errors.Is(err, adapter.ErrNewerVersion) {
		return
	}
	p.stats.newer.Add(1)
	if last := p.newer.Swap(time.Now().UnixNano()); time.Since(time.Unix(0, last)) > newerFor {
		p.log.Error("a peer runs a newer wire version; node not ready", zap.Error(err), zap.Duration("for", newerFor))
	}
}

func (p *partition) history() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.feed.Epoch()
}

// bounded returns a context for one call to Redis.
func (p *partition) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, p.timeout)
}

// isReply reports whether an error is an answer of Redis, as opposed to a missing one.
func isReply(err error) bool {
	var reply goredis.Error
	return errors.As(err, &reply) && !errors.Is(err, goredis.ErrClosed)
}
