package metrics

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/rejoin-io/rejoin/internal/health"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// snapshot has a different number in each field, so that mixed-up metrics are detected.
func snapshot() socketio.Stats {
	return socketio.Stats{
		Engine: engineio.Stats{
			Polling: 1, WebSocket: 2, Opened: 3, Closed: map[engineio.Reason]uint64{engineio.PingTimeout: 4}, Upgrades: 5,
			Refused:     map[int]uint64{1: 24, -1: 25},
			QueuedBytes: 6, ReceivingBytes: 3, SlowClients: 7, PacketsIn: 8, PacketsOut: 9, BytesIn: 10, BytesOut: 11,
		},
		Sockets: 12, Namespaces: 13, Connects: 14,
		Disconnects: map[string]uint64{"transport close": 15},
		Recoveries:  map[string]uint64{"recovered": 16, "trimmed": 17},
		EventsIn:    18, EventsOut: 19, Deliveries: 20, Replayed: 21, ReplayBytes: 30, ReceivedBytes: 28, VolatileDropped: 22, Drained: 23, AcksLate: 26,
		MailboxFull: map[string]uint64{"events": 27}, Panics: 28, ConnectsPostponed: 29,
	}
}

func TestScrape(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(Build{"1.2.3", "abc"}, Sockets(snapshot)).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s, want 200", w.Code, w.Body)
	}
	lines := strings.Split(w.Body.String(), "\n")
	for _, want := range []string{
		`rejoin_connections{transport="polling"} 1`,
		`rejoin_connections{transport="websocket"} 2`,
		`rejoin_connections_opened_total 3`,
		`rejoin_connections_closed_total{reason="ping timeout"} 4`,
		`rejoin_upgrades_total 5`,
		`rejoin_send_queue_bytes 6`,
		`rejoin_slow_clients_total 7`,
		`rejoin_packets_total{direction="in"} 8`,
		`rejoin_packets_total{direction="out"} 9`,
		`rejoin_packet_bytes_total{direction="in"} 10`,
		`rejoin_packet_bytes_total{direction="out"} 11`,
		`rejoin_sockets 12`,
		`rejoin_namespaces 13`,
		`rejoin_connects_total 14`,
		`rejoin_disconnects_total{reason="transport close"} 15`,
		`rejoin_recoveries_total{outcome="recovered",reason=""} 16`,
		`rejoin_recoveries_total{outcome="refused",reason="trimmed"} 17`,
		`rejoin_events_in_total 18`,
		`rejoin_events_out_total 19`,
		`rejoin_deliveries_total 20`,
		`rejoin_replayed_events_total 21`,
		`rejoin_replay_bytes 30`,
		`rejoin_received_bytes 31`,
		`rejoin_volatile_dropped_total 22`,
		`rejoin_connections_drained_total 23`,
		`rejoin_connects_postponed_total 29`,
		`rejoin_requests_refused_total{code="1"} 24`,
		`rejoin_acks_late_total 26`,
		`rejoin_mailbox_full_total{limit="events"} 27`,
		`rejoin_requests_refused_total{code="-1"} 25`,
		`rejoin_callback_panics_total 28`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %s", want)
		}
	}
	for _, want := range []string{`rejoin_build_info{go="go`, `revision="abc",version="1.2.3"} 1`, "go_goroutines ", "process_cpu_seconds_total "} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("nothing with %s", want)
		}
	}
}

func TestNamesFollowTheConventions(t *testing.T) {
	problems, err := testutil.GatherAndLint(registry(Build{}, Sockets(snapshot), Health(health.New("n001", ""))))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
