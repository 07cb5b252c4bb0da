package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// read calls f with a client of the partition's server, and retries on another one if the first
// fails, until f succeeds or the call's time is over. So f must be safe to repeat.
func (p *partition) read(ctx context.Context, f func(context.Context, goredis.Cmdable) error) error {
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	var cause error // the error beside the timeout
	for {
		began := time.Now()
		l, err := p.current(ctx)
		if err == nil {
			err = f(ctx, l.reader)
		}
		if cause == nil || ctx.Err() == nil {
			cause = err
		}
		switch {
		case err == nil:
			return nil
		case p.ctx.Err() != nil:
			return context.Cause(p.ctx)
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w: %w", adapter.ErrUnavailable, context.Cause(ctx), cause)
		case l == nil: // not connected
		case errors.Is(err, errReplica), errors.Is(err, errOtherServer), isReply(err) && elsewhere(err):
			p.unlink(l, err, began)
		case isReply(err):
			return err
		}
		pause(ctx, relinkPause)
	}
}
