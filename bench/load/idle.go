package main

import (
	"context"
	"fmt"
)

// measureIdle opens connections, leaves them idle, and measures the resident
// memory of the server for each.
func measureIdle(ctx context.Context, l *loop, cl *cluster, p plan) (sample, error) {
	s := cl.nodes[0]
	before, err := residentKiB(s.pid)
	if err != nil {
		return sample{}, err
	}
	conns, err := l.dial(ctx, s.addr, p.Idle)
	if err != nil {
		return sample{}, err
	}
	for _, c := range conns {
		c.handle = func(message []byte) error { return fmt.Errorf("idle client got %.200q", message) }
	}
	// Time to collect what the handshakes left behind.
	usage, _, err := cl.metered(func() error { return l.during(p.Settle) })
	if err != nil {
		return sample{}, err
	}
	after, err := residentKiB(s.pid)
	return sample{Value: float64(after-before) / float64(p.Idle), Count: p.Idle, Usage: usage}, err
}
