package engineio

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestPollingCarriesMessages(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	c := receive(t, b.conns)
	if c.ID() != sid || c.Transport() != Polling {
		t.Errorf("the connection is %s by %s, want %s, %s", c.ID(), c.Transport(), sid, Polling)
	}

	res, body := b.do("POST", sid, "4héllo\x1e4\x1ebAQL/\x1e4bye")
	if res.StatusCode != 200 || body != "ok" || res.Header.Get("Content-Type") != "text/html" {
		t.Errorf("POST: %s %q %v", res.Status, body, res.Header)
	}
	b.gets("héllo", false)
	b.gets("", false)
	b.gets("\x01\x02\xff", true)
	b.gets("bye", false)

	if err := c.Send(Text([]byte("a")), Binary([]byte{1, 2, 255}), Text(nil)); err != nil {
		t.Fatal(err)
	}
	if got := b.poll(sid); got != "4a\x1ebAQL/\x1e4" {
		t.Errorf(`polled %q, want "4a\x1ebAQL/\x1e4"`, got)
	}

	later := b.pollLater(sid)
	if err := c.Send(Text([]byte("late"))); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, later); got.body != "4late" {
		t.Errorf("polled %+v", got)
	}
}

func TestPollingIgnoresWhatAClientMustNotSend(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	b.post(sid, "0\x1e5\x1e6\x1e3\x1e3probe\x1e4a")
	b.gets("a", false)
}

// Section 1.2 of the protocol: the events that end a polling session, and its reasons.
func TestPollingFaults(t *testing.T) {
	for _, test := range []struct {
		name    string
		body    string
		header  []string
		status  int
		reason  Reason
		pending string   // the answer to the GET that waits
		before  []string // messages that count
	}{
		{"a type that is none", "4a\x1e9\x1e4b", nil, 400, ParseError, "1", []string{"a"}},
		{"an empty body", "", nil, 400, ParseError, "1", nil},
		{"an empty packet", "4a\x1e", nil, 400, ParseError, "1", []string{"a"}},
		{"bad base64", "b?", nil, 400, ParseError, "1", nil},
		{"not UTF-8", "4a\xff", nil, 400, ParseError, "1", nil},
		{"a ping", "4a\x1e2", nil, 400, TransportError, "1", []string{"a"}},
		{"binary content", "4a", []string{"Content-Type", "application/octet-stream"}, 400, TransportError, "1", nil},
		{"a close", "4a\x1e1\x1e4b", nil, 200, TransportClose, "6", []string{"a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := setUp(t, Options{})
			sid := b.open()
			pending := b.pollLater(sid)
			if res, _ := b.do("POST", sid, test.body, test.header...); res.StatusCode != test.status {
				t.Errorf("POST: %s, want %d", res.Status, test.status)
			}
			if got := receive(t, pending); got.status != 200 || got.body != test.pending {
				t.Errorf("the pending GET: %+v, want %q", got, test.pending)
			}
			for _, m := range test.before {
				b.gets(m, false)
			}
			b.endsBy(test.reason)
			b.unknown(sid)
			if n := len(b.got); n != 0 {
				t.Errorf("got %d more messages, want 0", n)
			}
			if n := b.Stats().Closed[test.reason]; n != 1 {
				t.Errorf("got %d closed by %s, want 1", n, test.reason)
			}
		})
	}
}

func TestTwoGETs(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	first := b.pollLater(sid)
	if res, body := b.do("GET", sid, ""); res.StatusCode != 400 || body != "" {
		t.Errorf("the second: %s %q", res.Status, body)
	}
	if got := receive(t, first); got.status != 200 || got.body != "1" {
		t.Errorf("the first: %+v", got)
	}
	b.endsBy(TransportError)
	b.unknown(sid)
}

// A proxy repeats a GET if a node ends before it has passed the answer on. The client must learn that
// packets were lost.
func TestRepeatedGET(t *testing.T) {
	get := func(b *bench, sid, t string) int {
		b.Helper()
		res, _, err := b.raw("GET", "/engine.io/?EIO=4&transport=polling&sid="+sid+"&t="+t, "")
		if err != nil {
			b.Fatal(err)
		}
		return res.StatusCode
	}
	b := setUp(t, Options{})
	sid := b.open()
	c := receive(t, b.conns)
	for i, test := range []struct {
		t    string
		want int
	}{{"tlwueag9", 200}, {"tlwuxsjx", 200}, {"1764540000", 200}, {"1764540000", 200}, {"", 200}, {"", 200}, {"tlwueag9", 200}, {"tlwueag9", 400}} {
		if err := c.Send(Text([]byte("a"))); err != nil {
			t.Fatal(err)
		}
		if got := get(b, sid, test.t); got != test.want {
			t.Errorf("GET %d with %q: %d, want %d", i, test.t, got, test.want)
		}
	}
	b.endsBy(TransportError)
	b.unknown(sid)
}

