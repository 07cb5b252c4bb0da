package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// lingering is the time that a room stays subscribed after its last member has left, so that
// leaving and joining again needs no new subscription.
const lingering = 2 * time.Second

// A subscription is a channel that this node is subscribed to, or will be. Most are those of rooms.
type subscription struct {
	members   int           // the number of its subscriptions
	left      time.Time     // when that fell to zero
	confirmed bool          // in the current generation
	ready     chan struct{} // closed once it is
}

// listen adds a channel. p.mu is held.
func (p *partition) listen(name string) *subscription {
	h := &subscription{ready: make(chan struct{})}
	p.rooms[name] = h
	if r, ok := parseName(name); ok {
		p.feed.Subscribe(name, r)
	}
	return h
}

// Subscribe subscribes the node to rooms, and returns the join position: the clock's newest once
// all of them are confirmed. Later events that a dying generation does not deliver are read by the
// next one's catch-up.
func (p *partition) Subscribe(ctx context.Context, list ...rooms.Room) (adapter.Cursor, error) {
	if err := p.enter(ctx); err != nil {
		return adapter.Cursor{}, err
	}
	names := namesOf(list)
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	var waits []chan struct{}
	p.mu.Lock()
	for _, name := range names {
		h := p.rooms[name]
		if h == nil {
			h = p.listen(name)
			if p.gen != nil {
				p.gen.want(name)
			}
		}
		h.members++
		if !h.confirmed {
			waits = append(waits, h.ready)
		}
	}
	p.mu.Unlock()
	err := p.confirmation(ctx, waits)
	if err == nil {
		var joined adapter.Cursor
		if joined, err = p.Head(ctx); err == nil {
			p.noteSubscribed(names, joined.At)
			return joined, nil
		}
	}
	p.Unsubscribe(list...)
	return adapter.Cursor{}, fmt.Errorf("%w: subscribe: %w", adapter.ErrUnavailable, err)
}

// noteSubscribed records the subscription of rooms from a position on.
func (p *partition) noteSubscribed(names []string, from adapter.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range names {
		p.feed.From(name, from)
	}
}

