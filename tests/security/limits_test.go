package security

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// TestOversize: more than a request or a message may have is refused, whatever of
// it is too large.
func TestOversize(t *testing.T) {
	t.Parallel()
	n := start(t, "REJOIN_MAX_PAYLOAD=64KiB")
	large := strings.Repeat("x", 70<<10)
	for _, head := range []string{
		"GET /socket.io/?EIO=4&transport=polling&x=" + large + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\nX: " + large + "\r\n\r\n",
		"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X: y\r\n", 20_000) + "\r\n",
	} {
		c, err := net.Dial("tcp", n.Addr)
		if err != nil {
			t.Fatal(err)
		}
		go io.WriteString(c, head) // ends with the connection
		answer := make([]byte, 12)
		_ = c.SetReadDeadline(time.Now().Add(nodetest.Patience))
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "HTTP/1.1 431" {
			t.Errorf("%.50s: %q %v", head, answer, err)
		}
		c.Close()
	}
	for at, tiny := range map[string]int{n.Addr: 100, n.Internal: 120} { // nodes add some when they forward
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		go io.WriteString(c, "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n"+strings.Repeat("X: y\r\n", tiny+1)+"\r\n") // ends with the connection
		if said := closed(t, c, nodetest.Patience); !strings.HasPrefix(said, "HTTP/1.1 431") {
			t.Errorf("%d headers: %.100q", tiny+1, said)
		}
		c.Close()
		c = dial(t, n, "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+strings.Repeat("X: y\r\n", 99)+"\r\n")
		if said := closed(t, c, nodetest.Patience); !strings.HasPrefix(said, "HTTP/1.1 200") {
			t.Errorf("100 headers: %.100q", said)
		}
	}
	if refused := n.Metrics()[`rejoin_limited_total{limit="headers"}`]; refused != 2 {
		t.Errorf("%v requests were refused", refused)
	}
	// The answer comes before the body has been read, which may cut who still sends it.
	c := dial(t, n, fmt.Sprintf("POST /socket.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", open(t, n), 1+len(large)))
	go io.WriteString(c, "4"+large) // ends with the connection
	if said := closed(t, c, nodetest.Patience); !strings.HasPrefix(said, "HTTP/1.1 413") {
		t.Errorf("a large POST: %.50q", said)
	}
	// Without a length, and far more than that.
	sid := open(t, n)
	c = dial(t, n, "POST /socket.io/?EIO=4&transport=polling&sid="+sid+" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
	go func() { // ends with the connection
		for {
			if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n", len(large), large); err != nil {
				return
			}
		}
	}()
	if said := closed(t, c, nodetest.Patience); !strings.HasPrefix(said, "HTTP/1.1 413") {
		t.Errorf("an endless POST: %.50q", said)
	}
	ws := connect(t, n)
	write(t, ws, "4"+large)
	if err := ends(t, ws); !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
		t.Errorf("a large message: %v", err)
	}
}

// TestSlowLoris: connections that send nothing, or a little at a time, are
// closed.
func TestSlowLoris(t *testing.T) {
	t.Parallel()
	n := start(t, "REJOIN_PING_INTERVAL=1s", "REJOIN_PING_TIMEOUT=2s", "REJOIN_UPGRADE_TIMEOUT=2s", "REJOIN_CONNECT_TIMEOUT=2s")
	sid, upgrading := open(t, n), open(t, n)
	const upgrade = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
	var attacks sync.WaitGroup
	for name, text := range map[string]string{
		"nothing":                      "",
		"half a request line":          "GET /sock",
		"headers without an end":       "GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
		"half a body":                  "POST /socket.io/?EIO=4&transport=polling&sid=" + sid + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n4",
		"half a body of no session":    "POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n4",
		"half a body of the page":      "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n4",
		"a WebSocket without a packet": "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n" + upgrade,
		"an upgrade without a probe":   "GET /socket.io/?EIO=4&transport=websocket&sid=" + upgrading + " HTTP/1.1\r\n" + upgrade,
	} {
		c := dial(t, n, text)
		attacks.Go(func() {
			trickle := time.NewTicker(500 * time.Millisecond)
			defer trickle.Stop()
			gone := make(chan struct{})
			go func() { // ends when the node closes, or the test is patient no longer
				defer close(gone)
				_ = c.SetReadDeadline(time.Now().Add(50 * time.Second))
				if _, err := io.Copy(io.Discard, c); err != nil {
					if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
						t.Errorf("%s: it is still open", name)
					}
				}
			}()
			for strings.HasPrefix(name, "headers") {
				select {
				case <-trickle.C:
					_, _ = io.WriteString(c, "y") // until it is closed
					continue
				case <-gone:
				}
				break
			}
			<-gone
		})
	}
	attacks.Wait()
}