// A client that sends the same text with each request repeats nothing.
func TestSameTextInEachGET(t *testing.T) {
	b := setUp(t, Options{})
	const query = "/engine.io/?EIO=4&transport=polling&t=constant"
	_, body, err := b.raw("GET", query, "")
	if err != nil {
		t.Fatal(err)
	}
	c := receive(t, b.conns)
	for range 3 {
		if err := c.Send(Text([]byte("a"))); err != nil {
			t.Fatal(err)
		}
		if res, _, err := b.raw("GET", query+"&sid="+body[9:29], ""); err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
	}
}

// Some clients send the time in milliseconds to base 36, and may poll twice in one.
func TestSameTimeInTwoGETs(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	c := receive(t, b.conns)
	ms := strconv.FormatInt(time.Now().UnixMilli(), 36)
	for range 2 {
		if err := c.Send(Text([]byte("a"))); err != nil {
			t.Fatal(err)
		}
		if res, _, err := b.raw("GET", "/engine.io/?EIO=4&transport=polling&sid="+sid+"&t="+ms, ""); err != nil || res.StatusCode != 200 {
			t.Fatal(res.Status, err)
		}
	}
}

func TestTwoPOSTs(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	c := receive(t, b.conns)
	body, send := io.Pipe()
	first := make(chan int, 1)
	go func() {
		r, _ := http.NewRequest("POST", b.http.URL+"/engine.io/?EIO=4&transport=polling&sid="+sid, body)
		res, err := b.client.Do(r)
		if err != nil {
			first <- 0
			return
		}
		defer res.Body.Close()
		first <- res.StatusCode
	}()
	b.until(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.polling.posting
	})
	if res, text := b.do("POST", sid, "4a"); res.StatusCode != 400 || text != "" {
		t.Errorf("the second: %s %q", res.Status, text)
	}
	b.endsBy(TransportError)
	_, _ = io.WriteString(send, "4a")
	_ = send.Close()
	if status := receive(t, first); status != 400 {
		t.Errorf("the first: %d, want 400", status)
	}
	b.unknown(sid)
	if len(b.got) != 0 {
		t.Error("a message came through")
	}
}

func TestOversizePOST(t *testing.T) {
	b := setUp(t, Options{MaxPayload: 1000})
	sid := b.open()
	if res, body := b.do("POST", sid, "4"+strings.Repeat("a", 1000)); res.StatusCode != 413 || body != "" {
		t.Errorf("got %s %q, want 413 without a body", res.Status, body)
	}
	// Without a length the server detects it while reading.
	r, _ := http.NewRequest("POST", b.http.URL+"/engine.io/?EIO=4&transport=polling&sid="+sid,
		io.MultiReader(strings.NewReader("4"), strings.NewReader(strings.Repeat("a", 1000))))
	res, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 413 {
		t.Errorf("chunked: %s", res.Status)
	}
	exact := strings.Repeat("a", 999)
	b.post(sid, "4"+exact)
	b.gets(exact, false) // the session has survived
}

