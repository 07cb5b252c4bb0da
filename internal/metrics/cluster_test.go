package metrics

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/app"
	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/forward"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
	sessions "github.com/rejoin-io/rejoin/pkg/session/redis"
)

// TestCluster: each metric shows the statistic that it names.
func TestCluster(t *testing.T) {
	histogram := func(n uint64, sum float64) redis.Histogram {
		return redis.Histogram{Bounds: []float64{1}, Counts: []uint64{n}, Count: n + 1, Sum: sum}
	}
	stats := func() ClusterStats {
		return ClusterStats{
			Redis: redis.Stats{
				Epoch: "e1", Subscriptions: 1, ProbeAge: 2 * time.Second, RoundTrip: 3 * time.Second, Published: 4,
				Batches: histogram(5, 6.5), PublishSeconds: histogram(7, 8.5), Retries: 9, Generations: 10, Gaps: 11,
				Repairs: 12, Repaired: 13, Losses: 14, Epochs: 15, MessagesDropped: 16, Malformed: 17, NotStored: 18,
				Ahead: 19, NewerVersion: 20,
			},
			MayEvict: true,
			Ready:    errors.New("not ready"),
			Sessions: sessions.Stats{Pipelines: 21, Commands: 22, Waiting: 23},
			Forward: forward.Stats{
				Open: 24, Received: 25, Forwarded: map[forward.Outcome]uint64{"answered": 26}, Refused: map[forward.Refusal]uint64{"unsigned": 27},
			},
		}
	}
	application := func() app.Stats {
		return app.Stats{Forbidden: map[string]uint64{"all": 28}, RefusedTokens: map[auth.Code]uint64{"expired": 29}}
	}
	w := httptest.NewRecorder()
	Handler(Build{}, Sockets(snapshot), Cluster(stats), Application(application)).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`redis_ready 0`,
		`redis_may_evict 1`,
		`redis_probe_age_seconds 2`,
		`redis_round_trip_seconds 3`,
		`redis_epoch_info{epoch="e1"} 1`,
		`redis_subscriptions 1`,
		`redis_published_total 4`,
		`redis_publish_batch_events_bucket{le="1"} 5`,
		`redis_publish_batch_events_count 6`,
		`redis_publish_batch_events_sum 6.5`,
		`redis_publish_seconds_bucket{le="1"} 7`,
		`redis_publish_seconds_sum 8.5`,
		`redis_publish_lookups_total 9`,
		`redis_subscriber_lost_total 10`,
		`redis_feed_gaps_total 11`,
		`redis_feed_repairs_total 12`,
		`redis_feed_repaired_events_total 13`,
		`redis_feed_losses_total 14`,
		`redis_histories_lost_total 15`,
		`redis_messages_dropped_total 16`,
		`redis_malformed_total 17`,
		`redis_not_stored_total 18`,
		`redis_ahead_total 19`,
		`redis_newer_version_total 20`,
		`session_pipelines_total 21`,
		`session_commands_total 22`,
		`session_commands_waiting 23`,
		`forward_open 24`,
		`forward_received 25`,
		`forwarded_requests_total{outcome="answered"} 26`,
		`forward_refused_total{reason="unsigned"} 27`,
		`refusals_total{event="all"} 28`,
		`tokens_refused_total{code="expired"} 29`,
	} {
		if !strings.Contains(w.Body.String(), "\nrejoin_"+want+"\n") {
			t.Errorf("no line rejoin_%s", want)
		}
	}
}
