package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rejoin-io/rejoin/internal/app"
	"github.com/rejoin-io/rejoin/internal/metrics"
)

// metrics returns the node's sources of metrics beside the server and the API.
func (n *node) metrics(c config, application *app.App) []prometheus.Collector {
	l, cl := n.limits, n.cluster
	limits := func() metrics.LimitStats {
		refused := l.tally.Refused()
		if cl.memory != nil {
			refused["backlog_bytes"] = cl.memory.Stats().BacklogsDropped
		}
		return metrics.LimitStats{
			Refused: refused, Sockets: n.sockets.Stats(), QueueBudget: c.queueBudget(),
			Connections:  map[string]int{"public": l.public.Open(), "internal": l.internal.Open()},
			AcceptErrors: map[string]uint64{"public": l.public.AcceptErrors(), "internal": l.internal.AcceptErrors()},
		}
	}
	all := []prometheus.Collector{metrics.Limits(limits), metrics.Application(application.Stats), n.logDropped}
	if n.backend != nil {
		all = append(all, n.backend.Metrics()...)
	}
	if cl.redis == nil {
		return append(all, metrics.Memory(cl.memory.Stats))
	}
	return append(all, metrics.Cluster(func() metrics.ClusterStats {
		s := metrics.ClusterStats{Redis: cl.redis.Stats(), Ready: cl.ready(), Sessions: cl.sessions.Stats()}
		if n.forward != nil {
			s.Forward = n.forward.Stats()
		}
		return s
	}))
}