// wire speaks HTTP over a connection that the test can break.
func (b *bench) wire(request string) net.Conn {
	b.Helper()
	conn, err := net.Dial("tcp", b.http.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprint(conn, strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
		b.Fatal(err)
	}
	return conn
}

// A client closes while it reads nothing of one GET and another one waits, and disconnects both. Nothing
// is left of the connection.
func TestDroppedGETsOfAClosedConnection(t *testing.T) {
	b := setUp(t, Options{SendQueueBytes: 64 << 20})
	sid := b.open()
	c := receive(t, b.conns)
	locked := func(f func() bool) func() bool {
		return func() bool { c.mu.Lock(); defer c.mu.Unlock(); return f() }
	}
	get := "GET /engine.io/?EIO=4&transport=polling&sid=" + sid + " HTTP/1.1\nHost: x\n\n"
	must(t, c.Send(Text(make([]byte, 32<<20))))
	stalled := b.wire(get)
	b.until(locked(func() bool { return c.queue.taken != nil }))
	waiting := b.wire(get)
	b.until(locked(func() bool { return c.polling.get == getWaits }))
	b.post(sid, "1")
	<-c.Context().Done()
	must(t, waiting.Close())
	b.until(locked(func() bool { return c.polling.get == getNone }))
	must(t, stalled.Close())
	b.until(func() bool { return len(b.known()) == 0 })
}

func TestDroppedGET(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	conn := b.wire("GET /engine.io/?EIO=4&transport=polling&sid=" + sid + " HTTP/1.1\nHost: x\n\n")
	b.until(func() bool { return b.polling(sid) })
	_ = conn.Close()
	b.endsBy(TransportError)
	b.unknown(sid)
}

func TestDroppedPOST(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	pending := b.pollLater(sid)
	conn := b.wire("POST /engine.io/?EIO=4&transport=polling&sid=" + sid + " HTTP/1.1\nHost: x\nContent-Length: 10\n\n4abc")
	_ = conn.Close()
	b.endsBy(TransportError)
	if got := receive(t, pending); got.body != "1" {
		t.Errorf("the pending GET: %+v", got)
	}
	b.unknown(sid)
}

func TestCloseReachesAPollThatWaits(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	c := receive(t, b.conns)
	pending := b.pollLater(sid)
	if err := c.Close(ForcedClose); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, pending); got.body != "1" {
		t.Errorf("polled %+v", got)
	}
	b.endsBy(ForcedClose)
	b.unknown(sid)
	if err := c.Close(PingTimeout); err == nil || err.Error() != "engineio: forced close" {
		t.Errorf("closed again: %v", err)
	}
	if err := c.Send(Text(nil)); err == nil {
		t.Error("sent on a closed connection")
	}
}

// A server may close with the reason TransportClose; the client must still get the close.
func TestCloseTellsTheClientWhateverTheReason(t *testing.T) {
	b := setUp(t, Options{})
	for _, reason := range []Reason{TransportClose, TransportError, PingTimeout, ParseError} {
		sid := b.open()
		pending := b.pollLater(sid)
		_ = b.lookup(sid).Close(reason)
		if got := receive(t, pending); got.body != "1" {
			t.Errorf("%s: polled %+v", reason, got)
		}
		b.endsBy(reason)
	}
}

func TestCloseWaitsForTheNextPoll(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	c := receive(t, b.conns)
	_ = c.Send(Text([]byte("last words")))
	_ = c.Close(ForcedClose)
	b.endsBy(ForcedClose) // the application does not wait
	if s := b.Stats(); s.Polling != 0 || s.Closed[ForcedClose] != 1 {
		t.Errorf("got %+v, want no polling connection and one close", s)
	}
	for range b.Conns() {
		t.Error("a closed connection is listed")
	}
	fetched := make(chan error, 1)
	go func() { fetched <- c.Finish(t.Context()) }()
	b.post(sid, "4ignored")
	// The close is never in one response with messages, because a stock client would act on
	// the close first.
	if got := b.poll(sid); got != "4last words" {
		t.Errorf(`polled %q, want "4last words"`, got)
	}
	if len(fetched) > 0 {
		t.Error("fetched, though the close is not")
	}
	if got := b.poll(sid); got != "1" {
		t.Errorf(`polled %q, want "1"`, got)
	}
	b.unknown(sid)
	if err := receive(t, fetched); err != nil {
		t.Error(err)
	}
	if len(b.got) != 0 {
		t.Error("a message came through")
	}
}

// A client that has not received everything is cut when the context of Finish ends, in any
// state of its connection.
func TestFinishEndsWithItsContext(t *testing.T) {
	b := setUp(t, Options{SendQueueBytes: 64 << 20})
	enough := errors.New("enough")
	over, cancel := context.WithCancelCause(t.Context())
	cancel(enough)

	sid := b.open()
	c := receive(t, b.conns)
	if err := c.Finish(t.Context()); err != nil {
		t.Errorf("open: %v", err)
	}
	_ = c.Close(ForcedClose)
	if err := c.Finish(over); err != enough {
		t.Errorf("between two polls: %v, want the cause", err)
	}
	b.unknown(sid)
	if err := c.Finish(t.Context()); err != nil {
		t.Errorf("after the cut: %v", err)
	}

	_, c = b.dialOpen()
	b.clog(c)
	_ = c.Close(ForcedClose)
	if err := c.Finish(over); err != enough {
		t.Errorf("a WebSocket whose client does not read: %v, want the cause", err)
	}
	if err := c.Finish(t.Context()); err != nil || c.Queued() > 0 {
		t.Errorf("after the cut: %v, %d bytes are queued, want 0", err, c.Queued())
	}

	ws, c := b.dialOpen()
	_ = c.Close(ForcedClose)
	go func() {
		_, _, _ = ws.ReadMessage() // answers the close
		_ = ws.Close()
	}()
	if err := c.Finish(t.Context()); err != nil {
		t.Errorf("a WebSocket that is read: %v", err)
	}
}

