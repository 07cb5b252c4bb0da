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

// start builds a node and lets clients in. That waits for the cluster, as long as
// ctx lasts: meanwhile the ports answer, and say so. An error leaves nothing
// behind. A node without an id gets what roll returns, and something else if
// another node has that.
func start(ctx context.Context, c config, roll func() nodeID, build metrics.Build, log logger) (*node, error) {
	if c.NodeID != "" {
		return startAs(ctx, c, hopeless, build, log)
	}
	for {
		c.NodeID = roll()
		n, err := startAs(ctx, c, func(err error) bool { return hopeless(err) || errors.Is(err, redis.ErrTaken) }, build, log)
		if !errors.Is(err, redis.ErrTaken) {
			return n, err
		}
		log.Info("node id already in use; taking a new one", zap.String("node", string(c.NodeID)))
	}
}

// hopeless reports whether a cluster can't be joined however long one waits. That
// an id is taken can mean that this node had it until a moment ago, and crashed.
func hopeless(err error) bool {
	return errors.Is(err, redisurl.ErrTooOld) || errors.Is(err, redis.ErrPartitions)
}

// randomNodeID returns 4 of the characters that a node id is made of.
func randomNodeID() nodeID {
	return nodeID(rand.Text()[:4])
}
