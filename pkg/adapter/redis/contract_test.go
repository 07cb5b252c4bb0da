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

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	server := redistest.Start(t)
	adaptertest.Run(t, func(t *testing.T, o adaptertest.Options) adaptertest.Cluster {
		return newCluster(t, server, Options{BacklogLimit: o.BacklogLimit})
	})
}

// A cluster is what tests have of one: a Redis server, and options for its nodes.
// Each has a prefix of its own.
type cluster struct {
	t      *testing.T
	server *redistest.Server
	o      Options
}

func newCluster(t *testing.T, server *redistest.Server, o Options) *cluster {
	t.Helper()
	target, err := redisurl.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	o.Redis, o.Prefix = target, t.Name()+":"
	return &cluster{t: t, server: server, o: o}
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
	if err := c.server.Client().FlushAll(context.Background()).Err(); err != nil {
		c.t.Errorf("FLUSHALL: %v", err)
	}
}