// A closed connection is known until its last response is written, so that the queue budget and
// Finish can find it; its client gets nothing more.
func TestClosedConnectionIsKnownWhileItWrites(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	c := receive(t, b.conns)
	w := &slowWriter{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	var get sync.WaitGroup
	get.Go(func() {
		b.ServeHTTP(w, httptest.NewRequest("GET", "/engine.io/?EIO=4&transport=polling&sid="+sid, nil))
	})
	must(t, c.Send(Text([]byte("slow"))))
	<-w.flushing
	c.close(&CloseError{Reason: ForcedClose}, closeCut)
	if b.lookup(sid) != c {
		t.Error("forgotten while a response is written")
	}
	b.unknown(sid)
	close(w.flushed)
	get.Wait()
	if b.lookup(sid) != nil {
		t.Error("known when nothing is left to write")
	}

	release := make(chan struct{})
	b = &bench{T: t, conns: make(chan *Conn, 1)}
	b.serve(Options{}, func(c *Conn) {
		b.conns <- c
		<-release
	})
	_, c = b.dialOpen()
	_ = c.Close(ForcedClose)
	b.until(func() bool { return c.Queued() == 0 })
	if b.lookup(c.ID()) != c {
		t.Error("forgotten before its wire is closed")
	}
	close(release)
	must(t, c.Finish(t.Context()))
}

func TestServerCloseDoesNotWaitForPolls(t *testing.T) {
	b := setUp(t, Options{})
	waiting, idle := b.open(), b.open()
	pending := b.pollLater(waiting)
	_ = b.lookup(idle).Send(Text([]byte("unfetched")))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, pending); got.body != "1" {
		t.Errorf("polled %+v", got)
	}
	b.unknown(waiting)
	b.unknown(idle)
	if res, _ := b.do("GET", "", ""); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a handshake after the close: %s", res.Status)
	}
	if _, _, err := b.tryDial("?EIO=4&transport=websocket"); err == nil {
		t.Error("a WebSocket was opened after the close")
	}
}

// A POST is answered only when there is space for its messages.
func TestBackPressure(t *testing.T) {
	conns, step := make(chan *Conn, 1), make(chan struct{})
	b := (&bench{T: t}).serve(Options{MaxPayload: 7}, func(c *Conn) {
		conns <- c
		for _, err := c.Recv(); err == nil; _, err = c.Recv() {
			<-step
		}
	})
	defer close(step)
	sid := b.open()
	b.post(sid, "4a\x1e4b") // a is taken, b waits
	c := receive(t, conns)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.post(sid, "4c\x1e4d")
	}()
	b.until(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.polling.posting
	})
	select {
	case <-done:
		t.Error("answered while a message of the POST before waits")
	default:
	}
	step <- struct{}{} // b is taken
	receive(t, done)
}

