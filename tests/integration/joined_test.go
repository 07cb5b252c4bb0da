package integration

import (
	"encoding/json"
	"fmt"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
	"github.com/rejoin-io/rejoin/pkg/socketio"
	"github.com/rejoin-io/rejoin/tests/inbox"
	"github.com/rejoin-io/rejoin/tests/integration/sioclient"
)

// numbered is how many events are published right after a join by command.
const numbered = 200

// TestEventsAfterSocketsJoinWithoutRecovery: they reach the sockets that it joined,
// on the publishing node and on others.
func TestEventsAfterSocketsJoinWithoutRecovery(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			target, err := redisurl.Parse(redistest.Start(t).URL())
			if err != nil {
				t.Fatal(err)
			}
			var servers []*socketio.Server
			var members []*joiner
			for i := range nodes {
				link, err := redis.New(t.Context(), redis.Options{
					Redis: target, Node: adapter.NodeID(fmt.Sprint("node", i)), Logger: zaptest.NewLogger(t),
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = link.Close() })
				srv, front := serveSheet(t, socketio.Options{Adapter: link, RecoveryWindow: -1})
				servers = append(servers, srv)
				members = append(members, newJoiner(t, front.listener.Addr().String()))
			}
			if err := servers[0].SocketsJoin(t.Context(), "r"); err != nil {
				t.Fatal(err)
			}
			for i := range numbered {
				if err := servers[i%nodes].To("r").Emit(t.Context(), "n", i); err != nil {
					t.Fatal(err)
				}
			}
			for _, m := range members {
				m.hearsAll(t)
			}
		})
	}
}

// TestAPIJoinWithoutRecovery: the same for a backend, where nothing can be replayed.
func TestAPIJoinWithoutRecovery(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, withAPI, "REJOIN_RECOVERY_WINDOW=0s", "REJOIN_BACKLOG_LIMIT=0")
	var members []*joiner
	for _, n := range c.nodes {
		members = append(members, newJoiner(t, n.public))
	}
	backend := c.nodes[0].backend()
	backend.post("join", `{"everyone":true,"join":["r"]}`)
	for i := range numbered {
		backend.post("emit", fmt.Sprintf(`{"rooms":["r"],"event":"n","args":[%d]}`, i))
	}
	for _, m := range members {
		m.hearsAll(t)
	}
}

// A joiner is a connected client that keeps the numbers that it gets.
type joiner struct{ heard inbox.Inbox[int] }

func newJoiner(t *testing.T, addr string) *joiner {
	t.Helper()
	m := new(joiner)
	client := sioclient.New(sioclient.Options{URL: wsURL(addr), OnEvent: func(e sioclient.Event) {
		n := -1
		if e.Name == "n" && len(e.Args) == 1 {
			_ = json.Unmarshal(e.Args[0], &n)
		}
		m.heard.Put(n)
	}})
	t.Cleanup(client.Cut)
	if err := bounded(t.Context(), client.Connect); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *joiner) hearsAll(t *testing.T) {
	t.Helper()
	for want := range numbered {
		if got, err := m.heard.Next(patience); err != nil || got != want {
			t.Fatalf("got %d, want %d: %v", got, want, err)
		}
	}
}
