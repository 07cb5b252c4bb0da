package engineio

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// upgrade moves a polling session to a WebSocket.
func (b *bench) upgrade(sid string) *websocket.Conn {
	b.Helper()
	ws := b.probe(sid)
	b.write(ws, "5")
	c := b.lookup(sid)
	b.until(func() bool { return c.Transport() == WebSocket })
	return ws
}

// probe makes the first half of an upgrade.
func (b *bench) probe(sid string) *websocket.Conn {
	b.Helper()
	ws := b.dial("&sid=" + sid)
	b.write(ws, "2probe")
	if got := b.read(ws); got != "3probe" {
		b.Fatalf(`probe answered by %q, want "3probe"`, got)
	}
	return ws
}

func TestUpgrade(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	c := receive(t, b.conns)
	pending := b.pollLater(sid)
	ws := b.probe(sid)
	if got := receive(t, pending); got.body != "6" {
		t.Errorf("the pending GET: %+v", got)
	}
	// Each GET that follows is answered, not only the first.
	for range 5 {
		if got := b.poll(sid); got != "6" {
			t.Errorf(`polled %q, want "6"`, got)
		}
	}
	// Until the client completes the upgrade everything stays on polling.
	if c.Transport() != Polling {
		t.Errorf("by %s, want %s", c.Transport(), Polling)
	}
	_ = c.Send(Text([]byte("polled")))
	if got := b.poll(sid); got != "4polled" {
		t.Errorf(`polled %q, want "4polled"`, got)
	}
	b.post(sid, "4posted")
	b.gets("posted", false)
	_ = c.Send(Text([]byte("queued")))

	b.write(ws, "5")
	if got := b.read(ws); got != "4queued" {
		t.Errorf(`read %q, want "4queued"`, got)
	}
	b.write(ws, "4sent")
	b.gets("sent", false)
	if c.Transport() != WebSocket {
		t.Errorf("by %s, want %s", c.Transport(), WebSocket)
	}
	for _, method := range []string{"GET", "POST"} {
		if res, body := b.do(method, sid, ""); res.StatusCode != 400 || body != `{"code":3,"message":"Bad request"}` {
			t.Errorf("%s after the upgrade: %s %s", method, res.Status, body)
		}
	}
	if s := b.Stats(); s.Polling != 0 || s.WebSocket != 1 || s.Upgrades != 1 || s.Opened != 1 {
		t.Errorf("got %+v, want one upgraded WebSocket", s)
	}
	_ = ws.Close()
	b.endsBy(TransportClose)
}

func TestUpgradeClosesTheGETThatWaits(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	c := receive(t, b.conns)
	ws := b.probe(sid)
	// Put the clock back to before the probe was seen, when GETs wait.
	b.until(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		p := c.polling
		was := p.state == pollingProbed
		p.state = pollingUpgrading
		return was
	})
	pending := b.pollLater(sid)
	c.mu.Lock()
	c.polling.state = pollingProbed
	c.mu.Unlock()
	b.write(ws, "5")
	if got := receive(t, pending); got.body != "1" {
		t.Errorf("the pending GET: %+v", got)
	}
	_ = c.Send(Text([]byte("a")))
	if got := b.read(ws); got != "4a" {
		t.Errorf(`read %q, want "4a"`, got)
	}
}