// TestSlowReader: a client that sends requests and does not read the answers is cut.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	n := start(t, "REJOIN_PING_INTERVAL=1s", "REJOIN_PING_TIMEOUT=2s")
	sid := open(t, n)
	var attacks sync.WaitGroup
	for name, request := range map[string]string{
		"a page":             "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"a refusal":          "GET /socket.io/?EIO=4&transport=" + strings.Repeat("x", 8<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"a session's answer": "POST /socket.io/?EIO=4&transport=polling&sid=" + sid + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n42",
	} {
		c := dial(t, n, "")
		_ = c.SetWriteDeadline(time.Now().Add(50 * time.Second))
		attacks.Go(func() {
			var err error
			for many := strings.Repeat(request, 100); err == nil; {
				_, err = io.WriteString(c, many)
			}
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
				t.Errorf("%s: it is still open", name)
			}
		})
	}
	attacks.Wait()
}

// TestIdleConnections: connections that send nothing do not keep others out.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	n := start(t, "REJOIN_IDLE_CONNECTIONS=50")
	for range 200 {
		dial(t, n, "")
	}
	open(t, n)
	nodetest.Eventually(t, "the bound is not kept", func() error {
		if closed := n.Metrics()[`rejoin_limited_total{limit="idle_connections"}`]; closed < 150 {
			return fmt.Errorf("%v are closed", closed)
		}
		return nil
	})
}

// TestHalfOpenHandshakes: ten thousand sessions that begin with 4 KiB of headers, and
// then say nothing, cost what they sent and little more.
func TestHalfOpenHandshakes(t *testing.T) {
	t.Parallel()
	const handshakes, workers, each = 10_000, 20, 32 << 10 // before its collector runs, Go takes twice what is in use
	n := start(t, "REJOIN_HANDSHAKE_RATE=0", "REJOIN_UNCONNECTED_SESSIONS=20000", "REJOIN_LOG_LEVEL=info", "REJOIN_CONNECT_TIMEOUT=5m", "REJOIN_PING_INTERVAL=5m")
	before := memory(n)
	padding := strings.Repeat("x", 4<<10)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}, Timeout: nodetest.Patience}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range handshakes / workers {
				r, err := http.NewRequestWithContext(t.Context(), "GET", polling(n, ""), nil)
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("X-Padding", padding)
				response, err := client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if response.StatusCode != http.StatusOK {
					t.Errorf("a handshake is answered %s", response.Status)
					return
				}
			}
		})
	}
	all.Wait()
	if half := n.Metrics()[`rejoin_connections{transport="polling"}`]; half != handshakes {
		t.Errorf("%v are open", half)
	}
	if cost := (memory(n) - before) / handshakes; cost > each {
		t.Errorf("a half-open handshake costs %d bytes", cost)
	} else {
		t.Logf("a half-open handshake costs %d bytes", cost)
	}
	connect(t, n)
}

