package redis

import (
	"context"
	"fmt"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// read calls f with a client of the partition's server, again on another one
// where the first fails, until it is done or the call's time is over. So f is
// something that can be done twice.
func (p *partition) read(ctx context.Context, f func(context.Context, goredis.Cmdable) error) error {
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	for {
		l, err := p.current(ctx)
		if err == nil {
			err = f(ctx, l.reader)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w: %w", adapter.ErrUnavailable, context.Cause(ctx), err)
		case l != nil && isReply(err) && !elsewhere(err):
			return err
		case l != nil && isReply(err):
			p.unlink(l, err)
		}
		pause(ctx, relinkPause)
	}
}
