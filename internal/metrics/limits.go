package metrics

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// LimitStats are the numbers of a node's limits.
type LimitStats struct {
	Refused     map[string]uint64 // by the node, by limit
	Sockets     socketio.Stats    // refused by the library
	QueueBudget int               // bytes
	// By port, "public" and "internal": open TCP connections, and accepts that failed.
	Connections  map[string]int
	AcceptErrors map[string]uint64
}

// Limits exports the numbers of a node's limits. stats is called once for each scrape.
func Limits(stats func() LimitStats) prometheus.Collector {
	return collector[LimitStats]{stats, ofLimits}
}

var ofLimits = []metric[LimitStats]{
	counts("limited_total", "Requests, events and connections refused, dropped or closed because of a limit, by limit.", "limit", limited),
	gauge("send_queue_budget_bytes", "Maximum of rejoin_send_queue_bytes.", func(s LimitStats) int { return s.QueueBudget }),
	gauges("tcp_connections", "Open TCP connections, by port.", "port", func(s LimitStats) map[string]int { return s.Connections }),
	counts("accept_errors_total", "TCP connections that could not be accepted, by port.", "port", func(s LimitStats) map[string]uint64 { return s.AcceptErrors }),
}

// Memory exports the numbers of the events that a node without Redis keeps. stats is called once for
// each scrape.
func Memory(stats func() adapter.MemoryStats) prometheus.Collector {
	return collector[adapter.MemoryStats]{stats, ofMemory}
}

var ofMemory = []metric[adapter.MemoryStats]{
	gauge("memory_backlog_bytes", "Bytes of memory of the stored events; only without Redis.", func(s adapter.MemoryStats) int { return s.BacklogBytes }),
	gauge("memory_backlog_limit_bytes", "Maximum of rejoin_memory_backlog_bytes.", func(s adapter.MemoryStats) int { return s.BacklogLimit }),
}

func limited(s LimitStats) map[string]uint64 {
	refused := maps.Clone(s.Refused)
	refused["queue_budget"] = s.Sockets.Engine.BudgetCuts
	refused["rooms_per_socket"] = s.Sockets.TooManyRooms
	refused["namespaces_per_connection"] = s.Sockets.TooManyNamespaces
	maps.Copy(refused, s.Sockets.Limited)
	refused["compression"] = s.Sockets.Engine.Uncompressed
	refused["receive_budget"] += s.Sockets.Engine.ReceiveCuts
	return refused
}
