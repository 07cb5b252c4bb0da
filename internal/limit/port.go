package limit

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// PortOptions configure a [Port]. Zero means no limit.
type PortOptions struct {
	// The number of TCP connections of the port.
	Quota
	// Waiting is the maximum number of them that may wait for their client: see [Port].
	Waiting int
	// IPConnections is the maximum number of them from one address. Addresses of Proxies, or that
	// may be proxies, serve many clients and are not limited.
	IPConnections int
	Proxies       Proxies
}

// A Port bounds the TCP connections of one [http.Server], which uses its Listener, ConnState,
// ConnContext and Body. A connection waits for its client if no request has arrived on it yet, if
// it is between two requests, or if only a part of a body has arrived. If too many connections
// wait, the one that has waited longest is closed. The same makes space for a new connection when
// the port is full; if no connection waits, one whose client does not read its answer is closed, or
// else the new one.
type Port struct {
	o         PortOptions
	peers     *table[netip.Addr, int]
	open      atomic.Int64
	acceptErr atomic.Uint64

	// Guarded by mu.
	mu      sync.Mutex
	waiting int
	order   Conn // the ring of waiting connections; the longest wait follows it
	conns   map[*Conn]struct{}
	looked  time.Time // when unread has looked at all of them
}

// NewPort returns the bounds of a port.
func NewPort(o PortOptions) *Port {
	p := &Port{
		o:     o,
		peers: newTable[netip.Addr](func(open *int) bool { return *open == 0 }),
		conns: make(map[*Conn]struct{}),
	}
	p.order.prev, p.order.next = &p.order, &p.order
	return p
}

// A Conn is a connection of a port. The embedded one has all methods beside those of [net.Conn]
// that net/http and net look for.
type Conn struct {
	*net.TCPConn
	port *Port
	peer netip.Addr // invalid if the address is not limited

	hijacked atomic.Bool
	body     arriving     // of the current request; belongs to the handler
	arrived  atomic.Bool  // the whole body
	writing  atomic.Int64 // when the write in progress began, in nanoseconds since started; 0 if none is
	unread   atomic.Bool  // it waits because of this write; set under port.mu

	// Guarded by port.mu.
	prev, next *Conn // nil unless it waits
	since      int64 // when it began to wait, in nanoseconds since started
	closed     bool
	then       func() // called when the connection is closed; may be nil
}

// Close closes the connection. It may be called several times.
func (c *Conn) Close() error {
	err := c.TCPConn.Close()
	p := c.port
	p.mu.Lock()
	first := !c.closed
	if c.closed = true; first {
		p.leave(c)
		delete(p.conns, c)
		p.open.Add(-1)
	}
	then := c.then
	c.then = nil
	p.mu.Unlock()
	if then != nil {
		then()
	}
	if first && c.peer.IsValid() {
		p.peers.with(c.peer, func(open *int) { *open-- })
	}
	return err
}

// started is a time before any write.
var started = time.Now().Add(-time.Second)

// Write implements [net.Conn]. While a client does not read, its connection is blocked here.
func (c *Conn) Write(b []byte) (int, error) {
	if c.hijacked.Load() {
		return c.TCPConn.Write(b)
	}
	c.writing.Store(int64(time.Since(started)))
	n, err := c.TCPConn.Write(b)
	c.writing.Store(0)
	if c.unread.Load() {
		c.port.mu.Lock()
		if c.unread.Load() {
			c.port.leave(c)
		}
		c.port.mu.Unlock()
	}
	return n, err
}

// lookInterval is the time between two looks for clients that do not read.
const lookInterval = 100 * time.Millisecond

