package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rejoin-io/rejoin/internal/health"
)

// Health exports whether a node is ready and whether it is draining.
func Health(state *health.State) prometheus.Collector {
	return collector[*health.State]{func() *health.State { return state }, ofHealth}
}

var ofHealth = []metric[*health.State]{
	gauge("ready", "1 while /readyz answers 200, else 0; /readyz returns the reason.", func(s *health.State) int { return flag(s.IsReady()) }),
	gauge("draining", "1 from the begin of a drain, or of a stop without one, until the node ends.", func(s *health.State) int { return flag(s.IsDraining()) }),
}

func flag(set bool) int {
	if set {
		return 1
	}
	return 0
}
