package engineio

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"github.com/gorilla/websocket"
)

// spyListener counts the writes of its connections.
type spyListener struct {
	net.Listener
	conns chan *spyConn
}

type spyConn struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
}

func (l *spyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &spyConn{Conn: conn}
	l.conns <- c
	return c, nil
}

func (c *spyConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, p)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *spyConn) takeWrites() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.writes
	c.writes = nil
	return w
}

// spied opens a WebSocket whose writes are counted.
func (b *bench) spied(l *spyListener) (*websocket.Conn, *Conn, *spyConn) {
	b.Helper()
	ws, c := b.dialOpen()
	spy := receive(b.T, l.conns)
	if err := c.WaitQueue(b.Context(), 0); err != nil {
		b.Fatal(err)
	}
	b.until(func() bool { c.mu.Lock(); defer c.mu.Unlock(); return !c.writing })
	spy.takeWrites()
	return ws, c, spy
}

func (b *bench) spy() *spyListener {
	b.Helper()
	b.http.Close()
	b.http = httptest.NewUnstartedServer(b.Server)
	l := &spyListener{Listener: b.http.Listener, conns: make(chan *spyConn, 256)}
	b.http.Listener = l
	b.http.Start()
	return l
}

func TestQueuedPacketsLeaveInOneWrite(t *testing.T) {
	b := setUp(t, Options{})
	ws, c, spy := b.spied(b.spy())
	packets := make([]*Packet, 16)
	for i := range packets {
		packets[i] = Text([]byte{'a' + byte(i)})
	}
	if err := c.Send(packets...); err != nil {
		t.Fatal(err)
	}
	for i := range packets {
		if got := b.read(ws); got != "4"+string(rune('a'+i)) {
			t.Fatalf("packet %d is %q", i, got)
		}
	}
	if n := len(spy.takeWrites()); n != 1 {
		t.Errorf("16 packets left in %d writes, want 1", n)
	}
}

// The answer to a handshake and the first packets leave together, and what follows without them.
func TestHandshakeIsAnsweredInOneWrite(t *testing.T) {
	b := setUp(t, Options{InitialPacket: Text([]byte("first"))})
	l := b.spy()
	ws, c := b.dialOpen()
	spy := receive(t, l.conns)
	if got := b.read(ws); got != "4first" {
		t.Fatalf(`got %q, want "4first"`, got)
	}
	all := spy.takeWrites()
	if len(all) != 1 || !bytes.HasPrefix(all[0], []byte("HTTP/1.1 101 ")) || bytes.Count(all[0], []byte("\r\n\r\n")) != 1 {
		t.Errorf("the handshake was answered with %q", all)
	}
	if err := c.Send(Text([]byte("second"))); err != nil {
		t.Fatal(err)
	}
	if got := b.read(ws); got != "4second" {
		t.Errorf(`got %q, want "4second"`, got)
	}
}

// Packets queued during a write leave in the next one.
func TestPacketsQueuedDuringAWriteLeaveTogether(t *testing.T) {
	b := setUp(t, Options{})
	l := b.spy()
	ws, c, spy := b.spied(l)
	spy.mu.Lock() // the first write waits
	for i := range 16 {
		if err := c.Send(Text([]byte{'a' + byte(i)})); err != nil {
			t.Fatal(err)
		}
		b.until(func() bool { c.mu.Lock(); defer c.mu.Unlock(); return i > 0 || c.queue.pending == nil })
	}
	before := runtime.NumGoroutine()
	for range 100 {
		_ = c.Send(Text([]byte("more")))
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines were started while a writer was at work", n-before)
	}
	spy.mu.Unlock()
	for range 116 {
		b.read(ws)
	}
	if n := len(spy.takeWrites()); n != 2 {
		t.Errorf("left in %d writes, want 2", n)
	}
}

// A broadcast is encoded once: all connections write the same bytes.
func TestBroadcastIsEncodedOnce(t *testing.T) {
	b := setUp(t, Options{})
	l := b.spy()
	var clients []*websocket.Conn
	var spies []*spyConn
	for range 100 {
		ws, _, spy := b.spied(l)
		clients, spies = append(clients, ws), append(spies, spy)
	}
	p := Text([]byte("to all"))
	for c := range b.Conns() {
		if err := c.Send(p); err != nil {
			t.Fatal(err)
		}
	}
	for i, ws := range clients {
		if got := b.read(ws); got != "4to all" {
			t.Fatalf(`client %d read %q, want "4to all"`, i, got)
		}
		writes := spies[i].takeWrites()
		if len(writes) != 1 || unsafe.SliceData(writes[0]) != unsafe.SliceData(p.frame) {
			t.Fatalf("client %d: %d writes, or a copy", i, len(writes))
		}
	}
}

func TestIdleWebSocketHoldsOneGoroutine(t *testing.T) {
	const n = 1000
	b := setUp(t, Options{})
	b.dialOpen() // goroutines that the process starts once are running
	b.client.CloseIdleConnections()
	before := runtime.NumGoroutine()
	for range n {
		b.dialOpen()
	}
	if open := b.Stats().WebSocket; open != n+1 {
		t.Errorf("%d are open, want %d", open, n+1)
	}
	b.until(func() bool { return runtime.NumGoroutine()-before <= n })
}

func TestPollingSessionHoldsOneGoroutine(t *testing.T) {
	const n = 200
	b := setUp(t, Options{})
	b.open()
	before := runtime.NumGoroutine()
	for range n {
		b.open()
	}
	if open := b.Stats().Polling; open != n+1 {
		t.Errorf("%d are open, want %d", open, n+1)
	}
	b.until(func() bool { return runtime.NumGoroutine()-before <= n })
}

// deliverer returns a function that sends to a client that reads, and waits until the packet is
// written.
func (b *bench) deliverer() func(p *Packet) {
	b.Helper()
	ws, c := b.dialOpen()
	go func() { _, _ = io.Copy(io.Discard, ws.NetConn()) }() // until the server closes
	return func(p *Packet) {
		if err := c.Send(p); err != nil {
			b.Fatal(err)
		}
		for c.Queued() > 0 {
			runtime.Gosched()
		}
	}
}

func TestAllocationsPerDelivery(t *testing.T) {
	b := setUp(t, Options{})
	deliver := b.deliverer()
	p := Text([]byte("a message of usual length"))
	if n := testing.AllocsPerRun(2000, func() { deliver(p) }); n > 2 {
		t.Errorf("got %v allocations, want at most 2", n)
	}
}

func BenchmarkDelivery(b *testing.B) {
	s, err := NewServer(Options{}, func(c *Conn) {
		for _, err := c.Recv(); err == nil; _, err = c.Recv() {
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	h := httptest.NewServer(s)
	defer h.Close()
	ws, _, err := websocket.DefaultDialer.Dial("ws"+h.URL[len("http"):]+"/engine.io/?EIO=4&transport=websocket", http.Header{})
	if err != nil {
		b.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, ws.NetConn()) }()
	p := Text([]byte("a message of usual length"))
	b.ReportAllocs()
	for c := range s.Conns() {
		for b.Loop() {
			_ = c.Send(p)
			for c.Queued() > 0 {
				runtime.Gosched()
			}
		}
	}
	if err := s.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	_ = ws.Close()
}