// The client has read an answer and polls again before the server has finished writing it.
func TestUpgradeAnswersTheGETBehindASlowAnswer(t *testing.T) {
	b := setUp(t, Options{PingInterval: time.Hour}) // a ping would answer it, too
	sid := b.open()
	b.probe(sid)
	w := &slowWriter{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	var first sync.WaitGroup
	first.Go(func() {
		b.ServeHTTP(w, httptest.NewRequest("GET", "/engine.io/?EIO=4&transport=polling&sid="+sid, nil))
	})
	<-w.flushing
	pending := b.pollLater(sid)
	close(w.flushed)
	first.Wait()
	if got := w.Body.String(); got != "6" {
		t.Errorf(`the first GET: %q, want "6"`, got)
	}
	if got := receive(t, pending); got.body != "6" {
		t.Errorf("the GET behind it: %+v", got)
	}
}

// A slowWriter has written, but does not return from Flush until flushed is closed.
type slowWriter struct {
	*httptest.ResponseRecorder
	flushing, flushed chan struct{}
}

func (w *slowWriter) Flush() {
	close(w.flushing)
	<-w.flushed
}

func TestUpgradeWithWrongPackets(t *testing.T) {
	for _, test := range []struct {
		name  string
		write []string
	}{
		{"no probe", []string{"5"}},
		{"a ping that is not a probe", []string{"2"}},
		{"a message", []string{"4a"}},
		{"a message behind the probe", []string{"2probe", "4a"}},
		{"a close behind the probe", []string{"2probe", "1"}},
		{"rubbish", []string{"x"}},
		{"silence", nil},
		{"silence behind the probe", []string{"2probe"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // some wait
			b := setUp(t, Options{UpgradeTimeout: time.Second})
			sid := b.open()
			c := receive(t, b.conns)
			ws := b.dial("&sid=" + sid)
			for _, packet := range test.write {
				b.write(ws, packet)
			}
			if code := b.closedWith(ws); code != websocket.CloseNoStatusReceived {
				t.Errorf("closed with %d, want %d", code, websocket.CloseNoStatusReceived)
			}
			b.until(func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.polling.state == pollingOpen })
			pending := b.pollLater(sid) // polls wait again
			_ = c.Send(Text([]byte("still here")))
			if got := receive(t, pending); got.body != "4still here" {
				t.Errorf("polled %+v", got)
			}
			b.upgrade(sid) // and another attempt succeeds
		})
	}
}

func TestSecondUpgradeIsClosed(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	ws := b.probe(sid)
	refused := func(when string) {
		t.Helper()
		if code := b.closedWith(b.dial("&sid=" + sid)); code != websocket.CloseNoStatusReceived {
			t.Errorf("%s: closed with %d, want %d", when, code, websocket.CloseNoStatusReceived)
		}
	}
	refused("while upgrading")
	b.write(ws, "5")
	b.until(func() bool { return b.lookup(sid).Transport() == WebSocket })
	refused("when upgraded")
	b.write(ws, "4a")
	b.gets("a", false)
}

func TestWebSocketThatAsksForPolling(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	for _, query := range []string{"?EIO=4&transport=polling", "?EIO=4&transport=polling&sid=" + sid} {
		ws, _, err := b.tryDial(query)
		if err != nil {
			t.Fatal(err)
		}
		_ = ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(patience))
		if code := b.closedWith(ws); code != websocket.CloseNoStatusReceived {
			t.Errorf("closed with %d, want %d", code, websocket.CloseNoStatusReceived)
		}
	}
	b.post(sid, "4a")
	b.gets("a", false)
}

func TestClosingTheSessionClosesItsProbe(t *testing.T) {
	b := setUp(t, Options{})
	for _, probed := range []bool{false, true} {
		sid := b.open()
		c := receive(t, b.conns)
		ws := b.dial("&sid=" + sid)
		if probed {
			b.write(ws, "2probe")
			b.read(ws)
		}
		b.until(func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.polling.probing != nil })
		_ = c.Close(ForcedClose)
		if code := b.closedWith(ws); code != websocket.CloseNoStatusReceived {
			t.Errorf("closed with %d, want %d", code, websocket.CloseNoStatusReceived)
		}
		b.endsBy(ForcedClose)
	}
}

func TestPingFrameOnAProbe(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	ws := b.dial("&sid=" + sid)
	pongs := make(chan string, 1)
	ws.SetPongHandler(func(data string) error { pongs <- data; return nil })
	_ = ws.WriteControl(websocket.PingMessage, []byte("x"), time.Now().Add(patience))
	b.write(ws, "2probe")
	b.read(ws)
	if got := receive(t, pongs); got != "x" {
		t.Errorf(`got %q, want "x"`, got)
	}
}

