package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rejoin-io/rejoin/internal/forward"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
	sessions "github.com/rejoin-io/rejoin/pkg/session/redis"
)

// A Cluster provides the metrics of a node's part in a cluster. Each function is called once for
// each scrape.
type Cluster struct {
	Redis    func() redis.Stats
	Ready    func() error // nil while the node's feed works
	Sessions func() sessions.Stats
	Forward  func() forward.Stats
}

var (
	ready           = describe("redis_ready", "1 while this node's feed through Redis works, else 0; /readyz returns the reason.")
	probeAge        = describe("redis_probe_age_seconds", "Time since a probe last returned through Redis and the feed.")
	roundTrip       = describe("redis_round_trip_seconds", "Round-trip time of the last probe: publisher, Redis, feed.")
	epochInfo       = describe("redis_epoch_info", "Always 1; the label is the epoch of this node's history.", "epoch")
	subscriptions   = describe("redis_subscriptions", "Rooms to which this node is subscribed.")
	published       = describe("redis_published_total", "Events that this node has published.")
	publishSeconds  = describe("redis_publish_seconds", "Time of one publishing call to Redis.")
	publishBatch    = describe("redis_publish_batch_events", "Events in one publishing call.")
	publishRetries  = describe("redis_publish_lookups_total", "Publishing calls whose outcome had to be looked up in the clock.")
	generations     = describe("redis_subscriber_lost_total", "Lost connections of the subscriber.")
	gaps            = describe("redis_feed_gaps_total", "Gaps in the feed because events arrived faster than the node could deliver them.")
	repairs         = describe("redis_feed_repairs_total", "Gaps in the feed that were repaired from the backlogs.")
	repaired        = describe("redis_feed_repaired_events_total", "Missed events read again from the backlogs.")
	losses          = describe("redis_feed_losses_total", "Gaps in the feed that could not be repaired: clients were cut.")
	epochs          = describe("redis_histories_lost_total", "Detected losses of Redis' history.")
	messagesDropped = describe("redis_messages_dropped_total", "Messages of other nodes dropped because the queue was full.")
	malformed       = describe("redis_malformed_total", "Cluster messages and backlog entries that could not be decoded.")
	newerVersion    = describe("redis_newer_version_total", "Cluster messages of peers with a newer wire version, which make the node unready.")
	notStored       = describe("redis_not_stored_total", "Events that failed because a room's or the lists' key in Redis could not be written.")
	ahead           = describe("redis_ahead_total", "Cluster messages refused because their position was ahead of Redis' clock.")
	sessionCalls    = describe("session_pipelines_total", "Round trips to Redis for sessions.")
	sessionCommands = describe("session_commands_total", "Commands to Redis for sessions.")
	sessionWaiting  = describe("session_commands_waiting", "Queued session calls.")
	forwardOpen     = describe("forward_open", "Requests and WebSockets of other nodes' sessions that pass through this node.")
	forwardReceived = describe("forward_received", "Requests and WebSockets of this node's sessions that other nodes forward to it.")
	forwarded       = describe("forwarded_requests_total", "Requests forwarded to the node that owns their session, by outcome.", "outcome")
	forwardRefused  = describe("forward_refused_total", "Requests of other nodes that were not served, by reason.", "reason")
)

// Describe implements [prometheus.Collector].
func (c Cluster) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements [prometheus.Collector].
func (c Cluster) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	histogram := func(d *prometheus.Desc, h redis.Histogram) {
		buckets := make(map[float64]uint64, len(h.Bounds))
		for i, bound := range h.Bounds {
			buckets[bound] = h.Counts[i]
		}
		ch <- prometheus.MustNewConstHistogram(d, h.Count, h.Sum, buckets)
	}
	isReady := 0.0
	if c.Ready() == nil {
		isReady = 1
	}
	gauge(ready, isReady)

	r := c.Redis()
	gauge(probeAge, r.ProbeAge.Seconds())
	gauge(roundTrip, r.RoundTrip.Seconds())
	gauge(epochInfo, 1, r.Epoch)
	gauge(subscriptions, float64(r.Subscriptions))
	count(published, r.Published)
	histogram(publishSeconds, r.PublishSeconds)
	histogram(publishBatch, r.Batches)
	count(publishRetries, r.Retries)
	count(generations, r.Generations)
	count(gaps, r.Gaps)
	count(repairs, r.Repairs)
	count(repaired, r.Repaired)
	count(losses, r.Losses)
	count(epochs, r.Epochs)
	count(messagesDropped, r.MessagesDropped)
	count(malformed, r.Malformed)
	count(newerVersion, r.NewerVersion)
	count(notStored, r.NotStored)
	count(ahead, r.Ahead)

	s := c.Sessions()
	count(sessionCalls, s.Pipelines)
	count(sessionCommands, s.Commands)
	gauge(sessionWaiting, float64(s.Waiting))

	f := c.Forward()
	gauge(forwardOpen, float64(f.Open))
	gauge(forwardReceived, float64(f.Received))
	for outcome, n := range f.Forwarded {
		count(forwarded, n, string(outcome))
	}
	for reason, n := range f.Refused {
		count(forwardRefused, n, string(reason))
	}
}