func (p *partition) confirmation(ctx context.Context, waits []chan struct{}) error {
	for _, ready := range waits {
		select {
		case <-ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
	return nil
}

func (p *partition) Unsubscribe(list ...rooms.Room) {
	names := namesOf(list)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range names {
		if h := p.rooms[name]; h != nil && h.members > 0 {
			if h.members--; h.members == 0 {
				h.left = time.Now()
			}
		}
	}
}

// A generation is one connection of the subscriber. A room counts as subscribed only once it is
// confirmed in the current generation.
type generation struct {
	p      *partition
	epoch  string
	base   string // the prefix of its rooms' channels
	server identity
	pubsub *goredis.PubSub
	ctx    context.Context
	stop   context.CancelCauseFunc
	wake   chan struct{} // holds a token if there is something to subscribe
	all    chan struct{} // closed once all earlier subscriptions are confirmed

	behind chan struct{} // holds a token if it must catch up again
	fence  chan struct{} // holds a token if a PING is to be sent

	// Guarded by p.mu.
	wanted  []string            // rooms to subscribe
	pending map[string]struct{} // channels that all waits for
	since   time.Time           // when the catch-up began
}

// runSubscriber runs one generation after another.
func (p *partition) runSubscriber() {
	said := ""
	for n := uint64(1); p.ctx.Err() == nil; n++ {
		started := time.Now()
		begun, err := p.live()
		if p.ctx.Err() != nil {
			return
		}
		if begun {
			p.stats.generations.Add(1)
		}
		if begun && (err.Error() != said || time.Since(started) > p.probing) { // logged once if it fails early with the same error
			said = err.Error()
			p.log.Warn("subscriber connection lost; missed events will be read", zap.Error(err))
		} else {
			p.log.Debug("subscriber connection failed", zap.Error(err))
		}
		pause(p.ctx, relinkPause)
	}
}

// live runs one generation, and reports whether it began.
func (p *partition) live() (begun bool, err error) {
	ctx, cancel := p.bounded(p.ctx)
	defer cancel()
	epoch, _, err := p.where(ctx)
	if err != nil {
		return false, err
	}
	o, err := p.primary(ctx)
	if err != nil {
		return false, err
	}
	g := &generation{
		p: p, epoch: epoch, base: p.names.in(epoch),
		wake: make(chan struct{}, 1), all: make(chan struct{}), behind: make(chan struct{}, 1), fence: make(chan struct{}, 1),
	}
	client := goredis.NewClient(single(p.alive(o), &g.server))
	defer func() { _ = client.Close() }()
	g.pubsub = client.Subscribe(ctx)
	g.ctx, g.stop = context.WithCancelCause(p.ctx)
	defer g.stop(nil)
	// Closing the connection ends a read.
	closed := context.AfterFunc(g.ctx, func() { _ = g.pubsub.Close() })
	defer closed()

	// The channels outside of the history come first: subscribing to them makes the connection.
	own := []string{p.names.inbox(p.node), p.names.news()}
	if err := p.pubsub.subscribe(g.pubsub, ctx, own...); err != nil {
		return false, fmt.Errorf("connecting to %s: %w", o.Addr, err)
	}
	p.begin(g, own)
	defer p.finish(g)
	// The feed and the reads belong together. The newer connection more likely leads to the server
	// that takes the writes.
	if l := p.link.Load(); l != nil && !l.server.maySame(g.server) {
		p.unlink(l, errOtherServer, time.Now())
	}
	p.running.Go(g.write)
	p.running.Go(g.keepUp)
	err = g.receive()
	if cause := context.Cause(g.ctx); cause != nil {
		return true, cause
	}
	g.stop(err)
	return true, err
}

// begin makes g the current generation.
func (p *partition) begin(g *generation, own []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gen = g
	p.probeDue = time.Time{}
	g.pending = make(map[string]struct{})
	for _, channel := range own {
		g.pending[channel] = struct{}{}
	}
	for name := range p.rooms {
		g.pending[g.base+name] = struct{}{}
		g.want(name)
	}
	p.do(p.feed.Begin(g.epoch, g.server.run))
}

// finish marks every room as unsubscribed.
func (p *partition) finish(g *generation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gen = nil
	p.feed.End()
	p.changed()
	for _, h := range p.rooms {
		if h.confirmed {
			h.confirmed, h.ready = false, make(chan struct{})
		}
	}
}

// want queues the subscription of a room. p.mu is held.
func (g *generation) want(name string) {
	g.wanted = append(g.wanted, name)
	signal(g.wake)
}

// channelsPerCall bounds one SUBSCRIBE.
const channelsPerCall = 512

// write sends pending subscriptions, and unsubscribes unneeded channels.
func (g *generation) write() {
	tick := time.NewTicker(lingering / 2)
	defer tick.Stop()
	for {
		sweep := false // examining every room takes too long to do it with each join
		select {
		case <-g.wake:
		case <-tick.C:
			sweep = true
		case <-g.fence:
			if err := g.pubsub.Ping(g.ctx); err != nil {
				g.stop(err)
				return
			}
			continue
		case <-g.ctx.Done():
			return
		}
		wanted, unneeded := g.changes(sweep)
		for _, step := range []struct {
			channels []string
			send     func(*goredis.PubSub, context.Context, ...string) error
		}{{unneeded, g.p.pubsub.unsubscribe}, {wanted, g.p.pubsub.subscribe}} {
			for rest := step.channels; len(rest) > 0; {
				n := min(len(rest), channelsPerCall)
				if err := step.send(g.pubsub, g.ctx, rest[:n]...); err != nil {
					g.stop(err)
					return
				}
				rest = rest[n:]
			}
		}
	}
}

// changes returns the channels to subscribe and to unsubscribe. The latter count as unsubscribed
// from here on.
func (g *generation) changes(sweep bool) (wanted, unneeded []string) {
	p := g.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range g.wanted {
		wanted = append(wanted, g.base+name)
	}
	g.wanted = nil
	if !sweep {
		return wanted, nil
	}
	for name, h := range p.rooms {
		if h.members == 0 && h.confirmed && time.Since(h.left) > lingering {
			delete(p.rooms, name)
			p.feed.Unsubscribe(name)
			unneeded = append(unneeded, g.base+name)
		}
	}
	return wanted, unneeded
}

var errUnsubscribed = errors.New("adapter/redis: channel unsubscribed by the server")

// receive processes the connection's messages until it ends.
func (g *generation) receive() error {
	silence := g.p.timeout + 2*g.p.probing // probes arrive more often
	for {
		got, err := g.pubsub.ReceiveTimeout(g.ctx, silence)
		if err != nil {
			return err
		}
		switch got := got.(type) {
		case *goredis.Subscription:
			if strings.HasSuffix(got.Kind, "unsubscribe") {
				if g.p.delivers(g, got.Channel) {
					return fmt.Errorf("%w: %s", errUnsubscribed, got.Channel)
				}
				continue
			}
			g.confirmed(got.Channel)
		case *goredis.Message:
			g.take(got)
		case *goredis.Pong:
			g.decide(func(f *feed.Feed) *feed.Output { return f.Pong(g.p.space()) })
		}
	}
}

// delivers reports whether the events of a channel are delivered.
func (p *partition) delivers(g *generation, channel string) bool {
	name, ok := strings.CutPrefix(channel, g.base)
	if !ok {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.rooms[name]
	return h != nil && h.confirmed
}

func (g *generation) confirmed(channel string) {
	p := g.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if name, ok := strings.CutPrefix(channel, g.base); ok {
		if h := p.rooms[name]; h != nil && !h.confirmed {
			h.confirmed = true
			close(h.ready)
		}
	} else if channel == p.names.inbox(p.node) {
		p.messagesLost() // until now
	}
	if g.pending == nil {
		return
	}
	delete(g.pending, channel)
	if len(g.pending) == 0 {
		g.pending = nil
		close(g.all)
	}
}

func (g *generation) take(m *goredis.Message) {
	p := g.p
	switch name, ok := strings.CutPrefix(m.Channel, g.base); {
	case ok:
		end := max(strings.IndexAny(m.Payload, " ~"), 0) // see wire.go
		position, err := p.parsePosition(m.Payload[:end])
		if err != nil {
			g.decide(func(f *feed.Feed) *feed.Output { return f.Malformed(name, err) })
			return
		}
		g.arrived(feed.Message{Name: name, At: position, More: m.Payload[end] == '~', Payload: m.Payload[end+1:]})
	case m.Channel == p.names.news():
		if m.Payload != g.epoch {
			signal(p.searchWanted)
		}
	case m.Channel == p.names.inbox(p.node):
		message, err := decodeMessage(m.Payload)
		if err != nil {
			p.malformed(m.Channel, err)
		} else if p.inbox.Full() != nil {
			p.stats.messagesDropped.Add(1)
			p.messagesLost()
		} else {
			p.inbox.Put(message, len(message.Data))
		}
	}
}