// A message that was posted before the upgrade comes before messages sent after it, even if
// Recv has not taken it yet.
func TestUpgradeKeepsTheOrderOfWhatIsReceived(t *testing.T) {
	start := make(chan struct{})
	got := make(chan string, 10)
	b := (&bench{T: t}).serve(Options{MaxPayload: 7}, func(c *Conn) {
		<-start
		for m, err := c.Recv(); err == nil; m, err = c.Recv() {
			got <- string(m.Data)
		}
	})
	sid := b.open()
	b.post(sid, "4a\x1e4b")
	late := make(chan struct{})
	go func() {
		defer close(late)
		b.post(sid, "4c") // waits behind the first
	}()
	c := b.lookup(sid)
	b.until(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.polling.posting
	})
	ws := b.upgrade(sid)
	b.write(ws, "4d")
	close(start)
	for _, want := range []string{"a", "b", "c", "d"} {
		if m := receive(t, got); m != want {
			t.Errorf("received %q, want %q", m, want)
		}
	}
	receive(t, late)
}

// A stock client continues its upgrade when its POST is answered. If its probe is closed
// while the server holds the POST, it never polls again.
func TestUpgradeWaitsForThePOST(t *testing.T) {
	const limit = 100 * time.Millisecond
	step := make(chan struct{})
	b := (&bench{T: t}).serve(Options{UpgradeTimeout: limit, MaxPayload: 7}, func(c *Conn) {
		for _, err := c.Recv(); err == nil; _, err = c.Recv() {
			<-step
		}
	})
	defer close(step)
	sid := b.open()
	b.post(sid, "4a\x1e4b")
	ws := b.probe(sid)
	for range upgradePosts {
		b.post(sid, "4c\x1e4d")
	}
	posted := make(chan struct{})
	go func() {
		defer close(posted)
		b.post(sid, "4c\x1e4d") // held until all before it are taken
	}()
	_ = ws.SetReadDeadline(time.Now().Add(3 * limit))
	if _, _, err := ws.ReadMessage(); !os.IsTimeout(err) {
		t.Fatalf("the probe has ended: %v", err)
	}
	for range 1 + 2*upgradePosts {
		step <- struct{}{}
	}
	receive(t, posted)
	b.write(ws, "5")
	c := b.lookup(sid)
	b.until(func() bool { return c.Transport() == WebSocket })
}

// A stock client that has the answer to its probe gets no ping before it has the answer to
// its POST. So that answer does not wait for the earlier messages.
func TestUpgradeAnswersThePOST(t *testing.T) {
	step, got := make(chan struct{}), make(chan string, 10)
	b := (&bench{T: t}).serve(Options{MaxPayload: 7}, func(c *Conn) {
		for m, err := c.Recv(); err == nil; m, err = c.Recv() {
			got <- string(m.Data)
			<-step
		}
	})
	defer close(step)
	sid := b.open()
	b.post(sid, "4a\x1e4b")
	posted := make(chan struct{})
	go func() {
		defer close(posted)
		b.post(sid, "4c\x1e4d")
	}()
	c := b.lookup(sid)
	b.until(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.polling.posting
	})
	ws := b.probe(sid)
	receive(t, posted)
	b.post(sid, "4e") // in flight when the probe was answered
	b.write(ws, "5")
	b.until(func() bool { return c.Transport() == WebSocket })
	b.write(ws, "4f")
	for _, want := range []string{"a", "b", "c", "d", "e", "f"} {
		if m := receive(t, got); m != want {
			t.Fatalf("received %q, want %q", m, want)
		}
		step <- struct{}{}
	}
}

// A peer that posts cannot keep its probe open for longer than the time limit of a request.
func TestUpgradeIsBoundedAfterThePOST(t *testing.T) {
	b := setUp(t, Options{UpgradeTimeout: 50 * time.Millisecond})
	sid := b.open()
	ws := b.probe(sid)
	b.post(sid, "4a")
	if code := b.closedWith(ws); code != websocket.CloseNoStatusReceived {
		t.Errorf("closed with %d, want %d", code, websocket.CloseNoStatusReceived)
	}
	b.post(sid, "4b") // the session stays
}

