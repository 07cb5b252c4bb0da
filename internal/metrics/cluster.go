package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rejoin-io/rejoin/internal/forward"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
	sessions "github.com/rejoin-io/rejoin/pkg/session/redis"
)

// ClusterStats are the numbers of a node's part in a cluster.
type ClusterStats struct {
	Redis    redis.Stats
	Ready    error // nil while the node's feed works
	MayEvict bool
	Sessions sessions.Stats
	Forward  forward.Stats
}

// Cluster exports the numbers of a node's part in a cluster. stats is called once for each scrape.
func Cluster(stats func() ClusterStats) prometheus.Collector {
	return collector[ClusterStats]{stats, ofCluster}
}

var ofCluster = []metric[ClusterStats]{
	gauge("redis_ready", "1 while this node's feed through Redis works, else 0; /readyz returns the reason.", func(s ClusterStats) int { return flag(s.Ready == nil) }),
	gauge("redis_may_evict", "1 while Redis may evict keys, which REJOIN_ALLOW_EVICTION accepts, else 0.", func(s ClusterStats) int { return flag(s.MayEvict) }),
	gauge("redis_probe_age_seconds", "Time since a probe last returned through Redis and the feed.", func(s ClusterStats) float64 { return s.Redis.ProbeAge.Seconds() }),
	gauge("redis_round_trip_seconds", "Round-trip time of the last probe: publisher, Redis, feed.", func(s ClusterStats) float64 { return s.Redis.RoundTrip.Seconds() }),
	gauges("redis_epoch_info", "Always 1; the label is the epoch of this node's history.", "epoch", func(s ClusterStats) map[string]int { return map[string]int{s.Redis.Epoch: 1} }),
	gauge("redis_subscriptions", "Rooms to which this node is subscribed.", func(s ClusterStats) int { return s.Redis.Subscriptions }),
	count("redis_published_total", "Events that this node has published.", func(s ClusterStats) uint64 { return s.Redis.Published }),
	histogram("redis_publish_seconds", "Time of one publishing call to Redis.", func(s ClusterStats) redis.Histogram { return s.Redis.PublishSeconds }),
	histogram("redis_publish_batch_events", "Events in one publishing call.", func(s ClusterStats) redis.Histogram { return s.Redis.Batches }),
	count("redis_publish_lookups_total", "Publishing calls whose outcome had to be looked up in the clock.", func(s ClusterStats) uint64 { return s.Redis.Retries }),
	count("redis_subscriber_lost_total", "Lost connections of the subscriber.", func(s ClusterStats) uint64 { return s.Redis.Generations }),
	count("redis_feed_gaps_total", "Gaps in the feed because events arrived faster than the node could deliver them.", func(s ClusterStats) uint64 { return s.Redis.Gaps }),
	count("redis_feed_repairs_total", "Gaps in the feed that were repaired from the backlogs.", func(s ClusterStats) uint64 { return s.Redis.Repairs }),
	count("redis_feed_repaired_events_total", "Missed events read again from the backlogs.", func(s ClusterStats) uint64 { return s.Redis.Repaired }),
	count("redis_feed_losses_total", "Gaps in the feed that could not be repaired: clients were cut.", func(s ClusterStats) uint64 { return s.Redis.Losses }),
	count("redis_histories_lost_total", "Detected losses of Redis' history.", func(s ClusterStats) uint64 { return s.Redis.Epochs }),
	count("redis_messages_dropped_total", "Messages of other nodes dropped because the queue was full.", func(s ClusterStats) uint64 { return s.Redis.MessagesDropped }),
	count("redis_malformed_total", "Cluster messages and backlog entries that could not be decoded.", func(s ClusterStats) uint64 { return s.Redis.Malformed }),
	count("redis_newer_version_total", "Cluster messages of peers with a newer wire version, which make the node unready.", func(s ClusterStats) uint64 { return s.Redis.NewerVersion }),
	count("redis_not_stored_total", "Events that failed because a room's or the lists' key in Redis could not be written.", func(s ClusterStats) uint64 { return s.Redis.NotStored }),
	count("redis_ahead_total", "Cluster messages refused because their position was ahead of Redis' clock.", func(s ClusterStats) uint64 { return s.Redis.Ahead }),
	count("session_pipelines_total", "Round trips to Redis for sessions.", func(s ClusterStats) uint64 { return s.Sessions.Pipelines }),
	count("session_commands_total", "Commands to Redis for sessions.", func(s ClusterStats) uint64 { return s.Sessions.Commands }),
	gauge("session_commands_waiting", "Queued session calls.", func(s ClusterStats) int { return s.Sessions.Waiting }),
	gauge("forward_open", "Requests and WebSockets of other nodes' sessions that pass through this node.", func(s ClusterStats) int { return s.Forward.Open }),
	gauge("forward_received", "Requests and WebSockets of this node's sessions that other nodes forward to it.", func(s ClusterStats) int { return s.Forward.Received }),
	counts("forwarded_requests_total", "Requests forwarded to the node that owns their session, by outcome.", "outcome", func(s ClusterStats) map[forward.Outcome]uint64 { return s.Forward.Forwarded }),
	counts("forward_refused_total", "Requests of other nodes that were not served, by reason.", "reason", func(s ClusterStats) map[forward.Refusal]uint64 { return s.Forward.Refused }),
}
