package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// Another program may have overwritten a key with a value of another type. If it is the key of one
// room, only that room fails. A key that all rooms need makes the node unready, because clients
// could connect but not join, and the error names the key.

// isWrongType reports whether a reply says that a key has a value of another type.
func isWrongType(err error) bool {
	var reply goredis.Error
	return errors.As(err, &reply) && says(reply, "WRONGTYPE")
}

// atKey adds the name of a key to a reply that says that it has a value of another type.
func atKey(key string, err error) error {
	if isWrongType(err) {
		return fmt.Errorf("key %s: %w", key, err)
	}
	return err
}

// runKeyChecks reads the keys that all rooms need, periodically.
func (p *partition) runKeyChecks() {
	tick := time.NewTicker(p.probing)
	defer tick.Stop()
	for {
		if l := p.link.Load(); l != nil { // otherwise the node is not ready anyway
			p.checkKeys(p.ctx, l.reader)
		}
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			return
		}
	}
}

// checkKeys reads the keys, and records for ready which of them cannot be read.
func (p *partition) checkKeys(ctx context.Context, c goredis.Cmdable) {
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	epoch := p.history()
	cmds := make(map[string]goredis.Cmder)
	_, err := c.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
		// Each command reads little or nothing.
		cmds[p.names.epoch()] = pipe.Get(ctx, p.names.epoch())
		if epoch != "" {
			clock, lists, sizes := p.names.clock(epoch), p.names.in(epoch)+listsName, p.names.sizes(epoch)
			cmds[clock] = pipe.XRevRangeN(ctx, clock, "+", "-", 1)
			cmds[sizes] = pipe.HGet(ctx, sizes, "0")
			cmds[lists] = pipe.XRangeN(ctx, lists, "0-1", "0-1", 1)
		}
		if p.number == 0 {
			cmds[p.names.leases()] = pipe.ZRangeByScore(ctx, p.names.leases(), &goredis.ZRangeBy{Min: "0", Max: "0"})
			cmds[p.names.about()] = pipe.HGet(ctx, p.names.about(), string(p.node))
		}
		return nil
	})
	if err != nil && !isReply(err) { // the probes detect that
		return
	}
	var unusable error
	for key, cmd := range cmds {
		if err := cmd.Err(); isWrongType(err) {
			unusable = errors.Join(unusable, atKey(key, err))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.unusable
	if p.unusable = unusable; unusable != nil && before == nil {
		p.log.Warn("shared key overwritten; node not ready", zap.Error(unusable))
	}
}