// A POST that is held for longer than the HTTP server's write timeout is answered.
func TestHeldPOSTIsAnswered(t *testing.T) {
	const limit = 100 * time.Millisecond
	step := make(chan struct{})
	b := &bench{T: t}
	b.serve(Options{MaxPayload: 7}, func(c *Conn) {
		for _, err := c.Recv(); err == nil; _, err = c.Recv() {
			<-step
		}
	})
	defer close(step)
	strict := httptest.NewUnstartedServer(b.Server)
	strict.Config.WriteTimeout = limit
	strict.Start()
	defer strict.Close()
	sid := b.open()
	b.post(sid, "4a\x1e4b")
	release := time.AfterFunc(3*limit, func() { step <- struct{}{} })
	defer release.Stop()
	res, err := http.Post(strict.URL+"/engine.io/?EIO=4&transport=polling&sid="+sid, "text/plain", strings.NewReader("4held"))
	must(t, err)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("answered %s", res.Status)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestPollingCompression(t *testing.T) {
	long := strings.Repeat("0123456789", 120)
	for _, test := range []struct {
		name     string
		accept   string
		packet   *Packet
		o        Options
		encoding string
	}{
		{"gzip", "gzip, deflate, br", Text([]byte(long)), Options{}, "gzip"},
		{"deflate", "deflate", Text([]byte(long)), Options{}, "deflate"},
		{"preferred", "gzip;q=0.5, deflate;q=0.8", Text([]byte(long)), Options{}, "deflate"},
		{"refused", "gzip;q=0, deflate;q=0.0", Text([]byte(long)), Options{}, ""},
		{"anything", "*", Text([]byte(long)), Options{}, "gzip"},
		{"anything but gzip", "gzip;q=0, *", Text([]byte(long)), Options{}, "deflate"},
		{"nothing named", "", Text([]byte(long)), Options{}, ""},
		{"never br", "br", Text([]byte(long)), Options{}, ""},
		{"just below the threshold", "gzip", Text([]byte(long[:1022])), Options{}, ""},
		{"at the threshold", "gzip", Text([]byte(long[:1023])), Options{}, "gzip"},
		{"not wanted", "gzip", Text([]byte(long)).NoCompress(), Options{}, ""},
		{"off", "gzip", Text([]byte(long)), Options{HTTPCompressionThreshold: -1}, ""},
		{"another threshold", "gzip", Text([]byte("short")), Options{HTTPCompressionThreshold: 5}, "gzip"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := setUp(t, test.o)
			sid := b.open()
			_ = receive(t, b.conns).Send(test.packet)
			res, body := b.do("GET", sid, "", "Accept-Encoding", test.accept)
			if got := res.Header.Get("Content-Encoding"); got != test.encoding {
				t.Errorf("encoded as %q, want %q", got, test.encoding)
			}
			if res.ContentLength != int64(len(body)) {
				t.Errorf("length %d of %d, want %d", res.ContentLength, len(body), int64(len(body)))
			}
			var r io.Reader = strings.NewReader(body)
			var err error
			switch test.encoding {
			case "gzip":
				r, err = gzip.NewReader(r)
			case "deflate":
				r, err = zlib.NewReader(r)
			}
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(plain, test.packet.polling()) {
				t.Errorf("got %q, %v", plain, err)
			}
		})
	}
}

func TestOneCompressiblePacketIsEnough(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	long := Text(bytes.Repeat([]byte("a"), 2000))
	_ = receive(t, b.conns).Send(long.NoCompress(), Text(nil))
	if res, _ := b.do("GET", sid, "", "Accept-Encoding", "gzip"); res.Header.Get("Content-Encoding") != "gzip" {
		t.Error("not compressed")
	}
}

func TestInternetExplorer(t *testing.T) {
	b := setUp(t, Options{})
	for agent, want := range map[string]string{
		"Mozilla/4.0 (compatible;MSIE 8.0; Windows NT 6.0)":         "0",
		"Mozilla/5.0 (Windows NT 6.3; Trident/7.0; rv:11.0) like G": "0",
		"Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko":           "",
	} {
		if res, _ := b.do("GET", "", "", "User-Agent", agent); res.Header.Get("X-XSS-Protection") != want {
			t.Errorf("%s: %q, want %q", agent, res.Header.Get("X-XSS-Protection"), want)
		}
	}
}

// A client that reads no response is cut, and does not delay a close.
func TestPollThatIsNotRead(t *testing.T) {
	t.Parallel() // it waits
	b := setUp(t, Options{PingInterval: time.Second, PingTimeout: 500 * time.Millisecond, SendQueueBytes: 64 << 20})
	big := Text(make([]byte, 32<<20))
	sid := b.open()
	c := receive(t, b.conns)
	conn := b.wire("GET /engine.io/?EIO=4&transport=polling&sid=" + sid + " HTTP/1.1\nHost: x\n\n")
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	b.until(func() bool { return b.polling(sid) })
	if err := c.Send(big); err != nil {
		t.Fatal(err)
	}
	err := receive(t, b.ends)
	if err == nil {
		t.Fatal("it did not end")
	}
	b.until(func() bool { return b.Stats().QueuedBytes == 0 })
}

