package engineio

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestWebSocketCarriesMessages(t *testing.T) {
	b := setUp(t, Options{})
	ws, c := b.dialOpen()
	if c.Transport() != WebSocket {
		t.Errorf("by %s, want %s", c.Transport(), WebSocket)
	}
	b.carries(ws, c)
}

func TestWebSocketOverTLS(t *testing.T) {
	b := setUp(t, Options{})
	b.http.Close()
	b.http = httptest.NewTLSServer(b.Server)
	d := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // the test's own server
	ws, _, err := d.Dial("wss"+strings.TrimPrefix(b.http.URL, "https")+"/engine.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	b.read(ws)
	c := receive(t, b.conns)
	if !c.Handshake().TLS {
		t.Error("the handshake does not say TLS")
	}
	b.carries(ws, c)
	_ = c.Close(ForcedClose)
	if code := b.closedWith(ws); code != websocket.CloseNoStatusReceived {
		t.Errorf("closed with %d, want %d", code, websocket.CloseNoStatusReceived)
	}
	b.endsBy(ForcedClose)
}

// carries sends messages of many sizes both ways.
func (b *bench) carries(ws *websocket.Conn, c *Conn) {
	b.Helper()
	for _, n := range []int{0, 1, 124, 125, 126, 2047, 2048, 4095, 4096, 4097, 65534, 65535, 65536, 999_999} {
		data := bytes.Repeat([]byte{'a' + byte(n%26)}, n)
		b.write(ws, "4"+string(data))
		b.gets(string(data), false)
		if err := ws.WriteMessage(websocket.BinaryMessage, data); err != nil {
			b.Fatal(err)
		}
		b.gets(string(data), true)
		if err := c.Send(Text(data), Binary(data), Text([]byte("end"))); err != nil {
			b.Fatal(err)
		}
		for i, want := range []string{"4" + string(data), string(data), "4end"} {
			kind, got, err := ws.ReadMessage()
			if err != nil || string(got) != want || (kind == websocket.BinaryMessage) != (i == 1) {
				b.Fatalf("%d bytes: message %d: kind %d, %d bytes, %v", n, i, kind, len(got), err)
			}
		}
		if err := c.WaitQueue(b.Context(), 0); err != nil {
			b.Fatal(err)
		}
	}
}

// Section 1.3 of the protocol, except for the effect of a close packet.
func TestWebSocketFaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		kind   int
		data   string
		code   int
		reason Reason
	}{
		{"a close", websocket.TextMessage, "1", 1005, TransportClose},
		{"a ping", websocket.TextMessage, "2", 1005, TransportError},
		{"a probe", websocket.TextMessage, "2probe", 1005, TransportError},
		{"a type that is none", websocket.TextMessage, "9", 1005, ParseError},
		{"nothing", websocket.TextMessage, "", 1005, ParseError},
		{"bad base64", websocket.TextMessage, "b?", 1005, ParseError},
		{"too much text", websocket.TextMessage, "4" + strings.Repeat("a", 1000), 1009, TransportError},
		{"too much binary", websocket.BinaryMessage, strings.Repeat("a", 1001), 1009, TransportError},
		{"far too much", websocket.BinaryMessage, strings.Repeat("a", 3_000_000), 1009, TransportError},
		{"text that is not UTF-8", websocket.TextMessage, "4\xff", 1007, TransportError},
		{"a close frame", websocket.CloseMessage, "\x03\xe8bye", 1000, TransportClose},
		{"a close frame without a code", websocket.CloseMessage, "", 1005, TransportClose},
		{"a close frame of the application", websocket.CloseMessage, "\x0f\xa0", 4000, TransportClose},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := setUp(t, Options{MaxPayload: 1000})
			ws, c := b.dialOpen()
			ws.SetCloseHandler(func(int, string) error { return nil })
			if err := ws.WriteMessage(test.kind, []byte(test.data)); err != nil {
				t.Fatal(err)
			}
			if code := b.closedWith(ws); code != test.code {
				t.Errorf("closed with %d, want %d", code, test.code)
			}
			b.endsBy(test.reason)
			b.unknown(c.ID())
		})
	}
}

