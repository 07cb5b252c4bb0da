package main

import (
	"context"
	"crypto/rand"
	"errors"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/metrics"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
)

// start builds a node and accepts clients. It waits for the cluster until ctx
// ends; meanwhile the ports answer that the node is not ready. After an error
// nothing is left running. A node without an id gets one from roll, and another
// one if that is in use.
func start(ctx context.Context, c config, roll func() string, build metrics.Build, log logger) (*node, error) {
	if c.NodeID != "" {
		return startAs(ctx, c, hopeless, build, log)
	}
	for {
		c.NodeID = roll()
		n, err := startAs(ctx, c, func(err error) bool { return hopeless(err) || errors.Is(err, redis.ErrTaken) }, build, log)
		if !errors.Is(err, redis.ErrTaken) {
			return n, err
		}
		log.Info("node id already in use; taking a new one", zap.String("node", c.NodeID))
	}
}

// hopeless reports whether retrying to join a cluster is useless. An id in use is
// not hopeless: this node may have had it until a recent crash.
func hopeless(err error) bool {
	return errors.Is(err, redisurl.ErrTooOld) || errors.Is(err, redis.ErrPartitions)
}

// randomNodeID returns 4 random characters of those that a node id may have.
func randomNodeID() string { return rand.Text()[:4] }
