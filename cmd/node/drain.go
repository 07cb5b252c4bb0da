package main

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// drainReport is the interval at which the log reports the progress of a drain.
const drainReport = 5 * time.Second

// stopReserve is the part of the budget that is kept for the stop after the drain, at
// most an eighth.
const stopReserve = 500 * time.Millisecond

// handlerTime is the time for running handlers without a budget.
const handlerTime = 5 * time.Second

// drain closes the connections at the pace that the configuration sets, or until ctx ends.
// The node is no longer ready. It serves as before for the delay, in which its load
// balancer detects that; then it refuses new clients and closes its connections one by one.
// The last is closed after three quarters of the time, so that slow clients have received
// everything by the end of the budget. The remaining connections are then cut. Without a
// budget all are closed immediately, and drain waits only for handlers.
func (n *node) drain(ctx context.Context, delay, budget time.Duration) {
	n.health.Draining(n.connections)
	n.log.Info("draining: no longer ready", zap.Duration("serving_for", delay), zap.Int("connections", n.connections()))
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return
	}
	n.log.Info("draining: closing the connections", zap.Duration("within", budget), zap.Int("connections", n.connections()))
	within := budget - min(stopReserve, budget/8)
	over := within * 3 / 4
	if budget == 0 {
		within = handlerTime
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- n.drainConnections(ctx, over) }() // ends with ctx at the latest
	report := time.NewTicker(drainReport)
	defer report.Stop()
	for {
		select {
		case err := <-done:
			n.log.Info("drained", zap.Uint64("closed", n.sockets.Stats().Drained), zap.Int("connections", n.connections()), zap.Error(err))
			return
		case <-report.C:
			n.log.Info("draining", zap.Uint64("closed", n.sockets.Stats().Drained), zap.Int("connections", n.connections()))
		}
	}
}

// connections returns the number of open connections.
func (n *node) connections() int {
	st := n.sockets.Stats().Engine
	return st.Polling + st.WebSocket
}