// Messages that are too large are counted on every transport, and logged with a limited
// rate.
func TestTooLargeIsLogged(t *testing.T) {
	seen, logs := observer.New(zap.WarnLevel)
	b := setUp(t, Options{MaxPayload: 1000, Logger: zap.New(seen)})
	sid := b.open()
	receive(t, b.conns)
	for range 3 {
		b.do("POST", sid, "4"+strings.Repeat("a", 1000))
	}
	ws, _ := b.dialOpen()
	b.write(ws, "4"+strings.Repeat("a", 1000))
	b.closedWith(ws)
	if n := b.Stats().TooLarge; n != 4 {
		t.Errorf("%d are counted, want 4", n)
	}
	lines := logs.All()
	if len(lines) != 1 {
		t.Fatalf("logged %+v", lines)
	}
	f := lines[0].ContextMap()
	if f["transport"] != "polling" || f["at_least_bytes"] != int64(1001) || f["max_payload"] != int64(1000) || f["remote"] == "" {
		t.Errorf("fields %v", f)
	}
	b.oversize.mu.Lock()
	b.oversize.next = time.Time{} // as if the interval had passed
	b.oversize.mu.Unlock()
	b.do("POST", sid, "4"+strings.Repeat("a", 1000))
	if lines := logs.All(); len(lines) != 2 || lines[1].ContextMap()["not_logged"] != int64(3) {
		t.Errorf("logged %+v", lines)
	}
}

// Small POSTs are answered although Recv has not taken the earlier ones, as far as there is
// space, because some clients wait only five seconds.
func TestPOSTsAreAnsweredWhileThereIsSpace(t *testing.T) {
	start, got := make(chan struct{}), make(chan string, 100)
	b := (&bench{T: t}).serve(Options{MaxPayload: 300}, func(c *Conn) {
		<-start
		for m, err := c.Recv(); err == nil; m, err = c.Recv() {
			got <- string(m.Data)
		}
	})
	sid := b.open()
	for i := range 50 {
		b.post(sid, fmt.Sprintf("4%d\x1e4%d", 2*i+10, 2*i+11)) // 6 or 8 bytes
		if i == 30 {
			close(start)
		}
	}
	for i := range 100 {
		if m := receive(t, got); m != strconv.Itoa(i+10) {
			t.Fatalf("received %q, want %d", m, i+10)
		}
	}
}

// A message that is kept does not hold the rest of its POST in memory.
func TestMessagesDoNotHoldTheirPOST(t *testing.T) {
	const posts, size = 30, 900_000
	b := setUp(t, Options{})
	sid := b.open()
	receive(t, b.conns)
	noops := strings.Repeat("\x1e6"+strings.Repeat("x", size/10-2), 10)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	var kept []Message
	for range posts {
		b.post(sid, "4kept"+noops)
		kept = append(kept, receive(t, b.got))
	}
	if more := heap() - before; more > posts*size/4 {
		t.Errorf("%d messages hold %d bytes, want at most %d", len(kept), more, posts*size/4)
	}
	runtime.KeepAlive(kept)
}

// A paused connection accepts small polling requests only. The bodies of others are not
// read until the pause ends. Unread returns the size of earlier ones.
func TestPollingRequestsWaitForTheEndOfAPause(t *testing.T) {
	paused, goOn := make(chan int), make(chan struct{})
	b := &bench{T: t, got: make(chan Message, 10)}
	b.serve(Options{}, func(c *Conn) {
		for i := 0; ; i++ {
			m, err := c.Recv()
			if err != nil {
				return
			}
			b.got <- m
			if i < 2 {
				c.Pause()
				paused <- c.Unread()
				<-goOn
				c.Resume()
			}
		}
	})
	sid := b.open()
	answered := make(chan error, 1)
	later := func(body string) {
		go func() {
			_, _, err := b.try("POST", sid, body)
			answered <- err
		}()
	}
	body := "4" + strings.Repeat("a", 1000) + separator + "4b"
	later(body)
	if n := receive(t, paused); n < len(body) {
		t.Errorf("%d bytes are unread, want at least %d: the memory of the whole body", n, len(body))
	}
	must(t, receive(t, answered)) // it had been taken in
	goOn <- struct{}{}
	if n := receive(t, paused); n != 0 {
		t.Errorf("%d bytes are unread, want 0", n)
	}
	b.post(sid, "4c")
	later("4" + strings.Repeat("d", addedInPause))
	select {
	case <-answered:
		t.Fatal("a request is answered during a pause")
	case <-time.After(50 * time.Millisecond):
	}
	goOn <- struct{}{}
	must(t, receive(t, answered))
	for range 2 {
		receive(t, b.got)
	}
	for _, want := range "cd" {
		if m := receive(t, b.got); rune(m.Data[0]) != want {
			t.Errorf("got %.10q", m.Data)
		}
	}
}
