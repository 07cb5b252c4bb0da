package metrics

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

func TestLimits(t *testing.T) {
	stats := func() socketio.Stats {
		return socketio.Stats{Engine: engineio.Stats{BudgetCuts: 1, ReceiveCuts: 30, Uncompressed: 31}, TooManyRooms: 2, TooManyNamespaces: 3, Limited: map[string]uint64{"connect_payload": 8, "receive_budget": 12}}
	}
	l := Limits{Refused: func() map[string]uint64 { return map[string]uint64{"handshake_rate": 4} }, Sockets: stats, QueueBudget: 5,
		Ports:    func() map[string]Port { return map[string]Port{"public": {Open: 6, AcceptErrors: 7}} },
		Backlogs: func() Backlogs { return Backlogs{BacklogBytes: 9, BacklogLimit: 10, BacklogsDropped: 11} }}
	w := httptest.NewRecorder()
	Handler(Build{}, stats, l).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`rejoin_limited_total{limit="queue_budget"} 1`,
		`rejoin_limited_total{limit="rooms_per_socket"} 2`,
		`rejoin_limited_total{limit="namespaces_per_connection"} 3`,
		`rejoin_limited_total{limit="handshake_rate"} 4`,
		`rejoin_limited_total{limit="connect_payload"} 8`,
		`rejoin_limited_total{limit="compression"} 31`,
		`rejoin_limited_total{limit="receive_budget"} 42`,
		`rejoin_send_queue_budget_bytes 5`,
		`rejoin_tcp_connections{port="public"} 6`,
		`rejoin_accept_errors_total{port="public"} 7`,
		`rejoin_memory_backlog_bytes 9`,
		`rejoin_memory_backlog_limit_bytes 10`,
		`rejoin_limited_total{limit="backlog_bytes"} 11`,
	} {
		if !strings.Contains(w.Body.String(), "\n"+want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
}
