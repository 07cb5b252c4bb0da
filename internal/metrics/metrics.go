// Package metrics exports a node's metrics to Prometheus.
package metrics

import (
	"net/http"
	"runtime"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A Build identifies the running version.
type Build struct{ Version, Revision string }

// Handler serves the metrics of one server, of its process and its Go runtime, and those of more.
// stats is called once for each scrape.
func Handler(build Build, stats func() socketio.Stats, more ...prometheus.Collector) http.Handler {
	r := registry(build, stats)
	r.MustRegister(more...)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

func registry(build Build, stats func() socketio.Stats) *prometheus.Registry {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "rejoin_build_info",
		Help:        "Always 1; the labels identify the running version.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "go": runtime.Version()},
	})
	info.Set(1)
	r := prometheus.NewRegistry()
	r.MustRegister(
		info,
		collector(stats),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// A collector turns a server's snapshot into metrics. All numbers of a scrape
// come from one snapshot.
type collector func() socketio.Stats

var (
	connections     = describe("connections", "Open connections.", "transport")
	opened          = describe("connections_opened_total", "Connections opened.")
	closed          = describe("connections_closed_total", "Connections closed.", "reason")
	refused         = describe("requests_refused_total", "Requests refused before they reached a connection, by the code of the protocol; -1 while the node drains, -2 beyond a limit.", "code")
	upgrades        = describe("upgrades_total", "Connections upgraded from polling to WebSocket.")
	queueBytes      = describe("send_queue_bytes", "Bytes of memory of the send queues of all connections.")
	slowClients     = describe("slow_clients_total", "Connections closed because their send queue was full.")
	tooLarge        = describe("messages_too_large_total", "Messages and polling requests that exceeded the maximum payload.")
	packets         = describe("packets_total", "Engine.IO packets.", "direction")
	packetBytes     = describe("packet_bytes_total", "Bytes of Engine.IO packets.", "direction")
	sockets         = describe("sockets", "Connected sockets, in all namespaces.")
	namespaces      = describe("namespaces", "Namespaces.")
	connects        = describe("connects_total", "Sockets connected, including recovered ones.")
	disconnects     = describe("disconnects_total", "Sockets disconnected.", "reason")
	recoveries      = describe("recoveries_total", "Recovery attempts of clients, by outcome and, if refused, by reason.", "outcome", "reason")
	eventsIn        = describe("events_in_total", "Events received from clients.")
	eventsOut       = describe("events_out_total", "Events published, each counted once.")
	deliveries      = describe("deliveries_total", "Events queued to clients, one for each receiver.")
	replayed        = describe("replayed_events_total", "Missed events queued to recovered clients.")
	membershipBytes = describe("membership_bytes", "Approximate bytes of memory of the memberships of all sockets.")
	receivedBytes   = describe("received_bytes", "Bytes of memory of clients' messages while they arrive and until they are handled, beyond 4 KiB of each incomplete message and 1 KiB in each mailbox and handler.")
	replayBytes     = describe("replay_bytes", "Bytes of missed events that recoveries hold until they are queued.")
	volatileDropped = describe("volatile_dropped_total", "Volatile events dropped because their client was behind or Redis unavailable.")
	mailboxFull     = describe("mailbox_full_total", "Pauses of reading a connection because its events waited for handlers, by the limit that was reached; pause: the connection was closed.", "limit")
	acksLate        = describe("acks_late_total", "Acks sent before the events that their handler had published, because these had not arrived within the ack timeout.")
	panics          = describe("callback_panics_total", "Panics of functions registered by the application; the log contains their stacks.")
	postponed       = describe("connects_postponed_total", "Connects to a namespace that failed for a temporary reason: the connection was closed without an answer.")
	drained         = describe("connections_drained_total", "Connections closed because this node, or the node that forwarded them, was draining.")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("rejoin_"+name, help, labels, nil)
}

// Describe implements [prometheus.Collector].
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements [prometheus.Collector].
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}

	gauge(connections, float64(s.Engine.Polling), "polling")
	gauge(connections, float64(s.Engine.WebSocket), "websocket")
	count(opened, s.Engine.Opened)
	for reason, n := range s.Engine.Closed {
		count(closed, n, string(reason))
	}
	for code, n := range s.Engine.Refused {
		count(refused, n, strconv.Itoa(code))
	}
	count(upgrades, s.Engine.Upgrades)
	gauge(queueBytes, float64(s.Engine.QueuedBytes))
	count(slowClients, s.Engine.SlowClients)
	count(tooLarge, s.Engine.TooLarge)
	count(packets, s.Engine.PacketsIn, "in")
	count(packets, s.Engine.PacketsOut, "out")
	count(packetBytes, s.Engine.BytesIn, "in")
	count(packetBytes, s.Engine.BytesOut, "out")

	gauge(sockets, float64(s.Sockets))
	gauge(namespaces, float64(s.Namespaces))
	count(connects, s.Connects)
	for reason, n := range s.Disconnects {
		count(disconnects, n, reason)
	}
	for outcome, n := range s.Recoveries {
		if outcome == "recovered" {
			count(recoveries, n, "recovered", "")
		} else {
			count(recoveries, n, "refused", outcome)
		}
	}
	count(eventsIn, s.EventsIn)
	count(eventsOut, s.EventsOut)
	count(deliveries, s.Deliveries)
	count(replayed, s.Replayed)
	gauge(replayBytes, float64(s.ReplayBytes))
	gauge(receivedBytes, float64(s.ReceivedBytes)+float64(s.Engine.ReceivingBytes))
	gauge(membershipBytes, float64(s.MembershipBytes))
	count(volatileDropped, s.VolatileDropped)
	for limit, n := range s.MailboxFull {
		count(mailboxFull, n, limit)
	}
	count(acksLate, s.AcksLate)
	count(drained, s.Drained)
	count(panics, s.Panics)
	count(postponed, s.ConnectsPostponed)
}
