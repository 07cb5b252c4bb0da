package main

import (
	"math"
	"runtime/debug"

	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/internal/metrics"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// limits are what this node's clients can't have more of.
type limits struct {
	handshakes *limit.Handshakes
}

func newLimits(c config) limits {
	return limits{
		handshakes: limit.NewHandshakes(limit.HandshakeOptions{Rate: c.HandshakeRate}),
	}
}

func (l *limits) metrics(sockets func() socketio.Stats, budget int) metrics.Limits {
	return metrics.Limits{Refused: l.handshakes.Refused, Sockets: sockets, QueueBudget: budget}
}

// queueBudget returns how many bytes may be queued on this node.
func (c *config) queueBudget() int {
	if c.QueueBudget > 0 {
		return int(c.QueueBudget)
	}
	const otherwise = 512 << 20
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 { // which changes nothing
		return max(int(limit/4), int(c.SendQueueBytes))
	}
	return max(otherwise, int(c.SendQueueBytes))
}