// TestTinyFragments: messages in frames of one byte, and of none, are bounded like
// others, and one without an end dies with its client's silence.
func TestTinyFragments(t *testing.T) {
	t.Parallel()
	n := start(t, "REJOIN_MAX_PAYLOAD=4KiB", "REJOIN_PING_INTERVAL=1s", "REJOIN_PING_TIMEOUT=2s")
	first := "\x01\x81\x00\x00\x00\x004" // text, more to come, masked with zeros
	for name, next := range map[string]string{
		"of one byte": "\x00\x81\x00\x00\x00\x00x",
		"of none":     "\x00\x80\x00\x00\x00\x00",
	} {
		ws := connect(t, n)
		wire := ws.NetConn()
		go func() { // ends with the connection
			_, err := io.WriteString(wire, first)
			for frames := strings.Repeat(next, 100); err == nil; {
				_, err = io.WriteString(wire, frames)
				time.Sleep(time.Millisecond)
			}
		}()
		if err := ends(t, ws); name == "of one byte" && !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if most := memory(n); most > 64<<20 {
		t.Errorf("the node has used %d MiB", most>>20)
	}
}

// TestAttachmentFloods: attachments that are too many, that never come, or that
// belong to nothing end the connection or wait in bounded memory.
func TestAttachmentFloods(t *testing.T) {
	t.Parallel()
	n := start(t, "REJOIN_MAX_PAYLOAD=64KiB")
	for _, header := range []string{`451000000-["e"]`, `4511-["e"]`, `451-["e",{"_placeholder":true,"num":7}]`} {
		ws := connect(t, n)
		write(t, ws, header)
		ends(t, ws)
	}
	ws := connect(t, n)
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("of nothing")); err != nil {
		t.Fatal(err)
	}
	ends(t, ws)
	attachment := make([]byte, 60<<10)
	for range 100 { // nine of ten come
		ws := connect(t, n)
		write(t, ws, `4510-["e"`+`,{"_placeholder":true,"num":0}]`)
		for range 9 {
			if err := ws.WriteMessage(websocket.BinaryMessage, attachment); err != nil {
				break
			}
		}
	}
	if most := memory(n); most > 256<<20 {
		t.Errorf("the node has used %d MiB", most>>20)
	}
}

// TestForeignOrigin: a page of another origin gets nothing on either transport, and
// cannot read anything.
func TestForeignOrigin(t *testing.T) {
	t.Parallel()
	n := start(t)
	const evil = "https://evil.example"
	sid := open(t, n)
	for _, url := range []string{polling(n, ""), polling(n, sid)} {
		if status, body := get(t, url, "Origin", evil); status != http.StatusForbidden || strings.Contains(body, "sid") {
			t.Errorf("by polling: %d %s", status, body)
		}
	}
	if status, _ := send(t, "POST", polling(n, sid), "40", "Origin", evil); status != http.StatusForbidden {
		t.Errorf("a POST: %d", status)
	}
	for _, more := range []string{"", "&sid=" + sid} {
		_, response, err := websocket.DefaultDialer.Dial("ws://"+n.Addr+"/socket.io/?EIO=4&transport=websocket"+more, http.Header{"Origin": {evil}})
		if err == nil || response == nil || response.StatusCode != http.StatusBadRequest {
			t.Errorf("by WebSocket: %v", err)
		}
	}
}

// TestInternalPaths: the public port has none of the internal one's.
func TestInternalPaths(t *testing.T) {
	t.Parallel()
	n := start(t)
	for _, path := range []string{
		"/metrics", "/healthz", "/readyz", "/internal/leave", "/internal/forward/socket.io/?EIO=4&transport=polling",
		"/debug/pprof/", "/api/v1/sockets", "/socket.io/../metrics", "//metrics", "/demo/../metrics", "/%2e%2e/metrics",
	} {
		for _, method := range []string{"GET", "POST"} {
			if status, body := send(t, method, "http://"+n.Addr+path, "", "X-Rejoin-From", "aaaa"); status < 300 || strings.Contains(body, "rejoin_") {
				t.Errorf("%s %s: %d %.100s", method, path, status, body)
			}
		}
	}
}