// Numbered packets go both ways while the client upgrades, as the stock client does it:
// nothing is lost, duplicated or out of order.
func TestUpgradeUnderLoad(t *testing.T) {
	const rounds, packets = 20, 2000
	b := setUp(t, Options{SendQueueBytes: 64 << 20})
	for range rounds {
		sid := b.open()
		c := receive(t, b.conns)

		var sender sync.WaitGroup
		sender.Go(func() {
			for i := range packets {
				if err := c.Send(Text(strconv.AppendInt(nil, int64(i), 10))); err != nil {
					t.Error(err)
					return
				}
			}
		})
		client := &upgrader{bench: b, sid: sid}
		client.run(packets)
		sender.Wait()

		if len(client.got) != packets {
			t.Fatalf("the client got %d packets, want %d", len(client.got), packets)
		}
		for i, p := range client.got {
			if p != fmt.Sprintf("4%d", i) {
				t.Fatalf("packet %d to the client is %q", i, p)
			}
		}
		for i := range packets {
			if m := receive(t, b.got); string(m.Data) != strconv.Itoa(i) {
				t.Fatalf("packet %d to the server is %q", i, m.Data)
			}
		}
		_ = client.ws.Close()
		b.endsBy(TransportClose)
	}
}

// An upgrader is a client that polls, posts and upgrades meanwhile.
type upgrader struct {
	*bench
	sid string
	ws  *websocket.Conn
	got []string
}

func (u *upgrader) run(packets int) {
	paused := make(chan struct{})
	var polls sync.WaitGroup
	polls.Go(func() {
		for {
			res, body, err := u.try("GET", u.sid, "")
			if err != nil || res.StatusCode != http.StatusOK {
				u.Errorf("poll: %v %s", err, body)
				return
			}
			for packet := range strings.SplitSeq(body, "\x1e") {
				if packet != "6" {
					u.got = append(u.got, packet)
				}
			}
			select {
			case <-paused:
				return
			default:
			}
		}
	})
	sent := 0
	body := func(n int) string {
		var s []string
		for range n {
			s = append(s, fmt.Sprintf("4%d", sent))
			sent++
		}
		return strings.Join(s, "\x1e")
	}
	for range 3 {
		u.post(u.sid, body(100))
	}
	u.ws = u.probe(u.sid)
	u.post(u.sid, body(100))
	close(paused)
	polls.Wait()
	u.write(u.ws, "5")
	go func() {
		for sent < packets {
			_ = u.ws.WriteMessage(websocket.TextMessage, []byte(body(1))) // a loss shows at the server
		}
	}()
	for len(u.got) < packets {
		_, data, err := u.ws.ReadMessage()
		if err != nil {
			u.Fatalf("after %d packets: %v", len(u.got), err)
		}
		u.got = append(u.got, string(data))
	}
}

// The server may send packets immediately with the handshake, so the client must be ready
// to read them.
func TestNoConnectHangs(t *testing.T) {
	b := setUpEcho(t, Options{})
	for i := range 2000 {
		ws := b.dial("")
		b.write(ws, "4"+strconv.Itoa(i)) // before the handshake is read
		if first, second := b.read(ws), b.read(ws); first[0] != '0' || second != "4"+strconv.Itoa(i) {
			t.Fatalf("connect %d: %q, %q", i, first, second)
		}
		_ = ws.Close()
	}
}

func TestNoUpgradeHangs(t *testing.T) {
	b := setUpEcho(t, Options{})
	for i := range 500 {
		sid := b.open()
		ws := b.dial("&sid=" + sid)
		for _, packet := range []string{"2probe", "5", "4" + strconv.Itoa(i)} { // without waiting for an answer
			b.write(ws, packet)
		}
		if first, second := b.read(ws), b.read(ws); first != "3probe" || second != "4"+strconv.Itoa(i) {
			t.Fatalf("upgrade %d: %q, %q", i, first, second)
		}
		_ = ws.Close()
	}
}

