package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
)

// attempts retries a call until it is known to have been executed once or never, or its time is
// over.
func (p *partition) attempts(c *call) error {
	ctx, cancel := p.bounded(p.ctx)
	defer cancel()
	var l *link // the same for all steps as long as they succeed
	for {
		began, r := time.Now(), resultUnlinked
		var err error
		if l == nil {
			l, err = p.current(ctx)
		}
		if err == nil {
			err = p.step(ctx, l, c)
			r = classify(err)
		}
		var do action
		c.state, do = c.state.after(r)
		if c.state.unsent() {
			for _, it := range c.events {
				it.Revert()
			}
		}
		switch do {
		case actionAbandon:
			p.abandoned = &l.server
			fallthrough
		case actionRelink:
			p.unlink(l, err, began)
			l = nil
		case actionRetreat:
			p.unlink(l, err, began)
			l = nil
			pause(ctx, relinkPause)
		case actionRenew:
			p.renewFor(ctx, c)
		}
		switch {
		case c.state == callSettled:
			p.worked()
			p.answered(nil)
			return nil
		case c.state.final():
			return p.failure(r, c, err)
		case p.ctx.Err() != nil:
			return context.Cause(p.ctx)
		case ctx.Err() != nil:
			return fmt.Errorf("no answer from Redis within %v: %w", p.timeout, cmp.Or(err, ctx.Err()))
		}
	}
}

// step takes the next action of a call.
func (p *partition) step(ctx context.Context, l *link, c *call) error {
	switch c.state {
	case callBehind, callDoubtful:
		return p.endAbandoned(ctx, l)
	case callBuried:
		return p.find(ctx, l, c)
	}
	return p.attempt(ctx, l, c)
}

// failure returns the error of a call that a reply has ended.
func (p *partition) failure(r result, c *call, err error) error {
	switch r {
	case resultNoClock:
		return errors.New("history lost; the event may have been published")
	case resultRefused:
		err = atKey(p.names.clock(c.epoch), err)
		p.answered(err)
		return fmt.Errorf("event refused by Redis: %w", err)
	}
	p.answered(err)
	return fmt.Errorf("publish: %w", err)
}

// renewFor searches for the history that follows the lost one of a call.
func (p *partition) renewFor(ctx context.Context, c *call) {
	p.log.Warn("history lost: its clock is missing", zap.String("epoch", c.epoch))
	c.epoch = ""
	if _, _, err := p.search(ctx); err != nil { // it can't begin a new one
		pause(ctx, relinkPause)
	}
}

// endAbandoned ensures that no call sent on the abandoned connection is executed from now on:
// neither a second time, nor after later calls.
func (p *partition) endAbandoned(ctx context.Context, l *link) error {
	if err := l.kill(ctx, *p.abandoned); err != nil {
		return err
	}
	p.abandoned = nil
	return nil
}

// find searches the clock for a call without an answer, and answers it if it is there, or else
// returns errAbsent. The call can no longer be executed. If it was sent to another server,
// writes that the server did not replicate are not part of this history.
func (p *partition) find(ctx context.Context, l *link, c *call) error {
	p.stats.retries.Add(1)
	const page = 1000
	for after := c.since; len(c.events) > 0; {
		entries, err := l.conn.XRangeN(ctx, p.names.clock(c.epoch), "("+after.ID(), "+", page).Result()
		if err != nil {
			return err
		}
		for _, m := range entries {
			if after, err = parseEntry(m); err != nil {
				return err
			}
			if after.Call == c.id {
				p.observe(c.epoch, after)
				executions, err := p.executions(ctx, l, c, after)
				if err != nil {
					return err
				}
				p.settled(c, after, func(i int) execution { return executions[i] })
				break
			}
		}
		if len(entries) < page && len(c.events) > 0 {
			return errAbsent
		}
	}
	return nil
}

// executions returns the executions of the events of a call that is in the clock. If some could not be
// stored, the next clock entry after that of the call has their indexes. An event with a once id may
// have been published by an earlier call: only its key says that.
func (p *partition) executions(ctx context.Context, l *link, c *call, e feed.Entry) ([]execution, error) {
	list := make([]execution, len(c.events))
	next, err := l.conn.XRangeN(ctx, p.names.clock(c.epoch), "("+e.ID(), "+", 1).Result()
	if err != nil {
		return nil, err
	}
	if len(next) > 0 && next[0].Values["c"] == c.id {
		failed, _ := next[0].Values["f"].(string)
		for index := range strings.SplitSeq(failed, ",") {
			if i, err := strconv.Atoi(index); err == nil && i < len(list) {
				list[i].failure = "a key could not be written"
			}
		}
	}
	values, ttls := make(map[int]*goredis.StringCmd), make(map[int]*goredis.Cmd)
	pipe := l.conn.Pipeline()
	for i, it := range c.events {
		if it.Value.once != nil && list[i].failure == "" {
			key := p.names.once(c.epoch, it.Value.once.ID)
			values[i], ttls[i] = pipe.Get(ctx, key), pipe.Do(ctx, "PTTL", key)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil && !isReply(err) {
		return nil, err
	}
	for i, cmd := range values {
		value, err := cmd.Result()
		if err != nil && !errors.Is(err, goredis.Nil) {
			return nil, err
		}
		ttl, err := ttls[i].Int64()
		if err != nil {
			return nil, err
		}
		list[i].once = &formerly{value, ttl}
	}
	return list, nil
}
