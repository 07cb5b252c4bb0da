package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
	sessions "github.com/rejoin-io/rejoin/pkg/session/redis"
)

// A cluster holds this node's connections to the other nodes. A single node has
// only the adapter.
type cluster struct {
	adapter  adapter.Adapter
	memory   *adapter.Memory // of a single node
	redis    *redis.Adapter  // nil for a single node
	sessions *sessions.Store
	calls    idempotency.Store
	policy   *policy
	key      []byte         // authenticates offsets
	closers  []func() error // in the order of closing
}

// joinPause is the time between two attempts to join a cluster, and policyPause
// that between two checks of Redis' eviction policy.
const (
	joinPause   = time.Second
	policyPause = 10 * time.Second
)

// alone returns a cluster of one node, in memory.
func alone(c config) (*cluster, error) {
	limit, ttl := c.backlogs()
	m := adapter.NewMemory(adapter.MemoryOptions{BacklogLimit: limit, BacklogTTL: ttl, BacklogBytes: c.backlogBytes()})
	a, err := m.Node(adapter.NodeID(c.NodeID))
	if err != nil {
		return nil, err
	}
	return &cluster{adapter: a, memory: m, calls: idempotency.NewMemory(idempotency.MemoryOptions{}), closers: []func() error{a.Close}}, nil
}

// join sets up the cluster: of a single node, or with the others in Redis. It retries until it
// succeeds, ctx ends, or giveUp returns true for an error.
func (n *node) join(ctx context.Context, c config, internal net.Addr, giveUp func(error) bool) (*cluster, error) {
	target := c.RedisURL.target
	if target == nil {
		return alone(c)
	}
	advertise, err := advertised(c, internal)
	if err != nil {
		return nil, err
	}
	goredis.SetLogger(redisLog{n.log.Sugar()})
	n.log.Info("joining the cluster", zap.Stringer("redis", target), zap.String("address", advertise))
	missing := func(err error) { n.health.Needs("redis", func() error { return err }) }
	missing(errors.New("joining the cluster"))
	var why repeatedError
	for {
		cl, err := tryJoin(ctx, c, advertise, n.log)
		switch {
		case err == nil:
			n.health.Needs("redis", cl.ready)
			n.running.Go(func() {
				<-cl.redis.Done() // at the latest when the node stops
				if err := cl.redis.Err(); errors.Is(err, redis.ErrTaken) {
					n.failed <- err
				}
			})
			return cl, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case giveUp(err):
			return nil, err
		}
		missing(err)
		if why.due(err, time.Now()) {
			n.log.Warn("cluster not joined, retrying", zap.Error(err))
		}
		select {
		case <-time.After(joinPause):
		case <-ctx.Done():
		}
	}
}

func tryJoin(ctx context.Context, c config, advertise string, log *zap.Logger) (*cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	target := c.RedisURL.target
	p := &policy{target: target, allowed: c.AllowEviction, log: log}
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	if err := mayRun(ctx, target, c.RedisPrefix); err != nil {
		return nil, err
	}
	limit, ttl := c.backlogs()
	a, err := redis.New(ctx, redis.Options{
		Redis:         target,
		Node:          adapter.NodeID(c.NodeID),
		Address:       advertise,
		Prefix:        c.RedisPrefix,
		Partitions:    c.partitions(),
		BacklogLimit:  limit,
		BacklogTTL:    ttl,
		ReplayBytes:   part(8, 256<<20),
		ReplayEntries: 2 * c.ReplayLimit,
		ClockTTL:      c.clockTTL(),
		Timeout:       c.RedisTimeout,
		Logger:        log,
	})
	if err != nil {
		return nil, err
	}
	client := target.Client()
	store := sessions.New(client, sessions.Options{Prefix: c.RedisPrefix})
	p.start()
	return &cluster{
		adapter: a, redis: a, sessions: store, policy: p, key: derive(c.ClusterSecret, forOffsets),
		calls:   idempotency.NewRedis(client, idempotency.RedisOptions{Prefix: c.RedisPrefix, Timeout: c.RedisTimeout}),
		closers: []func() error{store.Close, client.Close, a.Close, p.stop},
	}, nil
}