// TestStalledReaders: clients that read nothing are cut once the budget is used
// up, memory stays within it, and reading clients continue.
func TestStalledReaders(t *testing.T) {
	const stalled, floods = 60, 3 // members of a room share its packets, which count once
	n := start(t, "REJOIN_SEND_QUEUE_BYTES=8MiB", "REJOIN_QUEUE_BUDGET=16MiB", "REJOIN_LOG_LEVEL=info")
	join := func(ws *websocket.Conn, flood int) {
		write(t, ws, fmt.Sprintf(`420["join","flood %d"]`, flood))
		if _, m, err := ws.ReadMessage(); err != nil || !strings.HasPrefix(string(m), "430") {
			t.Fatalf("%q %v", m, err)
		}
	}
	for i := range stalled {
		join(connect(t, n), i%floods)
	}
	reader, sender := connect(t, n), connect(t, n)
	for flood := range floods {
		join(reader, flood)
	}
	large := strings.Repeat("x", 64<<10)
	sent := 0
	nodetest.Eventually(t, "the budget is not kept", func() error {
		for range 20 {
			write(t, sender, fmt.Sprintf(`421["to","flood %d","n",%d,%q]`, sent%floods, sent, large))
			if _, m, err := sender.ReadMessage(); err != nil || !strings.HasPrefix(string(m), `431[{"ok":true`) {
				t.Fatalf("%.100q %v", m, err)
			}
			_, m, err := reader.ReadMessage()
			if err != nil || !strings.HasPrefix(string(m), fmt.Sprintf(`42["n",%d,`, sent)) {
				t.Fatalf("the reading client got %.100q %v, want event %d", m, err, sent)
			}
			sent++
		}
		m := n.Metrics()
		if queued := m["rejoin_send_queue_bytes"]; queued > m["rejoin_send_queue_budget_bytes"]*5/4 {
			t.Errorf("%v bytes are queued", queued)
		}
		if cut := m[`rejoin_limited_total{limit="queue_budget"}`]; cut < stalled/2 {
			return fmt.Errorf("%v are cut", cut)
		}
		return nil
	})
	t.Logf("%d events, at most %d MiB", sent, memory(n)>>20)
	if most := memory(n); most > 128<<20 {
		t.Errorf("the node has used %d MiB", most>>20)
	}
}

