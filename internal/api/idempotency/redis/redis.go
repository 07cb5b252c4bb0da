// Package redis stores the keys of calls in Redis, for all nodes of a cluster.
//
// A key is one string, so that it has a slot of its own in a Cluster:
//
//	<prefix>i:<SHA-256 of the key, base64url>
//
// Its value begins with the id of the claim; the rest is JSON. The age of a claim is computed from
// the remaining TTL in Redis, so the nodes' clocks don't matter.
package redis

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
)

// Options configure a [Store]. Zero fields mean the defaults.
type Options struct {
	Prefix   string        // prefix of all keys; "rejoin:"
	Lifetime time.Duration // [idempotency.Lifetime]
	Timeout  time.Duration // for one call to Redis; 3 s
}

// A Store is an [idempotency.Store] in Redis.
type Store struct {
	client redis.UniversalClient
	o      Options
}

// New returns a store that uses a client, which the caller closes, and which may repeat commands
// with an unknown outcome: go-redis does so in a Cluster.
func New(client redis.UniversalClient, o Options) *Store {
	if o.Prefix == "" {
		o.Prefix = "rejoin:"
	}
	if o.Lifetime == 0 {
		o.Lifetime = idempotency.Lifetime
	}
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Second
	}
	return &Store{client, o}
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
	Call     string                `json:"call"`
	Response *idempotency.Response `json:"response,omitempty"`
}

func encode(c idempotency.Claim, r *idempotency.Response) (string, error) {
	b, err := json.Marshal(value{c.Call, r})
	return c.ID() + string(b), err
}

// Claim implements [idempotency.Store].
func (s *Store) Claim(ctx context.Context, c idempotency.Claim) (*idempotency.Record, error) {
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

func (s *Store) record(reply []any) (*idempotency.Record, error) {
	if len(reply) != 2 {
		return nil, errValue
	}
	text, isText := reply[0].(string)
	left, isNumber := reply[1].(int64)
	if !isText || !isNumber || len(text) < idempotency.IDLength {
		return nil, errValue
	}
	var v value
	if err := json.Unmarshal([]byte(text[idempotency.IDLength:]), &v); err != nil {
		return nil, errValue
	}
	age := s.o.Lifetime - time.Duration(left)*time.Millisecond
	return &idempotency.Record{Call: v.Call, Age: age, Response: v.Response}, nil
}

// Finish implements [idempotency.Store].
func (s *Store) Finish(ctx context.Context, c idempotency.Claim, r idempotency.Response) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	v, err := encode(c, &r)
	if err != nil {
		return located("finish", err)
	}
	kept, err := finish.Run(ctx, s.client, s.key(c), c.ID(), v).Bool()
	if err == nil && !kept {
		err = idempotency.ErrLost
	}
	return located("finish", err)
}

// Free implements [idempotency.Store].
func (s *Store) Free(ctx context.Context, c idempotency.Claim) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	return located("free", free.Run(ctx, s.client, s.key(c), c.ID()).Err())
}

func (s *Store) key(c idempotency.Claim) []string {
	sum := sha256.Sum256([]byte(c.Key))
	return []string{s.o.Prefix + "i:" + base64.RawURLEncoding.EncodeToString(sum[:])}
}

func located(verb string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("idempotency/redis: %s: %w", verb, err)
}

var _ idempotency.Store = (*Store)(nil)
