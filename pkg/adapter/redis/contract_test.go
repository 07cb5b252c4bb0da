package redis

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/adaptertest"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
)

func TestMain(m *testing.M) {
	// It sleeps for a second before it detects that its pool is closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

func TestContract(t *testing.T) {
	t.Parallel() // much of it is waiting
	server := redistest.Start(t)
	contract(t, server.URL(), Options{}, func() []*redistest.Server { return []*redistest.Server{server} })
}

// A service that does not report the identities of servers and connections.
func TestContractOfAnAnonymousServer(t *testing.T) {
	t.Parallel() // much of it is waiting
	server := redistest.Start(t, ways["Anonymous"]...)
	contract(t, server.URL(), Options{}, func() []*redistest.Server { return []*redistest.Server{server} })
}

func TestContractWithSentinels(t *testing.T) {
	t.Parallel() // much of it is waiting
	sentinels := redistest.StartSentinels(t)
	contract(t, sentinels.URL(), Options{}, func() []*redistest.Server { return []*redistest.Server{sentinels.Primary()} })
}

func TestContractInACluster(t *testing.T) {
	t.Parallel() // much of it is waiting
	c := redistest.StartCluster(t)
	contract(t, c.URL(), Options{}, c.Masters)
}

func TestContractInPartitions(t *testing.T) {
	t.Parallel() // much of it is waiting
	server := redistest.Start(t)
	servers := func() []*redistest.Server { return []*redistest.Server{server} }
	adaptertest.RunPartitions(t, func(t *testing.T, ao adaptertest.Options) adaptertest.Cluster {
		return newCluster(t, server.URL(), servers, Options{Partitions: 3, BacklogLimit: ao.BacklogLimit, BacklogTTL: ao.BacklogTTL})
	})
}

func contract(t *testing.T, url string, o Options, servers func() []*redistest.Server) {
	adaptertest.Run(t, func(t *testing.T, ao adaptertest.Options) adaptertest.Cluster {
		o.BacklogLimit, o.BacklogTTL = ao.BacklogLimit, ao.BacklogTTL
		return newCluster(t, url, servers, o)
	})
	t.Run("newcomers", func(t *testing.T) { findNewcomers(t, newCluster(t, url, servers, o)) })
}

// A cluster is the address of its Redis, and options for its nodes. Each has a prefix of
// its own.
type cluster struct {
	t       *testing.T
	servers func() []*redistest.Server // servers that take writes
	o       Options
}

func newCluster(t *testing.T, url string, servers func() []*redistest.Server, o Options) *cluster {
	t.Helper()
	target, err := redisurl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	o.Redis, o.Prefix = target, t.Name()+":"
	return &cluster{t: t, servers: servers, o: o}
}

func (c *cluster) Node(id adapter.NodeID) (adapter.Adapter, error) {
	o := c.o
	o.Node, o.Logger = id, zaptest.NewLogger(c.t).Named(string(id))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a, err := New(ctx, o)
	if err != nil {
		return nil, err // an untyped nil
	}
	return a, nil
}

func (c *cluster) Reset() {
	for _, s := range c.servers() {
		if err := s.Client().FlushAll(context.Background()).Err(); err != nil {
			c.t.Errorf("FLUSHALL: %v", err)
		}
	}
}
