package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rejoin-io/rejoin/internal/app"
	"github.com/rejoin-io/rejoin/internal/metrics"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// earlyMetrics returns the sources of metrics that a node has from its start. stats are those of its
// sockets, and cl is the cluster, nil until it is joined.
func (n *node) earlyMetrics(c config, stats func() socketio.Stats, cl *cluster) []prometheus.Collector {
	l := n.limits
	limits := func() metrics.LimitStats {
		refused := l.tally.Refused()
		if cl != nil && cl.memory != nil {
			refused["backlog_bytes"] = cl.memory.Stats().BacklogsDropped
		}
		return metrics.LimitStats{
			Refused: refused, Sockets: stats(), QueueBudget: c.queueBudget(),
			Connections:  map[string]int{"public": l.public.Open(), "internal": l.internal.Open()},
			AcceptErrors: map[string]uint64{"public": l.public.AcceptErrors(), "internal": l.internal.AcceptErrors()},
		}
	}
	return append(n.backends.Metrics(), metrics.Health(n.health), metrics.Limits(limits), n.logDropped)
}

// metrics returns all sources of metrics of a node that has joined its cluster.
func (n *node) metrics(c config, application *app.App) []prometheus.Collector {
	cl := n.cluster
	all := append(n.earlyMetrics(c, n.sockets.Stats, cl), metrics.Sockets(n.sockets.Stats), metrics.Application(application.Stats))
	if n.backend != nil {
		all = append(all, n.backend.Metrics()...)
	}
	if cl.redis == nil {
		return append(all, metrics.Memory(cl.memory.Stats))
	}
	return append(all, metrics.Cluster(func() metrics.ClusterStats {
		s := metrics.ClusterStats{Redis: cl.redis.Stats(), Ready: cl.ready(), MayEvict: cl.policy.risks.Load(), Sessions: cl.sessions.Stats()}
		if n.forward != nil {
			s.Forward = n.forward.Stats()
		}
		return s
	}))
}