// lookForUnread makes the connections wait whose write has been blocked for unreadTimeout, in front of
// those that have waited for less than that. p.mu is held.
func (p *Port) lookForUnread() {
	now := time.Now()
	if now.Sub(p.looked) < lookInterval {
		return
	}
	p.looked = now
	late := int64(now.Sub(started) - unreadTimeout)
	before := &p.order
	for before.prev != &p.order && before.prev.since > late {
		before = before.prev
	}
	for c := range p.conns {
		began := c.writing.Load()
		if began == 0 || began > late || c.next != nil || c.hijacked.Load() {
			continue
		}
		c.unread.Store(true)
		if c.writing.Load() != began { // it has ended, and Write may not have seen it
			c.unread.Store(false)
			continue
		}
		p.enter(c, before, began)
	}
}

// OnClose registers f, which is called once, when the connection is closed, or immediately if it is
// closed already. OnClose must be called at most once.
func (c *Conn) OnClose(f func()) {
	c.port.mu.Lock()
	closed := c.closed
	if !closed {
		c.then = f
	}
	c.port.mu.Unlock()
	if closed {
		f()
	}
}

// Listener returns a listener of the port's bounded connections. l must be a TCP listener.
func (p *Port) Listener(l net.Listener) net.Listener { return &listener{l.(*net.TCPListener), p} }

type listener struct {
	*net.TCPListener
	port *Port
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	for {
		tcp, err := l.AcceptTCP()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				l.port.acceptErr.Add(1)
				l.port.o.Tally.warn(l.Addr().String(), "accept failed", zap.Stringer("address", l.Addr()), zap.Error(err))
			}
			return nil, err
		}
		remote := tcp.RemoteAddr().(*net.TCPAddr).AddrPort().Addr() // its text need not be made and parsed
		if c := l.port.admit(tcp, plain(remote)); c != nil {
			return c, nil
		}
		_ = tcp.SetLinger(0) // there is no data to lose, and no port to keep
		_ = tcp.Close()
	}
}

// sendBuffer limits the kernel's send buffer of one connection. Without a limit
// it grows to megabytes, and on a slow link a ping would be queued behind them
// until its client times out.
const sendBuffer = 256 << 10

// admit returns a new connection of the port from an address, or nil if the limit is reached.
func (p *Port) admit(tcp *net.TCPConn, addr netip.Addr) *Conn {
	c := &Conn{TCPConn: tcp, port: p}
	if p.o.IPConnections > 0 && !p.o.Proxies.contain(addr) && !p.o.Proxies.unknown(addr) {
		c.peer = networkOf(addr)
	}
	if c.peer.IsValid() && !p.admitPeer(c.peer) {
		p.o.Tally.refuse(IPTCPConnections, "connection refused: its address has too many", zap.Int("connections", p.o.IPConnections), zap.Stringer("address", c.peer))
		return nil
	}
	if p.o.Max > 0 && p.Open() >= p.o.left() {
		p.mu.Lock()
		p.lookForUnread()
		longest := p.takeLongest()
		p.mu.Unlock()
		p.o.Tally.refuse(p.o.Name, "too many connections", zap.Int("connections", p.o.Max), zap.Bool("refused", longest == nil))
		if longest == nil {
			if c.peer.IsValid() {
				p.peers.with(c.peer, func(open *int) { *open-- })
			}
			return nil
		}
		_ = longest.Close() // no operation on it is pending, except a write that is blocked
	}
	p.open.Add(1)
	p.mu.Lock()
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	_ = tcp.SetWriteBuffer(sendBuffer) // fails on a connection that has ended
	return c
}

func (p *Port) admitPeer(peer netip.Addr) (ok bool) {
	p.peers.with(peer, func(open *int) {
		if ok = *open < p.o.IPConnections; ok {
			*open++
		}
	})
	return ok
}

// takeLongest removes the connection that has waited longest from the order, to be closed; it
// returns nil if none waits. p.mu is held.
func (p *Port) takeLongest() *Conn {
	c := p.order.next
	if c == &p.order {
		return nil
	}
	p.leave(c)
	return c
}

