package engineio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"
)

// dialStalled opens a WebSocket whose client reads only the 101, and has a small receive
// buffer.
func (b *bench) dialStalled() (net.Conn, *Conn) {
	b.Helper()
	wire, err := net.Dial("tcp", b.http.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = wire.Close() })
	_ = wire.(*net.TCPConn).SetReadBuffer(4 << 10)
	fmt.Fprint(wire, "GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	return wire, receive(b.T, b.conns)
}

func (b *bench) withinBudget() {
	b.Helper()
	b.until(func() bool { return b.Stats().QueuedBytes <= int64(b.o.QueueBudget) })
}

func isCut(c *Conn) bool {
	cause := c.cause()
	return cause != nil && errors.Is(cause, ErrQueueBudget)
}

func TestQueueBudgetCutsTheLargestQueue(t *testing.T) {
	b := setUp(t, Options{QueueBudget: 600_000, SendQueueBytes: 500_000, shedAfter: 50 * time.Millisecond})
	var conns []*Conn
	var sids []string
	for _, n := range []int{100_000, 290_000, 190_000} { // polling clients that do not poll
		sids = append(sids, b.open())
		c := receive(t, b.conns)
		if err := c.Send(Text(bytes.Repeat([]byte("x"), n))); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if b.Stats().BudgetCuts != 0 {
		t.Fatal("one is cut within the budget")
	}
	now := time.Now()
	for _, c := range conns { // they have stalled at the same moment
		c.mu.Lock()
		c.queue.moved = now
		c.mu.Unlock()
	}
	if err := conns[0].Send(Text(bytes.Repeat([]byte("y"), 50_000))); err != nil {
		t.Errorf("a connection with a short queue is refused: %v", err)
	}
	b.until(func() bool { return b.Stats().BudgetCuts > 0 })
	b.withinBudget()
	if isCut(conns[0]) || !isCut(conns[1]) || isCut(conns[2]) || b.Stats().BudgetCuts != 1 {
		t.Errorf("cut: %v, %v, %v", isCut(conns[0]), isCut(conns[1]), isCut(conns[2]))
	}
	b.endsBy(TransportError)
	b.unknown(sids[1])
	if body := b.poll(sids[0]); body != "4"+strings.Repeat("x", 100_000)+"\x1e4"+strings.Repeat("y", 50_000) {
		t.Errorf("%d bytes", len(body))
	}
	if body := b.poll(sids[2]); len(body) != 190_001 {
		t.Errorf("got %d bytes, want 190_001", len(body))
	}
}

// The counted bytes of packets match their memory, also for tiny ones.
func TestQueuedPacketsCountTheirMemory(t *testing.T) {
	const packets = 100_000
	if n := int(unsafe.Sizeof(Packet{})) + 16; n != packetOverhead {
		t.Errorf("a packet has %d bytes beside its frame, want %d", n, packetOverhead)
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	b := setUp(t, Options{SendQueueBytes: 64 << 20})
	sid := b.open()
	c := receive(t, b.conns)
	before := heap()
	for i := range packets {
		must(t, c.Send(Text(fmt.Append(nil, i))))
	}
	held, counted := heap()-before, int64(c.Queued())
	if held > counted+counted/5 || counted > 2*held {
		t.Errorf("%d bytes are held, %d counted, want at most %d, at most %d", held, counted, counted+counted/5, 2*held)
	}
	if n := b.Stats().QueuedBytes; n != counted {
		t.Errorf("%d bytes are queued of all, %d on the connection, want %d", n, counted, counted)
	}
	b.poll(sid)
	b.until(func() bool { return b.Stats().QueuedBytes == 0 })
}

// A large packet takes its memory once, and counts once.
func TestALargePacketCountsOnce(t *testing.T) {
	const members, size = 60, 900_000
	b := setUp(t, Options{QueueBudget: 4 << 20})
	var conns []*Conn
	var sids []string
	for i := range members {
		if i%2 == 0 {
			_, c := b.dialStalled()
			conns = append(conns, c)
			continue
		}
		sids = append(sids, b.open())
		conns = append(conns, receive(t, b.conns))
	}
	p := Text(make([]byte, size))
	for _, c := range conns {
		must(t, c.Send(p, Text([]byte("and a small one"))))
	}
	if n := b.Stats().QueuedBytes; n > size+members*(100+2*packetOverhead) {
		t.Errorf("%d bytes are queued, want at most %d", n, size+members*(100+2*packetOverhead))
	}
	for _, sid := range sids {
		if body := b.poll(sid); len(body) != 1+size+1+1+15 {
			t.Errorf("got %d bytes, want %d", len(body), 1+size+1+1+15)
		}
	}
	if n := b.Stats().BudgetCuts; n != 0 {
		t.Errorf("%d connections are cut, want 0", n)
	}
	for _, c := range conns {
		c.close(&CloseError{Reason: ForcedClose}, closeCut)
	}
	b.until(func() bool { return b.Stats().QueuedBytes == 0 })
}

// A packet may be sent by two servers. Each has its own budget.
func TestALargePacketOnTwoServers(t *testing.T) {
	const size = 100_000
	p := Text(make([]byte, size))
	var servers []*bench
	var sids []string
	for range 2 {
		b := setUp(t, Options{})
		for range 2 {
			sids = append(sids, b.open())
			must(t, receive(t, b.conns).Send(p))
		}
		servers = append(servers, b)
	}
	if a, b := servers[0].Stats().QueuedBytes, servers[1].Stats().QueuedBytes; a < size || a > 2*size || b < size {
		t.Errorf("%d and %d bytes are queued, want at least %d, at most %d, at least %d", a, b, size, 2*size, size)
	}
	for i, sid := range sids {
		servers[i/2].poll(sid)
	}
	for _, b := range servers {
		b.until(func() bool { return b.Stats().QueuedBytes == 0 })
	}
}

// A client that reads its queue is spared, even if the queue is large.
func TestQueueBudgetCutsStalledReaders(t *testing.T) {
	b := setUp(t, Options{QueueBudget: 1_000_000, SendQueueBytes: 1 << 20, shedAfter: 50 * time.Millisecond})
	b.open()
	stalled := receive(t, b.conns)
	must(t, stalled.Send(Text(make([]byte, 300_000))))
	b.until(func() bool {
		stalled.mu.Lock()
		defer stalled.mu.Unlock()
		return stalled.queue.stalled(b.o.shedAfter)
	})
	sid := b.open()
	taking := receive(t, b.conns)
	must(t, taking.Send(Text(make([]byte, 880_000)))) // the budget is kept once the other one is cut
	b.withinBudget()
	if body := b.poll(sid); !isCut(stalled) || taking.cause() != nil || len(body) != 880_001 {
		t.Errorf("the stalled one is cut: %v; the other one: %v, %d bytes", isCut(stalled), taking.cause(), len(body))
	}
}

// Of reading clients, those that share their packets with others are spared: cutting one of
// them would free nothing.
func TestQueueBudgetSparesSharersOfPackets(t *testing.T) {
	b := setUp(t, Options{QueueBudget: 1_000_000})
	var sharing, alone []*Conn
	for range 10 {
		b.open()
		sharing = append(sharing, receive(t, b.conns))
	}
	p := Text(make([]byte, 500_000))
	for _, c := range sharing {
		must(t, c.Send(p))
	}
	for range 2 {
		b.open()
		c := receive(t, b.conns)
		alone = append(alone, c)
		for range 300 { // one of them can stay
			if c.Send(Text(make([]byte, 1000))) != nil {
				break
			}
		}
	}
	b.until(func() bool { return b.Stats().BudgetCuts > 0 })
	b.withinBudget()
	for _, c := range sharing {
		if isCut(c) {
			t.Error("one of many that share a packet is cut")
		}
	}
	if isCut(alone[0]) == isCut(alone[1]) {
		t.Errorf("those with small packets are cut: %v, %v", isCut(alone[0]), isCut(alone[1]))
	}
}

// A compressed response counts until it is written or its connection is cut.
func TestQueueBudgetOfACompressedResponse(t *testing.T) {
	b := setUp(t, Options{SendQueueBytes: 64 << 20})
	b.compressed = rate.NewLimiter(rate.Inf, 0)
	sid := b.open()
	c := receive(t, b.conns)
	noise := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	must(t, c.Send(Binary(noise)))
	wire, err := net.Dial("tcp", b.http.Listener.Addr().String())
	must(t, err)
	defer wire.Close()
	must(t, wire.(*net.TCPConn).SetReadBuffer(4<<10))
	fmt.Fprintf(wire, "GET /engine.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n", sid)
	b.until(func() bool { return b.Stats().QueuedBytes > 14<<20 })
	c.mu.Lock()
	c.unload()
	c.mu.Unlock()
	if n := b.Stats().QueuedBytes; n != 0 {
		t.Errorf("%d bytes count although the connection is cut, want 0", n)
	}
}

// With many clients that read nothing the sum stays within the budget, and clients that
// read get everything.
func TestQueueBudgetOfManyStalledReaders(t *testing.T) {
	const stalled, rounds = 30, 200
	b := setUp(t, Options{QueueBudget: 4 << 20, SendQueueBytes: 64 << 20})
	ws, reader := b.dialOpen()
	all := []*Conn{reader}
	for range stalled {
		_, c := b.dialStalled()
		all = append(all, c)
	}
	read := make(chan error, 1)
	go func() { // ends after the last round
		for i := range rounds {
			_, data, err := ws.ReadMessage()
			if err == nil && !bytes.HasPrefix(data, fmt.Appendf(nil, "4%d:", i)) {
				err = fmt.Errorf("message %d begins with %.9s", i, data)
			}
			if err != nil {
				read <- err
				return
			}
		}
		read <- nil
	}()
	for i := range rounds {
		p := Text(append(fmt.Appendf(nil, "%d:", i), make([]byte, 64<<10)...))
		for _, c := range all {
			_ = c.Send(p) // some are closed
		}
		b.withinBudget()
		if err := reader.WaitQueue(t.Context(), 0); err != nil { // it gets the time to read
			t.Fatal(err)
		}
	}
	if err := receive(t, read); err != nil {
		t.Error(err)
	}
	for _, c := range all[1:] {
		if !isCut(c) {
			t.Errorf("a stalled client is not cut, with %d bytes", c.Queued())
		}
	}
	if n := b.Stats().BudgetCuts; n != stalled {
		t.Errorf("%d cuts are counted, want %d", n, stalled)
	}
	b.until(func() bool { return b.Stats().QueuedBytes == 0 })
}

// A response that its client does not read is cut with the connection, not at its deadline.
func TestQueueBudgetStopsAResponse(t *testing.T) {
	b := setUp(t, Options{QueueBudget: 32 << 20, SendQueueBytes: 64 << 20})
	sid := b.open()
	c := receive(t, b.conns)
	if err := c.Send(Text(make([]byte, 20<<20))); err != nil {
		t.Fatal(err)
	}
	wire, err := net.Dial("tcp", b.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	fmt.Fprintf(wire, "GET /engine.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: h\r\n\r\n", sid)
	answering := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.queue.taken != nil && c.queue.taken.response != nil
	}
	b.until(answering)
	if err := c.Send(Text(make([]byte, 20<<20))); err != nil {
		t.Fatal(err)
	}
	b.endsBy(TransportError)
	b.until(func() bool { return !answering() })
	if n := b.Stats().QueuedBytes; !isCut(c) || n != 0 {
		t.Errorf("cut: %v, %d bytes queued", isCut(c), n)
	}
}

// The base64 form of a packet counts, once if connections share the packet, and so does what is joined for
// one write.
func TestQueueBudgetCountsOtherForms(t *testing.T) {
	b := setUp(t, Options{QueueBudget: 64 << 20, SendQueueBytes: 64 << 20})
	large := Binary(make([]byte, 12<<20))
	var conns []*Conn
	respond := func(ps ...*Packet) {
		sid := b.open()
		c := receive(t, b.conns)
		conns = append(conns, c)
		if err := c.Send(ps...); err != nil {
			t.Fatal(err)
		}
		_ = b.wire(fmt.Sprintf("GET /engine.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\nHost: h\n\n", sid)).(*net.TCPConn).SetReadBuffer(4 << 10)
	}
	holds := func(least int64) {
		t.Helper()
		b.until(func() bool { return b.Stats().QueuedBytes >= least })
		if n := b.Stats().QueuedBytes; n > least+least/8 {
			t.Errorf("%d bytes count, want about %d", n, least)
		}
	}
	respond(large)
	holds(28 << 20)
	respond(large)
	time.Sleep(50 * time.Millisecond) // nothing announces that nothing more counts
	holds(28 << 20)
	var small []*Packet
	for range 4000 {
		small = append(small, Binary(make([]byte, 1500)))
	}
	respond(small...)
	holds(28<<20 + 4000*(1500+144+2000+2000))
	for _, c := range conns {
		c.mu.Lock()
		c.unload()
		c.mu.Unlock()
	}
	b.until(func() bool { return b.Stats().QueuedBytes == 0 })
}

// Queued packets of closed connections count, and are given up first if they are the most.
func TestQueueBudgetOfClosedConnections(t *testing.T) {
	b := setUp(t, Options{QueueBudget: 32 << 20, SendQueueBytes: 64 << 20})
	_, stuck := b.dialStalled()
	if err := stuck.Send(Text(make([]byte, 20<<20))); err != nil {
		t.Fatal(err)
	}
	_ = stuck.Close(ForcedClose)
	sid := b.open()
	c := receive(t, b.conns)
	if err := c.Send(Text(make([]byte, 16<<20))); err != nil {
		t.Fatal(err)
	}
	b.withinBudget()
	if st := b.Stats(); c.cause() != nil || stuck.Queued() != 0 || st.BudgetCuts != 0 {
		t.Errorf("the open one is closed by %v, %d bytes are left of the closed one, %d cuts", c.cause(), stuck.Queued(), st.BudgetCuts)
	}
	if body := b.poll(sid); len(body) != 16<<20+1 {
		t.Errorf("got %d bytes, want %d", len(body), 16<<20+1)
	}
	// A connection whose close is yet to be fetched.
	_ = c.Send(Text(make([]byte, 20<<20)))
	_ = c.Close(ForcedClose)
	other := b.open()
	_ = receive(t, b.conns).Send(Text(make([]byte, 16<<20)))
	b.withinBudget()
	if body := b.poll(sid); body != "1" {
		t.Errorf("%d bytes, want the close", len(body))
	}
	if body := b.poll(other); len(body) != 16<<20+1 {
		t.Errorf("got %d bytes, want %d", len(body), 16<<20+1)
	}
	b.until(func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.conns) == 0
	})
}

