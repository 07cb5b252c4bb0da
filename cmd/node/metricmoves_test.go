package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

// movedElsewhere are the metrics whose faults a whole node cannot be made to have quickly. The named
// tests move the statistic that each of them shows; internal/metrics tests which one that is.
var movedElsewhere = map[string]struct{ file, test, statistic string }{
	"accept_errors_total":          {"internal/limit/port_test.go", "TestAcceptErrors", "AcceptErrors()"},
	"acks_late_total":              {"pkg/socketio/ackorder_test.go", "TestAckIsHeldForABoundedTime", "Stats().AcksLate"},
	"callback_panics_total":        {"pkg/socketio/callbacks_test.go", "TestPanicsOfCallbacks", "Stats().Panics"},
	"log_entries_dropped_total":    {"cmd/node/node_test.go", "TestLogIsBounded", "log.dropped"},
	"redis_feed_gaps_total":        {"pkg/adapter/redis/catchup_test.go", "TestFeedOverflow", "Stats().Gaps"},
	"redis_feed_losses_total":      {"pkg/adapter/redis/catchup_test.go", "TestFeedOverflow", "Stats().Losses"},
	"redis_messages_dropped_total": {"pkg/adapter/redis/stats_test.go", "TestDroppedMessagesAreCounted", "Stats().MessagesDropped"},
	"redis_publish_lookups_total":  {"pkg/adapter/redis/retry_test.go", "TestRetryIsExact", "Stats().Retries"},
	"session_commands_waiting":     {"pkg/session/redis/faults_test.go", "TestPause", "Stats().Waiting"},
}

// TestEveryMetricMoves: each metric of the code changes when that happens which it says it counts or
// shows. Without this, a metric that is never set looks like good news. A metric that is new needs a
// step, or another test that moves it.
func TestEveryMetricMoves(t *testing.T) {
	r := newMoves(t)
	moved := make(map[string]bool)
	for _, s := range r.steps() {
		t.Run(strings.ReplaceAll(s.name, " ", "_"), func(t *testing.T) {
			r.T = t
			before := map[string]float64{}
			if s.do != nil {
				r.await("the node is ready", func() bool { status, _ := fetch(t, "http://"+s.on.Internal+"/readyz"); return status == http.StatusOK })
				before = r.scrape(s.on)
				defer s.do()()
			}
			names := strings.Fields(s.moves)
			for end := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				still := unmoved(names, before, r.scrape(s.on))
				if len(still) == 0 {
					break
				}
				if time.Now().After(end) {
					t.Errorf("did not move: %s", still)
					break
				}
			}
			for _, name := range names {
				name, _, _ = strings.Cut(name, "{")
				moved[name] = true
			}
		})
	}
	for _, name := range metricNames(t) {
		elsewhere, other := movedElsewhere[name]
		switch {
		case other:
			hasTest(t, name, elsewhere.file, elsewhere.test, elsewhere.statistic)
		case !moved[name]:
			t.Errorf("no step and no other test moves rejoin_%s", name)
		}
	}
}

// A step makes metrics of one node move. do returns what ends it; nil if a node's start suffices.
type step struct {
	name, moves string
	on          *drainable
	do          func() func()
}

// moves is a small cluster, and a node without Redis whose clients need tokens.
type moves struct {
	*testing.T
	redis             *redistest.Server
	near, far, single *drainable
	backend           *scriptedBackend
}

func newMoves(t *testing.T) *moves {
	r := &moves{T: t, redis: redistest.Start(t, "maxmemory-policy allkeys-lru"), backend: newScriptedBackend(t)}
	variables := map[string]string{
		"REJOIN_REDIS_URL": r.redis.URL(), "REJOIN_CLUSTER_SECRET": "that of the test's cluster",
		"REJOIN_ALLOW_EVICTION": "true", "REJOIN_API_KEYS": moveKey, "REJOIN_NAMESPACES": "/,/other", "REJOIN_NAMESPACES_PER_CONNECTION": "1",
		"REJOIN_SEND_QUEUE_BYTES": "32KiB", "REJOIN_MAX_PAYLOAD": "100000", "REJOIN_MAILBOX_EVENTS": "1",
		"REJOIN_RECOVERY_CLIENTS": "all", "REJOIN_REDIS_TIMEOUT": "500ms", "REJOIN_DRAIN_BUDGET": "3s",
		"REJOIN_HOOK_URL": r.backend.URL, "REJOIN_HOOK_SECRETS": "whsec_" + strings.Repeat("c2Vj", 8), "REJOIN_HOOK_EVENTS": "order", "REJOIN_HOOK_CONCURRENCY": "1",
		"REJOIN_DEFAULT_CAN": `{"join": ["*"], "to": ["*"], "history": ["*"], "members": ["*"]}`,
	}
	r.near, r.far = startDrainable(t, variables), startDrainable(t, variables)
	r.single = startDrainable(t, map[string]string{
		"REJOIN_REDIS_URL": "", "REJOIN_JWT_SECRET": strings.Repeat("s", 32), "REJOIN_API_KEYS": moveKey, "REJOIN_DRAIN_BUDGET": "0s",
	})
	t.Cleanup(func() {
		for _, n := range []*drainable{r.near, r.single} {
			n.told()
			<-n.code
		}
	})
	return r
}

