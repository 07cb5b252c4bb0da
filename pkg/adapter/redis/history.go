package redis

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/batch"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
)

//go:embed renew.lua
var renewSource string

// where returns the current history as this node knows it, and its newest known entry. It asks
// Redis only if the node does not know a history yet.
func (p *partition) where(ctx context.Context) (epoch string, known feed.Entry, err error) {
	p.mu.Lock()
	epoch, known = p.feed.Epoch(), p.feed.Known()
	p.mu.Unlock()
	if epoch != "" {
		return epoch, known, nil
	}
	return p.search(ctx)
}

// search asks Redis for the current history and makes it the node's. It begins a new history if
// there is none or it has no clock. It also does so if the node has left that history, because
// then the later one is lost.
func (p *partition) search(ctx context.Context) (epoch string, newest feed.Entry, err error) {
	var before string // the node's history when Redis was asked
	err = p.read(ctx, func(ctx context.Context, c goredis.Cmdable) error {
		for {
			before = p.history()
			epoch, err = c.Get(ctx, p.names.epoch()).Result()
			if err != nil && !errors.Is(err, goredis.Nil) {
				return atKey(p.names.epoch(), err)
			}
			if epoch != "" && !p.hasLeft(epoch) {
				entries, err := c.XRevRangeN(ctx, p.names.clock(epoch), "+", "-", 1).Result()
				if err != nil {
					return atKey(p.names.clock(epoch), err)
				}
				if len(entries) > 0 {
					newest, err = parseEntry(entries[0])
					return err
				}
			}
			if err := p.renew(ctx, c, epoch); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return "", feed.Entry{}, fmt.Errorf("adapter/redis: looking for the history: %w", err)
	}
	if !p.adopt(before, epoch, newest) {
		return p.where(ctx) // another search was later
	}
	return epoch, newest, nil
}

// hasLeft reports whether the node was in a history and has left it.
func (p *partition) hasLeft(epoch string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.feed.HasLeft(epoch)
}

// renew replaces a lost history by a new one, unless another node has done so.
func (p *partition) renew(ctx context.Context, c goredis.Cmdable, lost string) error {
	next := rand.Text()[:8]
	keys := []string{p.names.epoch(), p.names.clock(lost), p.names.clock(next)}
	return p.pubsub.renew.Run(ctx, c, keys, lost, next, p.names.news()).Err()
}

// runNews searches for the history when a new one is announced, one search at a time.
func (p *partition) runNews() {
	for {
		select {
		case <-p.searchWanted:
		case <-p.ctx.Done():
			return
		}
		ctx, cancel := p.bounded(p.ctx)
		_, _, _ = p.search(ctx) // if it fails, the next probe retries
		cancel()
	}
}

// adopt makes a history the node's, unless the node's history has changed and is no longer
// before.
func (p *partition) adopt(before, epoch string, newest feed.Entry) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	adopted, out := p.feed.Adopt(before, epoch, newest, time.Now())
	p.do(out)
	return adopted
}

// forked begins a new history because the current one is proved to have lost a position that was
// issued.
func (p *partition) forked(ctx context.Context, epoch, proof string) error {
	p.lost(epoch, proof)
	err := p.read(ctx, func(ctx context.Context, c goredis.Cmdable) error { return p.renew(ctx, c, epoch) })
	if err != nil {
		return err
	}
	_, _, err = p.search(ctx)
	return err
}

func (p *partition) lost(epoch, proof string) {
	p.log.Warn("Redis has lost part of the history", zap.String("epoch", epoch), zap.String("proof", proof))
}

// Head returns the newest position, and an error if one of seen is proved not to be of the current
// history. Callers share the reads of the clock: one that arrives during a read waits for the next,
// because the current one may have been executed already.
func (p *partition) Head(ctx context.Context, seen ...adapter.Position) (adapter.Cursor, error) {
	if err := p.enter(ctx); err != nil {
		return adapter.Cursor{}, err
	}
	return p.heads.Do(ctx, seen, 0)
}

// runHeads answers pending requests until the adapter closes.
func (p *partition) runHeads() { p.heads.Serve(nil, p.answerHeads) }

func (p *partition) answerHeads(all []*batch.Request[[]adapter.Position, adapter.Cursor]) {
	ctx, cancel := p.bounded(p.ctx)
	defer cancel()
	var seen []adapter.Position
	for _, r := range all {
		seen = append(seen, r.Value...)
	}
	look, err := p.look(ctx, seen)
	for _, r := range all {
		if err != nil {
			r.Fail(err)
			continue
		}
		var lost error
		for _, at := range r.Value {
			if lost = look.Verdict(at); lost != nil {
				break
			}
		}
		r.Answer(adapter.Cursor{Epoch: look.Epoch, At: look.Newest.End(p.number)}, lost)
	}
}

// look reads epoch and clock in one transaction, and looks positions up in the clock. Afterwards the
// node's history is the current one.
func (p *partition) look(ctx context.Context, positions []adapter.Position) (*feed.Look, error) {
	for {
		epoch, _, err := p.where(ctx)
		if err != nil {
			return nil, err
		}
		seen, err := p.lookFor(ctx, epoch, positions)
		if err != nil {
			return nil, fmt.Errorf("adapter/redis: reading the clock: %w", err)
		}
		if seen != nil {
			p.observe(epoch, seen.Newest)
			return seen, nil
		}
		if _, _, err := p.search(ctx); err != nil {
			return nil, err
		}
	}
}

// lookFor returns nil if the history is not the current one, or has no clock.
func (p *partition) lookFor(ctx context.Context, epoch string, positions []adapter.Position) (seen *feed.Look, err error) {
	err = p.read(ctx, func(ctx context.Context, c goredis.Cmdable) (err error) {
		seen, err = p.lookAt(ctx, c, epoch, positions)
		return err
	})
	return seen, err
}

func (p *partition) lookAt(ctx context.Context, c goredis.Cmdable, epoch string, positions []adapter.Position) (*feed.Look, error) {
	clock := p.names.clock(epoch)
	asked := make(map[string]*goredis.XMessageSliceCmd)
	var current *goredis.StringCmd
	var first, last *goredis.XMessageSliceCmd
	var sizes *goredis.MapStringStringCmd
	err := p.atPrimary(ctx, c, func(tx goredis.Pipeliner) {
		current = tx.Get(ctx, p.names.epoch())
		first = tx.XRangeN(ctx, clock, "-", "+", 1)
		last = tx.XRevRangeN(ctx, clock, "+", "-", 1)
		sizes = tx.HGetAll(ctx, p.names.sizes(epoch))
		for _, at := range positions {
			id := feed.EntryOf(at).ID()
			if asked[id] == nil {
				asked[id] = tx.XRangeN(ctx, clock, id, id, 1)
			}
		}
	})
	if isWrongType(sizes.Err()) {
		return nil, atKey(p.names.sizes(epoch), sizes.Err())
	}
	if err != nil {
		return nil, err
	}
	if current.Val() != epoch || len(last.Val()) == 0 {
		return nil, nil
	}
	p.sizes.read(sizes.Val())
	l := &feed.Look{Epoch: epoch, Found: make(map[string]feed.Entry)}
	if l.Oldest, err = parseEntry(first.Val()[0]); err != nil {
		return nil, err
	}
	if l.Newest, err = parseEntry(last.Val()[0]); err != nil {
		return nil, err
	}
	for id, cmd := range asked {
		if len(cmd.Val()) > 0 {
			if l.Found[id], err = parseEntry(cmd.Val()[0]); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}