// When connections of all kinds end in all ways during concurrent sends, each byte is
// counted once and uncounted once.
func TestQueueBudgetUnderConcurrentUse(t *testing.T) {
	const senders, rounds, packet = 8, 400, 60_000
	b := setUp(t, Options{QueueBudget: 1 << 20, SendQueueBytes: 300_000})
	var conns []*Conn
	var sids []string
	for range 10 {
		sids = append(sids, b.open())
		conns = append(conns, receive(t, b.conns))
		_, stalled := b.dialStalled()
		ws, reading := b.dialOpen()
		go func() { _, _ = io.Copy(io.Discard, ws.NetConn()) }() // until the server closes
		conns = append(conns, stalled, reading)
	}
	var sending, polling sync.WaitGroup
	for i := range senders {
		sending.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 0))
			for round := range rounds {
				c := conns[random.IntN(len(conns))]
				p := Text(make([]byte, random.IntN(packet)))
				switch {
				case i == 0 && round%50 == 49:
					_ = c.Close(ForcedClose)
				case i == 0:
					c.TrySend(p)
				default:
					_ = c.Send(p) // some are closed
				}
				if n := b.Stats().QueuedBytes; n < 0 || n > int64(2*b.o.QueueBudget+len(conns)*packet) {
					t.Errorf("%d bytes are queued, want at least 0, at most %d", n, int64(2*b.o.QueueBudget+len(conns)*packet))
				}
			}
		})
	}
	for i, sid := range sids {
		polling.Go(func() {
			for range i {
				_, _, _ = b.try("GET", sid, "") // some are closed
			}
			if ws, _, err := b.tryDial("?EIO=4&transport=websocket&sid=" + sid); err == nil && i%2 == 0 {
				_ = ws.WriteMessage(websocket.TextMessage, []byte("2probe"))
				_ = ws.WriteMessage(websocket.TextMessage, []byte("5")) // reads nothing from here on
			}
		})
	}
	sending.Wait()
	if b.Stats().BudgetCuts == 0 {
		t.Error("the budget was never spent")
	}
	for _, c := range conns {
		c.close(&CloseError{Reason: ForcedClose}, closeCut)
		c.mu.Lock()
		c.cut()
		c.mu.Unlock()
	}
	polling.Wait() // nothing is left to wait for
	b.until(func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.counts.queued.Load() == 0 && len(b.conns) == 0
	})
}

