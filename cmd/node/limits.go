package main

import (
	"maps"
	"math"
	"runtime/debug"

	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/internal/metrics"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// limits are what this node's clients can't have more of.
type limits struct {
	handshakes *limit.Handshakes
	events     *limit.Events
	waiting    *limit.Waiting
	reads      *limit.Reads
}

func newLimits(c config) limits {
	return limits{
		handshakes: limit.NewHandshakes(limit.HandshakeOptions{
			Rate: c.HandshakeRate, IPRate: c.IPHandshakeRate, IPConnections: c.IPConnections,
		}),
		events: limit.NewEvents(limit.EventOptions{
			SocketEvents: c.SocketEventRate, SocketBytes: int(c.SocketByteRate),
			UserEvents: c.UserEventRate, UserBytes: int(c.UserByteRate),
			LargestEvent: int(c.MaxPayload),
		}),
		waiting: limit.NewWaiting(c.IdleConnections),
		reads:   limit.NewReads(),
	}
}

func (l *limits) refused() map[string]uint64 {
	all := l.handshakes.Refused()
	maps.Copy(all, l.events.Refused())
	maps.Copy(all, l.waiting.Refused())
	maps.Copy(all, l.reads.Refused())
	return all
}

func (l *limits) metrics(sockets func() socketio.Stats, budget int) metrics.Limits {
	return metrics.Limits{Refused: l.refused, Sockets: sockets, QueueBudget: budget}
}

// queueBudget returns how many bytes may be queued on this node.
func (c *config) queueBudget() int {
	budget := 512 << 20
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 { // asks, and changes nothing
		budget = int(limit / 4)
	}
	if c.QueueBudget > 0 {
		budget = int(c.QueueBudget)
	}
	return max(budget, int(c.SendQueueBytes))
}
