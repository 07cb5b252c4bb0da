package metrics

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Limits provides the metrics of a node's limits. Each function is called once for each scrape.
type Limits struct {
	Refused     func() map[string]uint64 // refused by the node, by limit
	Sockets     func() socketio.Stats    // refused by the library
	QueueBudget int                      // bytes
	Ports       func() map[string]Port   // by "public" and "internal"
	Backlogs    func() Backlogs          // nil if Redis has the backlogs
}

// Backlogs are the metrics of the events that a node without Redis keeps.
type Backlogs struct {
	BacklogBytes    int
	BacklogLimit    int    // of BacklogBytes
	BacklogsDropped uint64 // rooms that have lost their backlogs because of the limit
}

// A Port has the metrics of a node's port.
type Port struct {
	Open         int    // TCP connections
	AcceptErrors uint64 // accepts that failed
}

var (
	limited     = describe("limited_total", "Requests, events and connections refused, dropped or closed because of a limit, by limit.", "limit")
	queueBudget = describe("send_queue_budget_bytes", "Maximum of rejoin_send_queue_bytes.")

	backlogBytes = describe("memory_backlog_bytes", "Bytes of memory of the stored events; only without Redis.")
	backlogLimit = describe("memory_backlog_limit_bytes", "Maximum of rejoin_memory_backlog_bytes.")

	tcpConnections = describe("tcp_connections", "Open TCP connections, by port.", "port")
	acceptErrors   = describe("accept_errors_total", "TCP connections that could not be accepted, by port.", "port")
)

// Describe implements [prometheus.Collector].
func (l Limits) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(l, ch) }

// Collect implements [prometheus.Collector].
func (l Limits) Collect(ch chan<- prometheus.Metric) {
	refused := maps.Clone(l.Refused())
	s := l.Sockets()
	refused["queue_budget"] = s.Engine.BudgetCuts
	refused["rooms_per_socket"] = s.TooManyRooms
	refused["namespaces_per_connection"] = s.TooManyNamespaces
	maps.Copy(refused, s.Limited)
	refused["compression"] = s.Engine.Uncompressed
	refused["receive_budget"] += s.Engine.ReceiveCuts
	if l.Backlogs != nil {
		b := l.Backlogs()
		refused["backlog_bytes"] = b.BacklogsDropped
		ch <- prometheus.MustNewConstMetric(backlogBytes, prometheus.GaugeValue, float64(b.BacklogBytes))
		ch <- prometheus.MustNewConstMetric(backlogLimit, prometheus.GaugeValue, float64(b.BacklogLimit))
	}
	for limit, n := range refused {
		ch <- prometheus.MustNewConstMetric(limited, prometheus.CounterValue, float64(n), limit)
	}
	ch <- prometheus.MustNewConstMetric(queueBudget, prometheus.GaugeValue, float64(l.QueueBudget))
	for name, port := range l.Ports() {
		ch <- prometheus.MustNewConstMetric(tcpConnections, prometheus.GaugeValue, float64(port.Open), name)
		ch <- prometheus.MustNewConstMetric(acceptErrors, prometheus.CounterValue, float64(port.AcceptErrors), name)
	}
}
