package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Limits of the queues of one node.
const (
	feedItems  = 16384
	feedBytes  = 64 << 20
	inboxItems = 4096
	inboxBytes = 16 << 20
	heldBytes  = 64 << 20
)

// eventOverhead is the approximate memory of an event beside its payload.
const eventOverhead = 512

// keepUp catches up when the generation begins and whenever messages had to be dropped.
func (g *generation) keepUp() {
	select {
	case <-g.all:
	case <-g.ctx.Done():
		return
	}
	for {
		if err := g.catchUp(); err != nil {
			g.stop(err)
			return
		}
		select {
		case <-g.behind:
		case <-g.ctx.Done():
			return
		}
		for space := g.p.feed.Full(); space != nil; space = g.p.feed.Full() {
			select {
			case <-space:
			case <-g.ctx.Done():
				return
			}
		}
		g.p.mu.Lock()
		g.flow = holding
		g.p.mu.Unlock()
	}
}

var errForked = errors.New("adapter/redis: the history lacks events that this node has seen")

// testEndFixed is called, in tests, once a catch-up has fixed its end.
var testEndFixed func(*partition)

// catchUp reads what the feed has missed. It is complete because of the order of its steps: all
// earlier subscriptions are confirmed, so that later events arrive; then the end is fixed; only
// then the rooms are listed, because a room joined since has its events after that end; and what
// arrived meanwhile comes last.
func (g *generation) catchUp() error {
	p := g.p
	began := time.Now()
	ctx, cancel := p.bounded(g.ctx)
	defer cancel()
	p.mu.Lock()
	memory := p.memory()
	p.mu.Unlock()
	seen, err := p.look(ctx, []*headRequest{{seen: p.positions(memory)}})
	if err != nil {
		return err
	}
	if seen.epoch != g.epoch {
		return errNewHistory
	}
	if proof := seen.lacksAny(memory); proof != "" {
		if err := p.forked(ctx, g.epoch, proof); err != nil {
			return err
		}
		return errForked
	}
	end := p.end(seen.newest)
	if testEndFixed != nil {
		testEndFixed(p)
	}

	p.mu.Lock()
	after := make(map[string]adapter.Position, len(p.rooms))
	tail, begun := p.tail, p.begun
	for name, h := range p.rooms {
		if h.room != nil && (begun || p.limit > 0) {
			after[name] = p.trail.from(g.server.run, h.from, p.tail)
		}
	}
	p.mu.Unlock()
	missed, err := p.missed(ctx, g.epoch, after, end, 0, nil)
	if err == nil && begun {
		err = p.unexpired(ctx, tail)
	}
	if err != nil && !errors.Is(err, adapter.ErrTrimmed) {
		return err
	}
	return g.release(missed, end, err, began)
}

// unexpired makes sure, after backlogs were read, that none with an event after tail can have
// expired, because it would look like a room without events. Only Redis' own time shows that; the
// newest entry of the clock may be much older.
func (p *partition) unexpired(ctx context.Context, tail adapter.Position) error {
	var now time.Time
	err := p.read(ctx, func(ctx context.Context, c goredis.Cmdable) (err error) {
		now, err = c.Time(ctx).Result()
		return err
	})
	if lag := now.Sub(tail.Time()); err == nil && lag >= p.life {
		return fmt.Errorf("%w: the feed is %v behind, and backlogs are kept for %v", adapter.ErrTrimmed, lag, p.life)
	}
	return err
}

// release puts missed and held events into the feed, in one order, and lets events pass from here
// on.
func (g *generation) release(missed missed, end adapter.Position, trimmed error, began time.Time) error {
	p := g.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if cause := context.Cause(g.ctx); cause != nil { // what was read may come from another server
		return cause
	}
	if p.gen != g || p.epoch != g.epoch {
		return errNewHistory
	}
	if c := g.coming.event; c != nil && c.Position.Compare(end) <= 0 {
		g.complete() // if it is stored, its other copies have been read
	}
	if g.flow == dropping { // too much arrived meanwhile: catch up again
		return nil
	}
	if trimmed != nil {
		p.log.Warn("gap not repaired", zap.Error(trimmed))
		p.lose("a gap in the feed can't be repaired: "+trimmed.Error(), place{g.epoch, end})
		missed.events = nil
	}
	// Losses are reported before the events that follow them.
	for name, err := range missed.broken {
		p.log.Warn("gap not repaired", zap.String("room", name), zap.Error(err))
		if r, ok := parseName(name); ok {
			p.loseRooms("a gap in the feed can't be repaired: "+err.Error(), []rooms.Room{r}, place{g.epoch, p.tail})
		}
	}
	if len(g.broken) > 0 {
		p.loseRooms(adapter.ErrUndecodable.Error(), g.broken, place{g.epoch, p.tail})
	}
	repaired, tail, hole := 0, p.tail, false
	for e := range adapter.Merge(append(missed.events, g.held)) {
		if e.Position.Compare(p.tail) <= 0 {
			if !hole && e.Position.Compare(tail) <= 0 && e.Stored && !p.trail.has(e.Position) && p.trail.server != g.server.run {
				hole = true
				p.lose("the feed of a former primary had a hole", place{g.epoch, end})
			}
			continue
		}
		p.feed.Put(fed{event: e}, eventSize(e)+listsSize(e))
		p.tail = e.Position
		repaired++
	}
	p.tail = later(p.tail, end)
	p.trail.swear(g.server.run, p.tail)
	g.flow, g.held, g.broken, g.bytes = passing, nil, nil, 0
	if p.begun {
		p.stats.repairs.Add(1)
		p.stats.repaired.Add(uint64(repaired))
		p.log.Info("caught up", zap.Int("events", repaired), zap.Duration("took", time.Since(began)))
	}
	p.begun = true
	p.probeNow()
	p.changed()
	return nil
}