func TestWebSocketIgnores(t *testing.T) {
	b := setUp(t, Options{MaxPayload: 1000})
	ws, _ := b.dialOpen()
	for _, packet := range []string{"0", "0{}", "3", "3probe", "5", "6"} {
		b.write(ws, packet)
	}
	exact := strings.Repeat("a", 999)
	b.write(ws, "4"+exact)
	b.gets(exact, false)
}

func TestBinaryAsText(t *testing.T) {
	b := setUp(t, Options{})
	ws, _ := b.dialOpen()
	b.write(ws, "bAQL/")
	b.gets("\x01\x02\xff", true)

	ws = b.dial("&b64=1")
	b.read(ws)
	_ = receive(t, b.conns).Send(Binary([]byte{1, 2, 255}))
	kind, data, err := ws.ReadMessage()
	if err != nil || kind != websocket.TextMessage || string(data) != "bAQL/" {
		t.Errorf("got %d %q %v", kind, data, err)
	}
}

func TestPeerDisconnects(t *testing.T) {
	b := setUp(t, Options{})
	ws, _ := b.dialOpen()
	_ = ws.NetConn().Close()
	b.endsBy(TransportClose)

	ws, _ = b.dialOpen()
	_ = ws.NetConn().(*net.TCPConn).SetLinger(0) // a reset
	_ = ws.NetConn().Close()
	b.endsBy(TransportClose)

	ws, _ = b.dialOpen()
	_, _ = ws.NetConn().Write([]byte{0xFF, 0xFF, 0xFF, 0xFF}) // not a frame
	b.endsBy(TransportError)
}

// Pings of the WebSocket protocol are answered between packets, and never tear one.
func TestControlFramesBetweenPackets(t *testing.T) {
	b := setUp(t, Options{SendQueueBytes: 64 << 20})
	ws, c := b.dialOpen()
	const n = 500
	last := ""
	ws.SetPongHandler(func(data string) error { last = data; return nil })
	go func() {
		for i := range n {
			_ = ws.WriteControl(websocket.PingMessage, fmt.Append(nil, i), time.Now().Add(patience))
		}
	}()
	size := func(i int) int { return (i * 997) % 9000 }
	go func() {
		for i := range n {
			_ = c.Send(Binary(bytes.Repeat([]byte{byte(i)}, size(i))))
		}
	}()
	for i := range n {
		_, data, err := ws.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if len(data) != size(i) || len(bytes.Trim(data, string([]byte{byte(i)}))) != 0 && i < 128 {
			t.Fatalf("message %d is torn: %d bytes", i, len(data))
		}
	}
	for last != fmt.Sprint(n-1) { // pongs that were queued together are one
		_ = c.Send(Text(nil))
		b.read(ws)
	}
}

// A client that reads nothing has one pong queued, that to its latest ping.
func TestPingsOfAClientThatDoesNotRead(t *testing.T) {
	const pings, size = 10_000, 32 << 20
	b := setUp(t, Options{})
	ws, c := b.dialOpen()
	must(t, c.Send(Text(make([]byte, size))))
	b.until(func() bool { // it is being written, so that no pong precedes it
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.queue.stalled(50 * time.Millisecond)
	})
	for i := range pings {
		must(t, ws.WriteControl(websocket.PingMessage, fmt.Append(nil, i), time.Now().Add(patience)))
	}
	b.write(ws, "4behind the pings")
	b.gets("behind the pings", false)
	if n, all := c.Queued(), b.Stats().QueuedBytes; n > size+1000 || all < int64(n) || all > int64(n)+keepJoin { // beside a reused buffer
		t.Errorf("%d bytes are queued, %d of all, want at most %d, %d", n, all, size+1000, n+keepJoin)
	}
	pongs := make(chan string, pings)
	ws.SetPongHandler(func(data string) error { pongs <- data; return nil })
	b.read(ws)
	must(t, c.Send(Text([]byte("behind the pong"))))
	b.read(ws)
	if last := receive(t, pongs); last != fmt.Sprint(pings-1) || len(pongs) != 0 {
		t.Errorf("the pong has %q, and %d more follow", last, len(pongs))
	}
	must(t, c.WaitQueue(t.Context(), 0))
	if n := b.Stats().QueuedBytes; n != 0 {
		t.Errorf("%d bytes are left, want 0", n)
	}
}

