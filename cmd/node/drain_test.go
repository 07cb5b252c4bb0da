package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

// A drainable is a node of a cluster that a test drains.
type drainable struct {
	*testing.T
	listening
	told context.CancelFunc // drains it
	code chan int           // its exit code
}

// startDrainable starts a node with further variables.
func startDrainable(t *testing.T, variables map[string]string) *drainable {
	t.Helper()
	environment(t, map[string]string{
		"REJOIN_ADDR": "127.0.0.1:0", "REJOIN_INTERNAL_ADDR": "127.0.0.1:0", "REJOIN_DRAIN_DELAY": "0s",
		"REJOIN_SEND_QUEUE_BYTES": "64MiB", "REJOIN_QUEUE_BUDGET": "0", "REJOIN_MAX_PAYLOAD": "8MiB",
	})
	for name, value := range variables {
		t.Setenv(name, value)
	}
	draining, told := context.WithCancel(context.Background())
	n := &drainable{T: t, told: told, code: make(chan int, 1)}
	logs, w := io.Pipe()
	go func() { // ends when the node has stopped
		code := run(context.Background(), draining, nil, nil, io.Discard, w)
		w.Close()
		n.code <- code
	}()
	lines := json.NewDecoder(logs)
	for n.Msg != "listening" {
		if err := lines.Decode(&n.listening); err != nil {
			t.Fatal(err)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, logs) }() // ends with the node
	return n
}

// drain returns how long the node takes to end when it is drained.
func (n *drainable) drain() time.Duration {
	n.Helper()
	began := time.Now()
	n.told()
	select {
	case code := <-n.code:
		if code != 0 {
			n.Errorf("exit code %d, want 0", code)
		}
	case <-time.After(time.Minute):
		n.Fatal("the node does not end")
	}
	return time.Since(began)
}

// poller opens a polling session that is connected to the main namespace and has
// fetched all packets.
func (n *drainable) poller() (url string) {
	n.Helper()
	url = "http://" + n.Addr + "/socket.io/?EIO=4&transport=polling"
	_, handshake := fetch(n.T, url)
	_, rest, _ := strings.Cut(handshake, `"sid":"`)
	sid, _, _ := strings.Cut(rest, `"`)
	url += "&sid=" + sid
	if status, body := exchange(n.T, http.MethodPost, url, "40"); status != 200 {
		n.Fatalf("CONNECT: %d %s, want 200", status, body)
	}
	if status, body := fetch(n.T, url); status != 200 {
		n.Fatalf("poll: %d %s, want 200", status, body)
	}
	return url
}

// pollLater begins a poll through a node and leaves it waiting.
func (n *drainable) pollLater(url string) {
	c := n.dial()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", strings.TrimPrefix(url[len("http://"):], strings.SplitN(url[len("http://"):], "/", 2)[0]))
}

// dial opens a TCP connection that ends with the test.
func (n *drainable) dial() net.Conn {
	n.Helper()
	c, err := net.Dial("tcp", n.Addr)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { c.Close() })
	return c
}

// webSocket opens a WebSocket, of a session if sid is not empty.
func (n *drainable) webSocket(sid string) *websocket.Conn {
	n.Helper()
	url := "ws://" + n.Addr + "/socket.io/?EIO=4&transport=websocket"
	if sid != "" {
		url += "&sid=" + sid
	}
	ws, _, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { ws.Close() })
	return ws
}

// stalled opens a WebSocket whose client reads none of the megabytes sent to it.
func (n *drainable) stalled(sid string) {
	n.Helper()
	ws := n.webSocket(sid)
	packets := []string{"40"}
	if sid != "" {
		packets = []string{"2probe", "5"}
	}
	if err := ws.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		n.Fatal(err)
	}
	for range 3 { // the first answer fills the pipe, the second one waits, and the third event as well
		packets = append(packets, `420["echo","`+strings.Repeat("x", 4<<20)+`"]`)
	}
	for _, p := range packets {
		if err := ws.WriteMessage(websocket.TextMessage, []byte(p)); err != nil {
			n.Fatal(err)
		}
		if p == "40" || p == "2probe" { // the responses
			if _, _, err := ws.ReadMessage(); err != nil {
				n.Fatal(err)
			}
		}
	}
}

// TestDrainEndsWithinItsBudget: a drained node ends within its budget, in spite of
// connections that do not cooperate.
func TestDrainEndsWithinItsBudget(t *testing.T) {
	redis := redistest.Start(t)
	const budget = 4 * time.Second
	variables := map[string]string{
		"REJOIN_REDIS_URL": "redis://" + redis.Addr, "REJOIN_CLUSTER_SECRET": "that of the test's cluster",
		"REJOIN_DRAIN_BUDGET": budget.String(),
	}
	far := startDrainable(t, variables)
	near := startDrainable(t, variables)
	query := func(url string) string { _, q, _ := strings.Cut(url, "?"); return q }
	sid := func(url string) string { _, sid, _ := strings.Cut(url, "&sid="); return sid }

	near.poller()                                                                                                             // between two polls, for ever
	near.pollLater("http://" + near.Addr + "/socket.io/?" + query(near.poller()))                                             // a poll whose response is not read
	near.pollLater("http://" + near.Addr + "/socket.io/?" + query(far.poller()))                                              // one that waits at another node
	near.stalled("")                                                                                                          // a full pipe
	near.stalled(sid(far.poller()))                                                                                           // one of another node's session
	near.webSocket(sid(near.poller()))                                                                                        // a silent upgrade
	near.dial()                                                                                                               // no request
	fmt.Fprint(near.dial(), "GET /socket.io/ HTTP/1.1\r\n")                                                                   // half a request
	fmt.Fprintf(near.dial(), "POST /socket.io/?%s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n4", query(near.poller())) // half a body
	if took := near.drain(); took > budget+500*time.Millisecond {
		t.Errorf("the node took %v to end, want at most its budget of %v", took, budget)
	}
	far.drain()
}

// TestDrainWithoutBudget: a node without a drain budget does not wait for clients' polls,
// or for connections without a request.
func TestDrainWithoutBudget(t *testing.T) {
	n := startDrainable(t, map[string]string{"REJOIN_DRAIN_BUDGET": "0s"})
	n.poller()
	n.dial()
	if took := n.drain(); took > time.Second {
		t.Errorf("the node took %v to end, want at most %v", took, time.Second)
	}
}
