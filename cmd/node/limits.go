package main

import (
	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/internal/metrics"
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

func (l *limits) metrics() metrics.Limits {
	return metrics.Limits{Refused: l.handshakes.Refused}
}
