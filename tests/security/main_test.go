// Package security attacks the built node from outside. Each attack gets a clear
// refusal, shows nothing of what is secret, and costs the node no more than it
// has for it.
package security

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// binary is the node under test.
var binary string

// long is set by make attack: attacks then send as much as it takes to fill a node.
var long = os.Getenv("REJOIN_TEST_ATTACK") != ""

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "rejoin-security-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if binary, err = nodetest.Build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// start runs a node; when the test ends it must still answer a stranger.
func start(t *testing.T, variables ...string) *nodetest.Node {
	t.Helper()
	n := nodetest.Start(t, binary, variables...)
	t.Cleanup(func() {
		if status, _ := get(t, "http://"+n.Internal+"/healthz"); status != http.StatusOK {
			t.Errorf("afterwards the node answers %d", status)
		}
	})
	return n
}

// memory returns how many bytes the node has taken from the system, at most so far:
// without those of the race detector, which are several times that.
func memory(n *nodetest.Node) int { return int(n.Metrics()["go_memstats_sys_bytes"]) }

// get sends a request with some headers, and returns the answer.
func get(t *testing.T, url string, headers ...string) (status int, body string) {
	t.Helper()
	return send(t, http.MethodGet, url, "", headers...)
}

func send(t *testing.T, method, url, body string, headers ...string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: nodetest.Patience}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// polling is the URL of a session by polling, a new one without an id.
func polling(n *nodetest.Node, sid string) string {
	url := "http://" + n.Addr + "/socket.io/?recovery=true&EIO=4&transport=polling"
	if sid != "" {
		url += "&sid=" + sid
	}
	return url
}

// open begins a session by polling.
func open(t *testing.T, n *nodetest.Node) (sid string) {
	t.Helper()
	status, body := get(t, polling(n, ""))
	_, rest, _ := strings.Cut(body, `"sid":"`)
	sid, _, ok := strings.Cut(rest, `"`)
	if status != http.StatusOK || !ok {
		t.Fatalf("a handshake: %d %s", status, body)
	}
	n.Secret(sid)
	return sid
}

// dial opens a raw connection to the public port, and sends what is written.
func dial(t *testing.T, n *nodetest.Node, text string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", n.Addr, nodetest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// closed waits until the node closes a connection, and returns what it said before.
func closed(t *testing.T, c net.Conn, within time.Duration) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(within))
	said, err := io.ReadAll(bufio.NewReader(c))
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Errorf("it is open after %v", within)
	}
	return string(said)
}

// connect opens a WebSocket and connects to the main namespace.
func connect(t *testing.T, n *nodetest.Node) *websocket.Conn {
	t.Helper()
	return connectWith(t, n, "")
}

// connectWith is connect with a payload.
func connectWith(t *testing.T, n *nodetest.Node, payload string) *websocket.Conn {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+n.Addr+"/socket.io/?recovery=true&EIO=4&transport=websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(nodetest.Patience))
	write(t, ws, "40"+payload)
	for _, packet := range []struct{ kind, secret string }{{"0", "sid"}, {"40", "pid"}} {
		_, m, err := ws.ReadMessage()
		content, ok := strings.CutPrefix(string(m), packet.kind)
		fields := map[string]any{}
		if err != nil || !ok || json.Unmarshal([]byte(content), &fields) != nil {
			t.Fatalf("%q %v", m, err)
		}
		n.Secret(fmt.Sprint(fields[packet.secret]))
	}
	return ws
}

func write(t *testing.T, ws *websocket.Conn, text string) {
	t.Helper()
	if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// ends waits until the node closes a WebSocket, and returns with which error.
func ends(t *testing.T, ws *websocket.Conn) error {
	t.Helper()
	_ = ws.SetReadDeadline(time.Now().Add(nodetest.Patience))
	for {
		_, _, err := ws.ReadMessage()
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Errorf("it is not closed")
		}
		if err != nil {
			return err
		}
	}
}
