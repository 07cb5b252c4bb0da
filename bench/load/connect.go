package main

import (
	"context"
	"time"
)

// measureConnect connects a fleet to one node of a cluster: what a handshake, a
// CONNECT and the new session that it is answered with cost the nodes.
func measureConnect(ctx context.Context, l *loop, cl *cluster, p plan) (sample, error) {
	f := &fleet{ctx: ctx, cl: cl, p: p, loop: l}
	f.recruit()
	usage, redis, err := cl.metered(func() error { return f.connect(cl.nodes[0].addr) })
	if err != nil {
		return sample{}, err
	}
	if err := l.during(quiet); err != nil {
		return sample{}, err
	}
	return sample{Count: p.Roamers, Of: p.Roamers, Usage: usage, Redis: redis, Value: per(usage.cpu(), p.Roamers, time.Millisecond)}, nil
}
