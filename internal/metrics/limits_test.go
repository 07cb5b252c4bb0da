package metrics

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

func TestLimits(t *testing.T) {
	stats := func() socketio.Stats {
		return socketio.Stats{Engine: engineio.Stats{BudgetCuts: 1, ReceiveCuts: 30, Uncompressed: 31}, TooManyRooms: 2, TooManyNamespaces: 3, Limited: map[string]uint64{"connect_payload": 8, "receive_budget": 12}}
	}
	l := func() LimitStats {
		return LimitStats{
			Refused: map[string]uint64{"handshake_rate": 4}, Sockets: stats(), QueueBudget: 5,
			Connections: map[string]int{"public": 6}, AcceptErrors: map[string]uint64{"public": 7},
		}
	}
	m := func() adapter.MemoryStats { return adapter.MemoryStats{BacklogBytes: 9, BacklogLimit: 10} }
	w := httptest.NewRecorder()
	Handler(Build{}, Sockets(stats), Limits(l), Memory(m)).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
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
	} {
		if !strings.Contains(w.Body.String(), "\n"+want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
}