func TestPerMessageDeflate(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789"), 1000)
	for _, on := range []bool{false, true} {
		b := setUp(t, Options{PerMessageDeflate: on, SendQueueBytes: 8 << 20})
		ws, res, err := b.tryDial("?EIO=4&transport=websocket")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(res.Header.Get("Sec-Websocket-Extensions"), "permessage-deflate"); got != on {
			t.Errorf("negotiated: %v, want %v", got, on)
		}
		b.read(ws)
		c := receive(t, b.conns)
		short := Text([]byte("short"))
		noise := make([]byte, 100_000)
		for i := range noise {
			noise[i] = byte(rand.Uint32())
		}
		text := Text(long)
		if err := c.Send(short, text, Binary(noise), text.NoCompress(), text); err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"4short", "4" + string(long), string(noise), "4" + string(long), "4" + string(long)} {
			if got := b.read(ws); got != want {
				t.Fatalf("message %d: %d bytes, want %d", i, len(got), len(want))
			}
		}
		if err := c.WaitQueue(t.Context(), 0); err != nil { // and the writer's result is visible
			t.Fatal(err)
		}
		if compressed := text.deflated.frame != nil; compressed != on || short.deflated.frame != nil {
			t.Errorf("compressed: %v, want %v", compressed, on)
		}
		ws.EnableWriteCompression(true)
		b.write(ws, "4"+string(long))
		b.gets(string(long), false)
		// A small frame that is a large message.
		b.write(ws, "4"+strings.Repeat("a", 1_000_000))
		if code := b.closedWith(ws); code != websocket.CloseMessageTooBig {
			t.Errorf("closed with %d, want %d", code, websocket.CloseMessageTooBig)
		}
		b.endsBy(TransportError)
	}
}

func TestCloseFlushes(t *testing.T) {
	b := setUp(t, Options{})
	ws, c := b.dialOpen()
	for range 100 {
		if err := c.Send(Text(bytes.Repeat([]byte("a"), 5000))); err != nil {
			t.Fatal(err)
		}
	}
	b.write(ws, "4unread by the time it closes")
	_ = c.Close(ForcedClose)
	for range 100 {
		if got := b.read(ws); len(got) != 5001 {
			t.Fatalf("got %d bytes, want 5001", len(got))
		}
	}
	if code := b.closedWith(ws); code != websocket.CloseNoStatusReceived {
		t.Errorf("closed with %d, want %d", code, websocket.CloseNoStatusReceived)
	}
	b.endsBy(ForcedClose)
	b.unknown(c.ID())
}

func TestServeThatReturnsCloses(t *testing.T) {
	b := (&bench{T: t}).serve(Options{}, func(c *Conn) { _ = c.Send(Text([]byte("bye"))) })
	ws := b.dial("")
	b.read(ws)
	if got := b.read(ws); got != "4bye" {
		t.Errorf(`got %q, want "4bye"`, got)
	}
	if code := b.closedWith(ws); code != websocket.CloseNoStatusReceived {
		t.Errorf("closed with %d, want %d", code, websocket.CloseNoStatusReceived)
	}
}

// A peer that does not read cannot delay a close.
func TestCloseOfAStuckConnection(t *testing.T) {
	b := setUp(t, Options{SendQueueBytes: 64 << 20})
	_, c := b.dialOpen()
	if err := c.Send(Text(make([]byte, 32<<20))); err != nil {
		t.Fatal(err)
	}
	_ = c.Close(ForcedClose)
	b.endsBy(ForcedClose) // immediately, although the writer is stuck
	if c.Queued() == 0 {
		t.Fatal("the kernel took 32 MiB, so nothing is stuck")
	}
	b.until(func() bool { return c.Queued() == 0 }) // the timer cuts
}