func (r *moves) steps() []step {
	nothing := func() {}
	return []step{
		{"the node starts", "build_info ready namespaces send_queue_budget_bytes redis_ready redis_may_evict redis_epoch_info redis_round_trip_seconds redis_probe_age_seconds", r.near, nil},
		{"a node without Redis starts", "memory_backlog_limit_bytes", r.single, nil},
		{"a client connects and joins", "connections connections_opened_total packets_total packet_bytes_total sockets connects_total tcp_connections{port=\"public\"} membership_bytes events_in_total redis_subscriptions session_pipelines_total session_commands_total", r.near, func() func() {
			r.client(r.near, `420["join","r"]`)
			return nothing
		}},
		{"a backend emits", "api_requests_total api_request_seconds events_out_total deliveries_total redis_published_total redis_publish_seconds redis_publish_batch_events", r.near, func() func() {
			r.emit(r.near, "r", 10)
			return nothing
		}},
		{"a backend emits without Redis", "memory_backlog_bytes", r.single, func() func() {
			r.emit(r.single, "r", 10)
			return nothing
		}},
		{"a message arrives in part", "received_bytes", r.near, func() func() {
			c := r.near.dial()
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n4%s", r.path(r.near.poller()), strings.Repeat("x", 80000))
			return func() { c.Close() }
		}},
		{"a client requests an unknown transport", "requests_refused_total", r.near, func() func() {
			fetch(r.T, "http://"+r.near.Addr+"/socket.io/?EIO=4&transport=pigeon")
			return nothing
		}},
		{"a client upgrades", "upgrades_total", r.near, func() func() {
			_, sid, _ := strings.Cut(r.near.poller(), "&sid=")
			r.talk(r.near.webSocket(sid), "2probe", "3probe", "5", "")
			return nothing
		}},
		{"an event is not permitted", "refusals_total", r.near, func() func() {
			r.client(r.near, `420["all","x"]`)
			return nothing
		}},
		{"a token is refused", "tokens_refused_total", r.single, func() func() {
			r.talk(r.single.webSocket(""), "", "0", `40{"token":"x.y.z"}`, "44")
			return nothing
		}},
		{"a message is too large", "messages_too_large_total", r.near, func() func() {
			c := r.near.dial()
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100001\r\n\r\n", r.path(r.near.poller()))
			return func() { c.Close() }
		}},
		{"a second namespace is refused", "limited_total", r.near, func() func() {
			r.client(r.near, "40/other,")
			return nothing
		}},
		{"an answer is not polled", "send_queue_bytes", r.near, func() func() {
			exchange(r.T, http.MethodPost, r.near.poller(), `420["echo","x"]`)
			return nothing
		}},
		{"a client reads nothing", "slow_clients_total connections_closed_total disconnects_total", r.near, func() func() {
			exchange(r.T, http.MethodPost, r.near.poller(), `42["join","slow"]`)
			r.awaitMembers("slow")
			slow := r.scrape(r.near)["slow_clients_total"]
			r.await("the client is closed", func() bool { // it may not be joined to the end at first
				r.emit(r.near, "slow", 20_000)
				return r.scrape(r.near)["slow_clients_total"] > slow
			})
			return nothing
		}},
		{"a client recovers", "recoveries_total replayed_events_total", r.near, func() func() {
			recovery := r.left("recovering")
			ws := r.near.webSocket("")
			r.talk(ws, "", "0", recovery, "40")
			return func() { ws.Close() }
		}},
		{"a client does not take its replay", "replay_bytes", r.near, func() func() {
			recovery := r.left("large")
			for range 20 {
				r.emit(r.near, "large", 20_000)
			}
			exchange(r.T, http.MethodPost, r.handshake(), recovery)
			return nothing
		}},
		{"events wait for their handlers", "mailbox_full_total", r.near, func() func() {
			events := make([]string, 50)
			for i := range events {
				events[i] = fmt.Sprintf(`42%d["history","r"]`, i)
			}
			exchange(r.T, http.MethodPost, r.near.poller(), strings.Join(events, "\x1e"))
			return nothing
		}},
		{"a request is forwarded", "forwarded_requests_total forward_open", r.near, func() func() {
			_, sid, _ := strings.Cut(r.far.poller(), "&sid=")
			r.talk(r.near.webSocket(sid), "2probe", "3probe")
			return nothing
		}},
		{"a forwarded request arrives", "forward_received", r.far, func() func() {
			_, sid, _ := strings.Cut(r.far.poller(), "&sid=")
			r.talk(r.near.webSocket(sid), "2probe", "3probe")
			return nothing
		}},
		{"a forwarded request has no signature", "forward_refused_total", r.near, func() func() {
			fetch(r.T, "http://"+r.near.Internal+"/internal/forward/socket.io/?EIO=4&transport=polling")
			return nothing
		}},
		{"a backlog's key has another type", "redis_not_stored_total", r.near, func() func() {
			key := r.base() + "r/,wrong"
			if err := r.redis.Client().Set(r.Context(), key, "x", 0).Err(); err != nil {
				r.Fatal(err)
			}
			r.emitAnyhow(r.near, "wrong", false)
			return nothing
		}},
		{"a message is malformed", "redis_malformed_total", r.near, func() func() {
			r.publish("rejoin:{0}inbox:"+r.near.Node, "\x00")
			return nothing
		}},
		{"a message is ahead of the clock", "redis_ahead_total", r.near, func() func() {
			r.publish(r.base()+"probe:"+r.near.Node, "99999999999999-0 ")
			return nothing
		}},
		{"the subscriber's connection breaks", "redis_subscriber_lost_total redis_feed_repairs_total redis_feed_repaired_events_total", r.near, func() func() {
			repaired := r.scrape(r.near)["redis_feed_repaired_events_total"]
			for range 50 { // an event falls into a gap sooner or later
				if err := r.redis.Client().Do(r.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
					r.Fatal(err)
				}
				for range 3 {
					r.emitAnyhow(r.near, "r", false)
				}
				if r.scrape(r.near)["redis_feed_repaired_events_total"] > repaired {
					break
				}
			}
			return nothing
		}},
		{"the backend is asked", "hook_attempts_total hook_in_flight hook_waiting hook_bytes hook_oldest_seconds", r.near, func() func() {
			for range 2 {
				exchange(r.T, http.MethodPost, r.near.poller(), `420["order"]`)
			}
			return func() { r.backend.answer(http.StatusNoContent) }
		}},
		{"the backend answers", "hook_questions_total hook_question_seconds", r.near, func() func() {
			r.client(r.near, `420["order"]`)
			return nothing
		}},
		{"the backend fails", "hook_breaker_open", r.near, func() func() {
			r.backend.answer(http.StatusInternalServerError)
			ws := r.client(r.near, "")
			for range 20 {
				r.talk(ws, `420["order"]`, "43")
			}
			return nothing
		}},
		{"a node drains", "connections_drained_total draining ready", r.far, func() func() {
			for range 3 {
				r.client(r.far, "")
			}
			r.far.told()
			return func() { <-r.far.code }
		}},
		{"Redis does not answer", "redis_ready connects_postponed_total volatile_dropped_total", r.near, func() func() {
			session := r.handshake()
			r.redis.Pause()
			r.await("the node is not ready", func() bool { return r.scrape(r.near)["redis_ready"] == 0 })
			r.emitAnyhow(r.near, "r", true)
			exchange(r.T, http.MethodPost, session, "40")
			return r.redis.Resume
		}},
		{"Redis loses its history", "redis_histories_lost_total", r.near, func() func() {
			if err := r.redis.Client().FlushAll(r.Context()).Err(); err != nil {
				r.Fatal(err)
			}
			return nothing
		}},
		{"a peer is newer", "redis_newer_version_total", r.near, func() func() {
			r.publish("rejoin:{0}inbox:"+r.near.Node, "\xff")
			return nothing
		}},
	}
}