// leave removes a connection from the order if it is there. p.mu is held.
func (p *Port) leave(c *Conn) {
	if c.next == nil {
		return
	}
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next = nil, nil
	c.unread.Store(false)
	p.waiting--
}

// enter adds a connection to the order, before another one. p.mu is held.
func (p *Port) enter(c, before *Conn, since int64) {
	c.prev, c.next, c.since = before.prev, before, since
	c.prev.next, c.next.prev = c, c
	p.waiting++
}

// set sets whether a connection waits from now on.
func (p *Port) set(c *Conn, waits bool) {
	var longest *Conn
	p.mu.Lock()
	p.leave(c)
	if waits && !c.closed {
		if p.enter(c, &p.order, int64(time.Since(started))); p.o.Waiting > 0 && p.waiting > p.o.Waiting {
			longest = p.takeLongest()
		}
	}
	p.mu.Unlock()
	if longest != nil {
		p.o.Tally.count(IdleConnections)
		_ = longest.Close() // no operation on it is pending
	}
}

// ConnState implements [http.Server.ConnState].
func (p *Port) ConnState(conn net.Conn, state http.ConnState) {
	if c := ofPort(conn); c != nil {
		c.hijacked.Store(state == http.StateHijacked)
		p.set(c, state == http.StateNew || state == http.StateIdle)
	}
}

type connKey struct{}

// Hijacked returns the connection of a request if its handler has taken it over, otherwise nil.
func Hijacked(r *http.Request) *Conn {
	if c, ok := r.Context().Value(connKey{}).(*Conn); ok && c.hijacked.Load() {
		return c
	}
	return nil
}

// ConnContext implements [http.Server.ConnContext]. Body and Hijacked need it.
func (p *Port) ConnContext(ctx context.Context, conn net.Conn) context.Context {
	if c := ofPort(conn); c != nil {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// ofPort returns the port's connection, which may be below one of TLS. Closing it there sends no
// close alert, which could take long.
func ofPort(conn net.Conn) *Conn {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	c, _ := conn.(*Conn)
	return c
}

// unreadTimeout bounds the wait for the rest of a body that its handler has not read. The HTTP
// server reads it, to keep the connection for the next request. It also bounds the wait for a client
// that does not read its answer, if the port is full.
const unreadTimeout = time.Second

// Body gives each body a time limit for its arrival. After the handler has returned, the rest of
// the body has unreadTimeout. Until the body has arrived, its connection waits for its client.
func (p *Port) Body(next http.Handler, within time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(connKey{}).(*Conn)
		if r.ContentLength == 0 || !ok {
			next.ServeHTTP(w, r)
			return
		}
		control := http.NewResponseController(w)
		// The deadline stays until the next request, because the server reads the rest of the
		// body.
		_ = control.SetReadDeadline(time.Now().Add(within)) // fails on a connection that has ended
		body := r.Body
		c.body = arriving{body, c} // a connection carries one request at a time
		r.Body = &c.body
		c.arrives(false)
		next.ServeHTTP(w, r)
		r.Body = body          // the server checks its type
		if !c.arrived.Load() { // the connection continues to wait for it
			_ = control.SetReadDeadline(time.Now().Add(unreadTimeout))
		}
	})
}

// An arriving is a request body on a connection.
type arriving struct {
	io.ReadCloser
	conn *Conn
}

func (b *arriving) Read(into []byte) (int, error) {
	n, err := b.ReadCloser.Read(into)
	if err == io.EOF {
		b.conn.arrives(true)
	}
	return n, err
}

// arrives records whether the whole body has arrived.
func (c *Conn) arrives(all bool) {
	c.arrived.Store(all)
	c.port.set(c, !all)
}

// Open returns the number of open TCP connections.
func (p *Port) Open() int { return int(p.open.Load()) }

// AcceptErrors returns the number of accepts that failed.
func (p *Port) AcceptErrors() uint64 { return p.acceptErr.Load() }
