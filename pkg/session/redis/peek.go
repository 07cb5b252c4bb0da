package redis

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/session"
)

var _ session.Peeker = (*Store)(nil)

// Peek implements [session.Peeker].
func (s *Store) Peek(ctx context.Context, pid string) (session.Session, time.Duration, error) {
	ttl := redis.NewDurationCmd(ctx, time.Millisecond, "pttl", s.key(pid))
	sn, _, err := s.read(ctx, pid, item{key: s.key(pid), cmd: ttl})
	if err != nil {
		return session.Session{}, 0, located("peek", err)
	}
	left := ttl.Val()
	if left <= 0 { // it has expired between the commands, or another program has removed its expiry
		return session.Session{}, 0, session.ErrNotFound
	}
	return sn, left, nil
}