// Callers that queue packets do not wait until connections are sorted and closed, even if
// closing one takes long.
func TestQueueBudgetIsKeptByAnotherGoroutine(t *testing.T) {
	closing, finish := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(closing) })
	b := setUp(t, Options{QueueBudget: 600_000, SendQueueBytes: 1 << 20, Admit: func(*http.Request) (func(), error) {
		return func() {
			once()
			<-finish
		}, nil
	}})
	b.open()
	large := receive(t, b.conns)
	must(t, large.Send(Text(make([]byte, 500_000))))
	sid := b.open()
	small := receive(t, b.conns)
	must(t, small.Send(Text(make([]byte, 110_000))))
	receive(t, closing) // on the goroutine of the shedder, which is stuck
	must(t, small.Send(Text([]byte("more"))))
	close(finish)
	b.withinBudget()
	if body := b.poll(sid); !isCut(large) || len(body) != 110_000+7 {
		t.Errorf("large cut: %v, %d bytes polled", isCut(large), len(body))
	}
}

// While the shedder is stuck the sum stays bounded: connections with more than their share
// are closed when they get more, and those with less are not.
func TestQueueBudgetWithoutShedder(t *testing.T) {
	const conns, packet = 10, 10_000
	stuck, finish := make(chan struct{}), make(chan struct{})
	first := true
	b := setUp(t, Options{QueueBudget: 1 << 20, SendQueueBytes: 16 << 20, Admit: func(*http.Request) (func(), error) {
		if !first {
			return nil, nil
		}
		first = false
		return func() {
			close(stuck)
			<-finish
		}, nil
	}})
	defer close(finish)
	b.open()
	must(t, receive(t, b.conns).Send(Text(make([]byte, 2<<20))))
	receive(t, stuck)
	var all []*Conn
	for range conns {
		b.open()
		all = append(all, receive(t, b.conns))
	}
	_ = all[0].Send(Text([]byte("little")))
	for range 1000 {
		for _, c := range all[1:] {
			_ = c.Send(Text(make([]byte, packet))) // some are closed
		}
	}
	if n, most := b.Stats().QueuedBytes, int64(2<<20+2*b.o.QueueBudget+conns*packet); n > most {
		t.Errorf("%d bytes queued, more than %d", n, most)
	}
	if all[0].cause() != nil {
		t.Errorf("a connection with little queued is closed by %v", all[0].cause())
	}
}
