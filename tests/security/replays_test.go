package security

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// TestUnreadReplays: clients that reconnect to a large replay and read nothing of it
// cost the node little memory, although they answer its pings, and are cut. Before, each
// held all its missed events without a time limit.
func TestUnreadReplays(t *testing.T) {
	t.Parallel()
	const attackers = 30
	events, size, most := 20, 300_000, 100<<20 // 6 MB for each
	if long {
		events, size, most = 40, 900_000, 160<<20 // 36 MB
	}
	n := start(t, "REJOIN_REDIS_URL="+redistest.Start(t).URL(), "REJOIN_CLUSTER_SECRET="+clusterSecret,
		"REJOIN_PING_INTERVAL=1s", "REJOIN_PING_TIMEOUT=3s", "REJOIN_LOG_LEVEL=info", "GOMEMLIMIT=256MiB", "REJOIN_SOCKET_BYTE_RATE=0")
	pids := make([]string, attackers)
	for i := range pids {
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+n.Addr+"/socket.io/?recovery=true&EIO=4&transport=websocket", nil)
		if err != nil {
			t.Fatal(err)
		}
		write(t, ws, "40")
		var answer struct{ PID string }
		for _, prefix := range []string{"0", "40"} {
			_, m, err := ws.ReadMessage()
			if err != nil || json.Unmarshal(m[len(prefix):], &answer) != nil {
				t.Fatalf("%q %v", m, err)
			}
		}
		pids[i] = answer.PID
		write(t, ws, `420["join","flood"]`)
		if _, m, err := ws.ReadMessage(); err != nil || !strings.HasPrefix(string(m), "430") {
			t.Fatalf("%q %v", m, err)
		}
		ws.Close()
	}
	awaitSockets(t, n, 0)
	sender, large := connect(t, n), strings.Repeat("x", size)
	for i := range events {
		_ = sender.SetReadDeadline(time.Now().Add(nodetest.Patience))
		write(t, sender, fmt.Sprintf(`421["to","flood","n",%d,%q]`, i, large))
		_, m, err := sender.ReadMessage()
		for err == nil && string(m) == "2" {
			write(t, sender, "3")
			_, m, err = sender.ReadMessage()
		}
		if err != nil || !strings.HasPrefix(string(m), `431[{"ok":true`) {
			t.Fatalf("%.100q %v", m, err)
		}
	}
	quiet := memory(n)
	small := websocket.Dialer{NetDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if tcp, ok := c.(*net.TCPConn); ok {
			err = tcp.SetReadBuffer(4096)
		}
		return c, err
	}}
	stop := make(chan struct{})
	defer close(stop)
	for _, pid := range pids {
		ws, _, err := small.Dial("ws://"+n.Addr+"/socket.io/?recovery=true&EIO=4&transport=websocket", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ws.Close() })
		write(t, ws, fmt.Sprintf(`40{"pid":%q}`, pid))
		go func() { // ends with the test
			pong := time.NewTicker(500 * time.Millisecond)
			defer pong.Stop()
			for {
				select {
				case <-pong.C:
					_ = ws.WriteMessage(websocket.TextMessage, []byte("3"))
				case <-stop:
					return
				}
			}
		}()
	}
	nodetest.Eventually(t, "they are not cut", func() error {
		m := n.Metrics()
		if recovered := m[`rejoin_recoveries_total{outcome="recovered",reason=""}`]; recovered < attackers {
			return fmt.Errorf("%v have been recovered", recovered)
		}
		if held := m["rejoin_replay_bytes"]; held > attackers*(256<<10) {
			t.Errorf("%v bytes are held for them", held)
		}
		if left := m["rejoin_sockets"] - 1; left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		if cut := m[`rejoin_limited_total{limit="read_progress"}`]; cut < attackers/2 { // the heartbeat may be first
			t.Errorf("%v of %d were cut because they read nothing", cut, attackers)
		}
		return nil
	})
	t.Logf("%d MiB before, at most %d MiB", quiet>>20, memory(n)>>20)
	if used := memory(n); used > most {
		t.Errorf("the node has used %d MiB", used>>20)
	}
	nodetest.Eventually(t, "something is held afterwards", func() error {
		if held := n.Metrics()["rejoin_replay_bytes"]; held != 0 {
			return fmt.Errorf("%v bytes", held)
		}
		return nil
	})
}