func TestServerCloseEndsWithItsContext(t *testing.T) {
	b := setUp(t, Options{SendQueueBytes: 64 << 20})
	_, c := b.dialOpen()
	if err := c.Send(Text(make([]byte, 32<<20))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Close(ctx); err != nil && !errors.Is(err, context.Canceled) { // everything may have ended by then
		t.Error(err)
	}
	b.until(func() bool { return c.Queued() == 0 })
}

// Close ends soon in all states of WebSockets: their peers do not read, do not close their
// side, or request an upgrade and send nothing more.
func TestServerCloseCutsRemainingConnections(t *testing.T) {
	b := setUp(t, Options{SendQueueBytes: 64 << 20})
	_, open := b.dialOpen()
	b.clog(open)
	_, closed := b.dialOpen()
	b.clog(closed)
	_ = closed.Close(ForcedClose)
	sid := b.open()
	b.dial("&sid=" + sid)
	b.dial("&sid=" + sid) // a second one is refused, and keeps its side open
	began := time.Now()
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > patience/2 { // they would linger for longer
		t.Errorf("Close took %v, want at most %v", took, patience/2)
	}
	if n := len(b.probes); n > 0 {
		t.Errorf("%d WebSockets are left, want 0", n)
	}
}

// clog queues more for a WebSocket than the kernel buffers.
func (b *bench) clog(c *Conn) {
	b.Helper()
	if err := c.Send(Text(make([]byte, 32<<20))); err != nil {
		b.Fatal(err)
	}
}

func TestRecvAfterTheEnd(t *testing.T) {
	ends := make(chan error, 2000)
	b := (&bench{T: t}).serve(Options{}, func(c *Conn) {
		for range cap(ends) {
			_, err := c.Recv()
			ends <- err
		}
	})
	ws := b.dial("")
	_ = ws.Close()
	first := receive(t, ends)
	for range cap(ends) - 1 {
		if err := receive(t, ends); !errors.Is(err, first) {
			t.Fatalf("first %v, then %v, want %v", first, err, first)
		}
	}
}

// A client that reads nothing cannot have received the ping.
func TestPongWithoutReading(t *testing.T) {
	large := Binary(make([]byte, 32<<20)) // takes its time
	b := setUp(t, Options{PingInterval: 2 * time.Second, PingTimeout: time.Second, SendQueueBytes: 64 << 20})
	wire, c := b.dialStalled()
	must(t, c.Send(large))
	pong := time.NewTicker(10 * time.Millisecond)
	defer pong.Stop()
	closed := time.After(patience)
	for c.cause() == nil {
		select {
		case <-pong.C:
			_, _ = wire.Write([]byte{0x81, 0x81, 0, 0, 0, 0, '3'}) // fails once the server has closed
		case <-closed:
			t.Fatal("it is still open")
		}
	}
	b.endsBy(PingTimeout)
}

// Each part of a long write that the client reads counts as progress.
func TestProgressOfALongWrite(t *testing.T) {
	const size = 64 << 20
	b := setUp(t, Options{SendQueueBytes: 2 * size})
	ws, c := b.dialOpen()
	must(t, c.Send(Binary(make([]byte, size))))
	stalled := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.queue.stalled(300 * time.Millisecond)
	}
	b.until(stalled)
	if _, err := io.CopyN(io.Discard, ws.NetConn(), size/2); err != nil {
		t.Fatal(err)
	}
	if stalled() {
		t.Error("half of the message is read, and the connection counts as stalled")
	}
}

func TestProgressOfALongResponse(t *testing.T) {
	const size = 64 << 20
	b := setUp(t, Options{SendQueueBytes: 2 * size})
	sid := b.open()
	c := receive(t, b.conns)
	must(t, c.Send(Text(make([]byte, size))))
	wire, err := net.Dial("tcp", b.http.Listener.Addr().String())
	must(t, err)
	defer wire.Close()
	fmt.Fprintf(wire, "GET /engine.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: h\r\n\r\n", sid)
	stalled := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.queue.stalled(300 * time.Millisecond)
	}
	b.until(stalled)
	if _, err := io.CopyN(io.Discard, wire, size/2); err != nil {
		t.Fatal(err)
	}
	if stalled() {
		t.Error("half of the response is read, and the connection counts as stalled")
	}
}
