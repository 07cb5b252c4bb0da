// Package metrics exports a node's metrics to Prometheus.
package metrics

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A Build identifies the running version.
type Build struct{ Version, Revision string }

// Handler serves the metrics of the process, its Go runtime and the given sources.
func Handler(build Build, sources ...prometheus.Collector) http.Handler {
	return share(promhttp.HandlerFor(registry(build, sources...), promhttp.HandlerOpts{}))
}

func registry(build Build, sources ...prometheus.Collector) *prometheus.Registry {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "rejoin_build_info",
		Help:        "Always 1; the labels identify the running version.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "go": runtime.Version()},
	})
	info.Set(1)
	r := prometheus.NewRegistry()
	r.MustRegister(
		info,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	r.MustRegister(sources...)
	return r
}

// Sockets exports the numbers of the server of the clients. stats is called once for each scrape.
func Sockets(stats func() socketio.Stats) prometheus.Collector {
	return collector[socketio.Stats]{stats, ofSockets}
}

var ofSockets = []metric[socketio.Stats]{
	gauges("connections", "Open connections.", "transport", func(s socketio.Stats) map[string]int {
		return map[string]int{"polling": s.Engine.Polling, "websocket": s.Engine.WebSocket}
	}),
	count("connections_opened_total", "Connections opened.", func(s socketio.Stats) uint64 { return s.Engine.Opened }),
	counts("connections_closed_total", "Connections closed.", "reason", func(s socketio.Stats) map[engineio.Reason]uint64 { return s.Engine.Closed }),
	counts("requests_refused_total", "Requests refused before they reached a connection, by the code of the protocol; -1 while the node drains, -2 beyond a limit.", "code", func(s socketio.Stats) map[int]uint64 { return s.Engine.Refused }),
	count("upgrades_total", "Connections upgraded from polling to WebSocket.", func(s socketio.Stats) uint64 { return s.Engine.Upgrades }),
	gauge("send_queue_bytes", "Bytes of memory of the send queues of all connections.", func(s socketio.Stats) int64 { return s.Engine.QueuedBytes }),
	count("slow_clients_total", "Connections closed because their send queue was full.", func(s socketio.Stats) uint64 { return s.Engine.SlowClients }),
	count("messages_too_large_total", "Messages and polling requests that exceeded the maximum payload.", func(s socketio.Stats) uint64 { return s.Engine.TooLarge }),
	counts("packets_total", "Engine.IO packets.", "direction", func(s socketio.Stats) map[string]uint64 { return inOut(s.Engine.PacketsIn, s.Engine.PacketsOut) }),
	counts("packet_bytes_total", "Bytes of Engine.IO packets.", "direction", func(s socketio.Stats) map[string]uint64 { return inOut(s.Engine.BytesIn, s.Engine.BytesOut) }),
	gauge("sockets", "Connected sockets, in all namespaces.", func(s socketio.Stats) int { return s.Sockets }),
	gauge("namespaces", "Namespaces.", func(s socketio.Stats) int { return s.Namespaces }),
	count("connects_total", "Sockets connected, including recovered ones.", func(s socketio.Stats) uint64 { return s.Connects }),
	counts("disconnects_total", "Sockets disconnected.", "reason", func(s socketio.Stats) map[string]uint64 { return s.Disconnects }),
	recoveries,
	count("events_in_total", "Events received from clients.", func(s socketio.Stats) uint64 { return s.EventsIn }),
	count("events_out_total", "Events published, each counted once.", func(s socketio.Stats) uint64 { return s.EventsOut }),
	count("deliveries_total", "Events queued to clients, one for each receiver.", func(s socketio.Stats) uint64 { return s.Deliveries }),
	count("replayed_events_total", "Missed events queued to recovered clients.", func(s socketio.Stats) uint64 { return s.Replayed }),
	gauge("membership_bytes", "Approximate bytes of memory of the memberships of all sockets.", func(s socketio.Stats) int { return s.MembershipBytes }),
	gauge("received_bytes", "Bytes of memory of clients' messages while they arrive and until they are handled, except incomplete messages of at most 4 KiB, and 1 KiB in each mailbox and handler.", func(s socketio.Stats) int64 { return int64(s.ReceivedBytes) + s.Engine.ReceivingBytes }),
	gauge("replay_bytes", "Bytes of missed events that recoveries hold until they are queued.", func(s socketio.Stats) int { return s.ReplayBytes }),
	count("volatile_dropped_total", "Volatile events dropped because their client was behind or Redis unavailable.", func(s socketio.Stats) uint64 { return s.VolatileDropped }),
	counts("mailbox_full_total", "Pauses of reading a connection because its events waited for handlers, by the limit that was reached; pause: the connection was closed.", "limit", func(s socketio.Stats) map[string]uint64 { return s.MailboxFull }),
	count("acks_late_total", "Acks sent before the events that their handler had published, because these had not arrived within the ack timeout.", func(s socketio.Stats) uint64 { return s.AcksLate }),
	count("callback_panics_total", "Panics of functions registered by the application; the log contains their stacks.", func(s socketio.Stats) uint64 { return s.Panics }),
	count("connects_postponed_total", "Connects to a namespace that failed for a temporary reason: the connection was closed without an answer.", func(s socketio.Stats) uint64 { return s.ConnectsPostponed }),
	count("connections_drained_total", "Connections closed because this node, or the node that forwarded them, was draining.", func(s socketio.Stats) uint64 { return s.Drained }),
}

func inOut(in, out uint64) map[string]uint64 { return map[string]uint64{"in": in, "out": out} }

var recoveriesDesc = describe("recoveries_total", "Recovery attempts of clients, by outcome and, if refused, by reason.", "outcome", "reason")

func recoveries(s socketio.Stats, ch chan<- prometheus.Metric) {
	for outcome, n := range s.Recoveries {
		labels := []string{"refused", outcome}
		if outcome == "recovered" {
			labels = []string{"recovered", ""}
		}
		ch <- prometheus.MustNewConstMetric(recoveriesDesc, prometheus.CounterValue, float64(n), labels...)
	}
}
