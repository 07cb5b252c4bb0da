package redis

import (
	"math"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Package internal/feed decides which items this node delivers. The functions below report
// inputs to it and execute its decisions.

func (p *partition) newFeed() *feed.Feed {
	return feed.New(feed.Config{
		Partition: p.number,
		Stored:    p.limit > 0,
		Life:      p.life,
		Decode: func(payload string, to []rooms.Room) (*adapter.Event, bool, error) {
			p.sizes.saw(len(payload))
			return decodeEvent(payload, to, math.MaxInt)
		},
		DecodeLists: decodeLists,
		Size:        func(e *adapter.Event) int { return eventSize(e) + listsSize(e) + roomsSize(e.Target.To) },
	})
}

// decide passes an input of the generation to the feed and executes the feed's decision. It
// reports whether the generation is still the current one. The input of a former one is ignored,
// because it may come from another server.
func (g *generation) decide(input func(*feed.Feed) *feed.Output) bool {
	p := g.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if g.ctx.Err() != nil {
		return false
	}
	if out := input(p.feed); out != nil {
		p.do(out)
	}
	return true
}

// testCopy is called, in tests, after each copy of an event that others follow.
var testCopy func(*generation)

// arrived processes a message with a position. It never waits.
func (g *generation) arrived(m feed.Message) {
	g.decide(func(f *feed.Feed) *feed.Output {
		var now time.Time // most messages do not need the time
		if f.Beyond(m.At) {
			now = time.Now()
		}
		return f.Arrived(m, now, g.p.space())
	})
	if m.More && testCopy != nil {
		testCopy(g)
	}
}

// look reads the clock for the feed.
func (g *generation) look() {
	for g.ctx.Err() == nil {
		ctx, cancel := g.p.bounded(g.ctx)
		seen, err := g.p.look(ctx, nil)
		cancel()
		if err == nil {
			g.decide(func(f *feed.Feed) *feed.Output { return f.Looked(seen.Epoch, seen.Newest, time.Now(), g.p.space()) })
			return
		}
		pause(g.ctx, relinkPause)
	}
}

func (p *partition) space() feed.Space {
	items, bytes := p.queue.Space()
	return feed.Space{Items: items, Bytes: bytes}
}

// do executes a decision of the feed. p.mu is held, so items are delivered in the order of the
// decisions.
func (p *partition) do(out *feed.Output) {
	for _, it := range out.Items {
		p.queue.Put(it.Item, it.Size)
		if it.Lost != nil {
			p.stats.losses.Add(1)
		}
	}
	for _, n := range out.Notes {
		p.record(n)
	}
	if out.Probed {
		p.probed = time.Now()
		p.roundTrip = p.probed.Sub(p.probeSent)
		p.probeDue = time.Time{}
	}
	if out.Live {
		p.probeNow()
		p.changed()
	}
	g := p.gen
	if out.Ping {
		signal(g.fence)
	}
	if out.Look {
		p.running.Go(g.look) // ends when the clock has been read, or with the generation
	}
	if out.CatchUp {
		signal(g.behind)
	}
	if out.Stop != nil {
		g.stop(out.Stop)
	}
}

// record counts and logs. p.mu is held.
func (p *partition) record(n feed.Note) {
	switch n.What {
	case feed.Undecodable:
		p.malformed(n.Name, n.Err)
	case feed.Overflow:
		p.stats.gaps.Add(1)
	case feed.Ahead:
		p.stats.ahead.Add(1)
		p.sampled.Error("cluster message ahead of the clock", zap.String("channel", n.Name),
			zap.String("position", formatPosition(n.At)), zap.String("clock", formatPosition(n.Than)))
	case feed.WasAhead:
		p.stats.ahead.Add(1)
		p.sampled.Error("event was ahead of the clock", zap.String("position", formatPosition(n.At)), zap.String("clock", formatPosition(n.Than)))
	case feed.NewHistory:
		p.stats.epochs.Add(1)
		p.log.Warn("Redis has lost its history; a new one has begun", zap.String("lost", n.Name), zap.String("epoch", p.feed.Epoch()))
	case feed.Unrepaired:
		p.log.Warn("gap not repaired", zap.String("room", n.Name), zap.Error(n.Err))
	case feed.Repaired:
		p.stats.repairs.Add(1)
		p.stats.repaired.Add(uint64(n.N))
		p.log.Info("caught up", zap.Int("events", n.N), zap.Duration("took", time.Since(p.gen.since)))
	}
}

// malformed counts and logs a message that cannot be decoded.
func (p *partition) malformed(channel string, err error) {
	p.stats.malformed.Add(1)
	p.sampled.Error("undecodable cluster message", zap.String("channel", channel), zap.Error(err))
	p.meets(err)
}

// signal puts a token into a channel with space for one, unless it holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