// TestHalfSentBodies: more connections with a half-sent body than the node has descriptors
// keep out neither clients nor health checks.
func TestHalfSentBodies(t *testing.T) {
	t.Parallel()
	const descriptors = 256
	limited := filepath.Join(t.TempDir(), "limited")
	if err := os.WriteFile(limited, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d\nexec %q\n", descriptors, binary), 0o700); err != nil {
		t.Fatal(err)
	}
	n := nodetest.Start(t, limited, "REJOIN_LOG_LEVEL=info")
	for range 2 * descriptors {
		dial(t, n, "POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n4")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: nodetest.Patience}
	begun := time.Now()
	response, err := client.Get("http://" + n.Internal + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if took := time.Since(begun); response.StatusCode != http.StatusOK || took > time.Second {
		t.Errorf("/healthz: %s after %v", response.Status, took)
	}
	open(t, n)
	samples := n.Metrics()
	if samples[`rejoin_limited_total{limit="connections"}`] == 0 || samples[`rejoin_tcp_connections{port="public"}`] > descriptors*3/4 || samples[`rejoin_accept_errors_total{port="public"}`] != 0 {
		t.Errorf("closed %v, open %v, accept errors %v", samples[`rejoin_limited_total{limit="connections"}`],
			samples[`rejoin_tcp_connections{port="public"}`], samples[`rejoin_accept_errors_total{port="public"}`])
	}
	if !n.Log.Contains("too many connections") {
		t.Error("nothing is logged")
	}
}

// TestHeldPacketsAreBounded: thirty connections that answer pings, and hold what they can in
// packets without their last attachment and in payloads of CONNECTs, cost the node no more
// than it has for that. Before, they cost 10 MB each.
func TestHeldPacketsAreBounded(t *testing.T) {
	t.Parallel()
	const connections, most = 30, 128 << 20
	n := start(t, "GOMEMLIMIT=96MiB", "REJOIN_RECEIVE_BUDGET=16MiB", "REJOIN_LOG_LEVEL=info")
	attachment := make([]byte, 900<<10)
	placeholders := make([]string, 10)
	for i := range placeholders {
		placeholders[i] = fmt.Sprintf(`{"_placeholder":true,"num":%d}`, i)
	}
	var all sync.WaitGroup
	for range connections {
		ws := connect(t, n)
		all.Go(func() {
			err := ws.WriteMessage(websocket.TextMessage, []byte("4510-[\"x\","+strings.Join(placeholders, ",")+"]"))
			for i := 0; i < 9 && err == nil; i++ { // one that is cut has held enough
				err = ws.WriteMessage(websocket.BinaryMessage, attachment)
			}
		})
	}
	all.Wait()
	nodetest.Eventually(t, "the budget is not kept", func() error {
		if cut := n.Metrics()[`rejoin_limited_total{limit="receive_budget"}`]; cut < connections-2 {
			return fmt.Errorf("%v are closed", cut)
		}
		return nil
	})
	ws := connect(t, n)
	write(t, ws, `40/x,{"x":"`+strings.Repeat("x", 64<<10)+`"}`)
	if _, m, err := ws.ReadMessage(); err != nil || !strings.Contains(string(m), `"too_large"`) {
		t.Errorf("a payload of 64 KiB and more: %.100q %v", m, err)
	}
	if used := memory(n); used > most {
		t.Errorf("the node has taken %d MiB", used>>20)
	} else {
		t.Logf("the node has taken %d MiB", used>>20)
	}
}

// TestTinyEventsLeaveCPU: a node without Redis keeps tiny events within its memory limit, with
// what it needs to keep them, and is idle when nothing comes. Before, it kept 256 MiB of
// them whatever its limit, and spent all its time collecting garbage.
func TestTinyEventsLeaveCPU(t *testing.T) {
	t.Parallel()
	const limit, posters = 32 << 20, 4
	batches := 60
	if long {
		batches = 600 // without the limit, more than there is memory for
	}
	const key = "a-key-of-this-test"
	n := start(t, fmt.Sprint("GOMEMLIMIT=", limit), "REJOIN_API_KEYS="+key)
	n.Secret(key)
	var all sync.WaitGroup
	for p := range posters {
		all.Go(func() {
			for b := range batches / posters {
				emits := make([]string, 500)
				for i := range emits {
					emits[i] = fmt.Sprintf(`{"rooms":["%d"],"event":"x"}`, (p*batches+b)%300)
				}
				status, answer := send(t, http.MethodPost, "http://"+n.Internal+"/api/v1/batch", `{"emits":[`+strings.Join(emits, ",")+`]}`,
					"X-API-Key", key, "Content-Type", "application/json")
				if status != http.StatusOK {
					t.Errorf("%d %.200s", status, answer)
					return
				}
			}
		})
	}
	all.Wait()
	before, began := n.Metrics(), time.Now()
	time.Sleep(time.Second) // what is measured is what the node does when nothing happens
	after := n.Metrics()
	cores := (after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]) / time.Since(began).Seconds()
	kept := after["rejoin_memory_backlog_bytes"]
	t.Logf("%.0f KiB are kept, the heap has %.0f KiB, idle takes %.2f cores", kept/1024, after["go_memstats_heap_alloc_bytes"]/1024, cores)
	if cores > 0.3 {
		t.Errorf("an idle node takes %.2f cores", cores)
	}
	if kept > limit/4 || kept < limit/8 || after[`rejoin_limited_total{limit="backlog_bytes"}`] == 0 {
		t.Errorf("%v bytes are kept of %v", kept, after["rejoin_memory_backlog_limit_bytes"])
	}
}
