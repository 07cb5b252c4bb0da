package idempotency

import (
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisOptions configure a [Redis]. Zero fields mean the defaults.
type RedisOptions struct {
	Prefix   string        // prefix of all keys; "rejoin:"
	Lifetime time.Duration // [Lifetime]
	Timeout  time.Duration // for one call to Redis; 3 s
}

// A Redis is a [Store] in Redis, for all nodes of a cluster.
//
// A key is one string, so that it has a slot of its own in a Cluster:
//
//	<prefix>i:<SHA-256 of the key, base64url>
//
// Its value begins with the id of the claim; the rest is JSON. The age of a claim is computed from
// the remaining TTL in Redis, so the nodes' clocks don't matter.
type Redis struct {
	client redis.UniversalClient
	o      RedisOptions
}

// NewRedis returns a store that uses a client, which the caller closes, and which may repeat
// commands with an unknown outcome: go-redis does so in a Cluster.
func NewRedis(client redis.UniversalClient, o RedisOptions) *Redis {
	o.Prefix = cmp.Or(o.Prefix, "rejoin:")
	o.Lifetime = cmp.Or(o.Lifetime, Lifetime)
	o.Timeout = cmp.Or(o.Timeout, 3*time.Second)
	return &Redis{client, o}
}

// RedisCommands returns the commands that a [Redis] with a prefix of its keys runs, including those
// in scripts, to check whether they are allowed.
func RedisCommands(prefix string) [][]any {
	key := prefix + "i:none"
	return [][]any{
		{"eval", "return 1", 0}, {"evalsha", claim.Hash(), 0},
		{"set", key, ""}, {"getrange", key, 0, 0}, {"pttl", key}, {"del", key},
	}
}

// The scripts, which Redis identifies by their hashes once it has run them.
var (
	//go:embed claim.lua
	claimText string
	//go:embed finish.lua
	finishText string
	//go:embed free.lua
	freeText string

	claim  = redis.NewScript(claimText)
	finish = redis.NewScript(finishText)
	free   = redis.NewScript(freeText)
)

// A value is the part of a Redis value after the id of the claim.
type value struct {
	Call     string    `json:"call"`
	Response *Response `json:"response,omitempty"`
}

func encode(c Claim, r *Response) (string, error) {
	b, err := json.Marshal(value{c.Call, r})
	return c.ID + string(b), err
}

// Claim implements [Store].
func (s *Redis) Claim(ctx context.Context, c Claim) (*Record, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	v, err := encode(c, nil)
	if err != nil {
		return nil, located("claim", err)
	}
	reply, err := claim.Run(ctx, s.client, s.key(c), v, s.o.Lifetime.Milliseconds()).Slice()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, located("claim", err)
	}
	r, err := s.record(reply)
	return r, located("claim", err)
}

var errValue = errors.New("unknown format of the value")

func (s *Redis) record(reply []any) (*Record, error) {
	if len(reply) != 2 {
		return nil, errValue
	}
	text, isText := reply[0].(string)
	left, isNumber := reply[1].(int64)
	if !isText || !isNumber || len(text) < idLength {
		return nil, errValue
	}
	var v value
	if err := json.Unmarshal([]byte(text[idLength:]), &v); err != nil {
		return nil, errValue
	}
	age := s.o.Lifetime - time.Duration(left)*time.Millisecond
	return &Record{v.Call, age, v.Response}, nil
}

// Finish implements [Store].
func (s *Redis) Finish(ctx context.Context, c Claim, r Response) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	v, err := encode(c, &r)
	if err != nil {
		return located("finish", err)
	}
	kept, err := finish.Run(ctx, s.client, s.key(c), c.ID, v).Bool()
	if err == nil && !kept {
		err = ErrLost
	}
	return located("finish", err)
}

// Free implements [Store].
func (s *Redis) Free(ctx context.Context, c Claim) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	return located("free", free.Run(ctx, s.client, s.key(c), c.ID).Err())
}

func (s *Redis) key(c Claim) []string {
	sum := sha256.Sum256([]byte(c.Key))
	return []string{s.o.Prefix + "i:" + base64.RawURLEncoding.EncodeToString(sum[:])}
}

func located(verb string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("idempotency: %s: %w", verb, err)
}

var _ Store = (*Redis)(nil)