// mayRun checks that the Redis user has the rights that sessions and the API need.
// The adapter checks those for events; without it, they are more.
func mayRun(ctx context.Context, target *redisurl.Target, prefix string, more ...[]any) error {
	commands := slices.Concat(sessions.Commands(prefix), idempotency.RedisCommands(prefix), more)
	if target.Form() == redisurl.Cluster {
		commands = append(commands, []any{"command"}, []any{"asking"})
	}
	denied, err := target.Denied(ctx, commands...)
	if err != nil {
		return err
	}
	if len(denied) > 0 {
		return fmt.Errorf("%w: %s (docs/redis.md has the ACL line)", redis.ErrRights, strings.Join(denied, "; "))
	}
	return nil
}

// ready returns why this node should get no new clients, or nil.
func (cl *cluster) ready() error {
	if cl.redis == nil {
		return nil
	}
	if err := cl.policy.verdict(); err != nil {
		return err
	}
	return cl.redis.Ready()
}

func (cl *cluster) close() error {
	var errs []error
	for _, f := range cl.closers {
		if err := f(); err != nil && !errors.Is(err, goredis.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// A policy watches Redis' eviction policy. If Redis evicted a backlog, a recovery
// would report that nothing was missed.
type policy struct {
	target  *redisurl.Target
	allowed bool
	log     *zap.Logger

	cancel  context.CancelFunc
	running sync.WaitGroup
	evicts  atomic.Pointer[error]
	risks   atomic.Bool // Redis may evict keys, and that is allowed
}

func (p *policy) check(ctx context.Context) error {
	err := p.target.Check(ctx)
	evicts := errors.Is(err, redisurl.ErrEvicts)
	if risks := evicts && p.allowed; (risks || err == nil) && p.risks.Swap(risks) != risks && risks {
		p.log.Warn("Redis may evict keys, which REJOIN_ALLOW_EVICTION accepts: clients may miss events without notice", zap.Error(err))
	}
	switch {
	case evicts && p.allowed:
		return nil
	case evicts:
		err = fmt.Errorf("%w; REJOIN_ALLOW_EVICTION=true accepts that clients may miss events without notice", err)
		p.evicts.Store(&err)
	case err == nil:
		p.evicts.Store(nil)
	}
	return err
}

func (p *policy) verdict() error {
	if evicts := p.evicts.Load(); evicts != nil {
		return *evicts
	}
	return nil
}

// start checks repeatedly, because the policy can be changed while Redis runs.
func (p *policy) start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.running.Go(func() {
		for {
			select {
			case <-time.After(policyPause):
			case <-ctx.Done():
				return
			}
			ctx, cancel := context.WithTimeout(ctx, policyPause)
			_ = p.check(ctx) // the adapter reports that Redis is unavailable
			cancel()
		}
	})
}

func (p *policy) stop() error {
	p.cancel()
	p.running.Wait()
	return nil
}

// onlyWhenReady refuses new connections while the node cannot give its
// guarantees. Existing connections stay.
func onlyWhenReady(ready func() error, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known := strings.Contains(r.URL.RawQuery, "sid=") && r.URL.Query().Has("sid")
		if known || r.Method == http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		if err := ready(); err != nil {
			unavailable(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// unavailable answers that the client should retry. Clients do not get the
// reason.
func unavailable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "this node is not ready; try again", http.StatusServiceUnavailable)
}

// redisLog is go-redis' log. Everything that matters is also returned as an
// error.
type redisLog struct{ log *zap.SugaredLogger }

func (l redisLog) Printf(_ context.Context, format string, args ...any) {
	l.log.Debugf(format, args...)
}