// All kinds of ends happen concurrently to the same connections, on either transport.
func TestConcurrentEndsOfConnections(t *testing.T) {
	b := setUpEcho(t, Options{PingInterval: 5 * time.Millisecond, PingTimeout: 5 * time.Millisecond})
	for i := range 100 {
		// On a busy machine its ping times out before it is answered, or right after.
		res, body := b.do("GET", "", "")
		if res.StatusCode != http.StatusOK {
			continue
		}
		sid := body[9:29]
		c := b.lookup(sid)
		if c == nil {
			continue
		}
		var all sync.WaitGroup
		all.Go(func() {
			for c.Send(Text([]byte("a"))) == nil && c.Context().Err() == nil {
				c.TrySend(Text([]byte("b")))
			}
		})
		all.Go(func() { _, _, _ = b.try("GET", sid, "") })
		all.Go(func() { _, _, _ = b.try("POST", sid, "4a\x1e4b") })
		all.Go(func() {
			ws, _, err := b.tryDial("?EIO=4&transport=websocket&sid=" + sid)
			if err != nil {
				return // closed already
			}
			for _, packet := range []string{"2probe", "5", "4a"} {
				_ = ws.WriteMessage(websocket.TextMessage, []byte(packet))
			}
			_, _ = io.Copy(io.Discard, ws.NetConn())
			_ = ws.Close()
		})
		if i%2 == 0 {
			all.Go(func() { _ = c.Close(ForcedClose) })
		}
		all.Wait()
		<-c.Context().Done()
	}
	b.until(func() bool { s := b.Stats(); return s.Polling == 0 && s.WebSocket == 0 })
	if n := len(slices.Collect(b.Conns())); n != 0 {
		t.Errorf("%d connections are left, want 0", n)
	}
}

// A binary message is data, also one that looks like a packet of an upgrade.
func TestBinaryProbe(t *testing.T) {
	b := setUp(t, Options{})
	for _, text := range []bool{false, true} {
		ws := b.dial("&sid=" + b.open())
		if text {
			b.write(ws, "2probe")
			if got := b.read(ws); got != "3probe" {
				t.Fatalf(`probe answered by %q, want "3probe"`, got)
			}
		}
		packet := map[bool]string{false: "2probe", true: "5"}[text]
		if err := ws.WriteMessage(websocket.BinaryMessage, []byte(packet)); err != nil {
			t.Fatal(err)
		}
		if code := b.closedWith(ws); code != websocket.CloseNoStatusReceived {
			t.Errorf("binary %q: closed with %d, want %d", packet, code, websocket.CloseNoStatusReceived)
		}
	}
	if n := b.Stats().Upgrades; n != 0 {
		t.Errorf("got %d upgrades, want 0", n)
	}
}

// bare is a ResponseWriter without optional methods, wrapped one with Unwrap.
type (
	bare    struct{ http.ResponseWriter }
	wrapped struct{ bare }
)

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func behind(wrap func(http.ResponseWriter) http.ResponseWriter) []func(http.Handler) http.Handler {
	return []func(http.Handler) http.Handler{func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(wrap(w), r) })
	}}
}

// A middleware's ResponseWriter is unwrapped for a WebSocket.
func TestUpgradeThroughAWrapper(t *testing.T) {
	b := setUp(t, Options{Use: behind(func(w http.ResponseWriter) http.ResponseWriter { return wrapped{bare{w}} })})
	b.dialOpen()
	b.upgrade(b.open())
}

// If a connection cannot be hijacked the answer is a server error, and the reason is logged
// once. Polling works.
func TestUpgradeImpossible(t *testing.T) {
	for name, use := range map[string][]func(http.Handler) http.Handler{
		"a writer that can't be unwrapped": behind(func(w http.ResponseWriter) http.ResponseWriter { return bare{w} }),
		"TimeoutHandler":                   {func(next http.Handler) http.Handler { return http.TimeoutHandler(next, patience, "") }},
	} {
		t.Run(name, func(t *testing.T) {
			seen, logs := observer.New(zap.WarnLevel)
			b := setUp(t, Options{Use: use, Logger: zap.New(seen)})
			sid := b.open()
			for _, query := range []string{"?EIO=4&transport=websocket", "?EIO=4&transport=websocket&sid=" + sid} {
				if _, res, err := b.tryDial(query); err == nil || res == nil || res.StatusCode != http.StatusInternalServerError {
					t.Errorf("%s: %v, %v", query, res, err)
				}
			}
			if n := logs.Len(); n != 1 || !strings.Contains(fmt.Sprint(logs.All()[0].ContextMap()), "mounting.md") {
				t.Errorf("logged %+v", logs.All())
			}
			b.post(sid, "4a")
			b.gets("a", false)
		})
	}
}