// unmoved returns the metrics whose values are the same in two scrapes. What is missing is zero.
func unmoved(names []string, before, after map[string]float64) (same []string) {
	for _, name := range names {
		parts := []string{name}
		if _, histogram := after[name+"_sum"]; histogram {
			parts = []string{name + "_sum", name + "_count"}
		}
		for _, part := range parts {
			if before[part] == after[part] {
				same = append(same, part)
			}
		}
	}
	return same
}

// metricNames returns the names of all metrics in the code, without the prefix. A scrape shows none
// that has a label and no value yet.
func metricNames(t *testing.T) (names []string) {
	t.Helper()
	defined := regexp.MustCompile(`(?:\b(?:describe|counts?|gauges?|histogram)\("|Name: +"rejoin_)(\w+)"`)
	for _, pattern := range []string{"*.go", "../../internal/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, m := range defined.FindAllStringSubmatch(string(source), -1) {
				names = append(names, m[1])
			}
		}
	}
	if len(names) < 60 {
		t.Errorf("got %d metrics, want at least 60", len(names))
	}
	return names
}

// hasTest checks that a file of the repository has a test that uses a statistic.
func hasTest(t *testing.T, metric, file, test, statistic string) {
	t.Helper()
	source, err := os.ReadFile("../../" + file)
	if err != nil {
		t.Fatal(err)
	}
	_, body, found := strings.Cut(string(source), "\nfunc "+test+"(")
	if body, _, _ = strings.Cut(body, "\n}\n"); !found || !strings.Contains(body, statistic) {
		t.Errorf("rejoin_%s: %s has no %s that uses %s", metric, file, test, statistic)
	}
}
