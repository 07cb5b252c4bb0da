package redis

import (
	"context"
	"errors"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
)

// Limits of the queues of one node.
const (
	feedItems  = 16384
	feedBytes  = 64 << 20
	inboxItems = 4096
	inboxBytes = 16 << 20
)

// Approximate memory, in bytes, of an event beside its payload, and of one more room of it without
// the room's name.
const (
	eventOverhead = 512
	roomSize      = 64
)

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
		for space := g.p.queue.Full(); space != nil; space = g.p.queue.Full() {
			select {
			case <-space:
			case <-g.ctx.Done():
				return
			}
		}
	}
}

var errForked = errors.New("adapter/redis: history lacks events that this node has seen")

// testEndFixed is called, in tests, once a catch-up has fixed its end.
var testEndFixed func(*partition)

// catchUp reads the events that the feed has missed. Each single read has a deadline, but the catch-up
// has none: it may read more than the connection carries in that time, and the next attempt would read
// as much again.
func (g *generation) catchUp() error {
	p, ctx := g.p, g.ctx
	var memory []feed.Entry
	g.decide(func(f *feed.Feed) *feed.Output {
		g.since, memory = time.Now(), f.CatchUp()
		return nil
	})
	seen, err := p.look(ctx, p.positions(memory))
	if err != nil {
		return err
	}
	if testEndFixed != nil {
		testEndFixed(p)
	}
	var plan feed.Plan
	if !g.decide(func(f *feed.Feed) *feed.Output {
		plan, err = f.Plan(seen)
		return nil
	}) {
		return context.Cause(g.ctx)
	}
	if err != nil {
		return err
	}
	if plan.Lost != "" {
		if err := p.forked(ctx, g.epoch, plan.Lost); err != nil {
			return err
		}
		return errForked
	}
	missed, trimmed := p.missed(ctx, g.epoch, plan.After, plan.End, 0, nil)
	if trimmed != nil && !errors.Is(trimmed, adapter.ErrTrimmed) {
		return trimmed
	}
	now, err := p.now(ctx)
	if err != nil {
		return err
	}
	read := feed.Reading{Events: missed.events, Broken: missed.broken, Trimmed: trimmed, Now: now}
	g.decide(func(f *feed.Feed) *feed.Output { return f.Release(read) })
	return nil
}

// now returns the time by Redis' own clock.
func (p *partition) now(ctx context.Context) (now time.Time, err error) {
	err = p.read(ctx, func(ctx context.Context, c goredis.Cmdable) (err error) {
		now, err = c.Time(ctx).Result()
		return err
	})
	return now, err
}
