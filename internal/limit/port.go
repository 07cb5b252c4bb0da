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
	// Name is the limit's name in metrics and logs.
	Name string
	// Connections is the maximum number of TCP connections of the port, together with the result of
	// Others: the other users of the same descriptors or, if negative, the port's connections that
	// use none. A nil Others counts as 0.
	Connections int
	Others      func() int
	// Waiting is the maximum number of them that may wait for their client: see [Port].
	Waiting int
	// IPConnections is the maximum number of them from one address. Addresses of Proxies, or that
	// may be proxies, serve many clients and are not limited.
	IPConnections int
	Proxies       Proxies
	Log           *zap.Logger
}

// A Port bounds the TCP connections of one [http.Server], which uses its Listener, ConnState,
// ConnContext and Body. A connection waits for its client if no request has arrived on it yet, if
// it is between two requests, or if only a part of a body has arrived. If too many connections
// wait, the one that has waited longest is closed. The same makes space for a new connection when
// the port is full; if no connection waits, the new one is closed.
type Port struct {
	o         PortOptions
	peers     *table[netip.Addr, *int]
	full      counter
	idle      counter
	ipFull    counter
	acceptErr atomic.Uint64
	notice    notice

	// Guarded by mu.
	mu      sync.Mutex
	open    int
	waiting int
	order   Conn // the ring of waiting connections; the longest wait follows it
}

// NewPort returns the bounds of a port.
func NewPort(o PortOptions) *Port {
	p := &Port{
		o: o,
		peers: newTable[netip.Addr](
			func() *int { return new(int) },
			func(open *int) bool { return *open == 0 },
		),
		full: counter{name: o.Name}, idle: counter{name: IdleConnections}, ipFull: counter{name: IPTCPConnections},
		notice: notice{log: o.Log},
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

	body arriving // of the current request; belongs to the handler

	// Guarded by port.mu.
	prev, next *Conn // nil unless it waits
	arrived    bool  // the whole body
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
		p.open--
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
				l.port.notice.warn("accept", "accept failed", zap.Stringer("address", l.Addr()), zap.Error(err))
			}
			return nil, err
		}
		if c := l.port.admit(tcp, tcp.RemoteAddr().String()); c != nil {
			return c, nil
		}
		_ = tcp.SetLinger(0) // there is no data to lose, and no port to keep
		_ = tcp.Close()
	}
}

// admit returns a new connection of the port, or nil if the limit is reached.
func (p *Port) admit(tcp *net.TCPConn, remote string) *Conn {
	c := &Conn{TCPConn: tcp, port: p}
	if addr := address(remote); p.o.IPConnections > 0 && !p.o.Proxies.contain(addr) && !p.o.Proxies.unknown(addr) {
		c.peer = network(remote)
	}
	if c.peer.IsValid() && !p.admitPeer(c.peer) {
		p.ipFull.n.Add(1)
		p.notice.warn(p.ipFull.name, "connection refused: its address has too many", zap.String("limit", p.ipFull.name), zap.Int("connections", p.o.IPConnections), zap.Stringer("address", c.peer))
		return nil
	}
	if p.o.Connections > 0 && p.taken() >= p.o.Connections {
		p.full.n.Add(1)
		longest := p.longest()
		p.notice.warn(p.full.name, "too many connections", zap.String("limit", p.full.name), zap.Int("connections", p.o.Connections), zap.Bool("refused", longest == nil))
		if longest == nil {
			if c.peer.IsValid() {
				p.peers.with(c.peer, func(open *int) { *open-- })
			}
			return nil
		}
		_ = longest.Close() // no operation on it is pending
	}
	p.mu.Lock()
	p.open++
	p.mu.Unlock()
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

// taken returns how many of Connections are in use.
func (p *Port) taken() int {
	n := p.opened()
	if p.o.Others != nil {
		n += p.o.Others()
	}
	return n
}

func (p *Port) opened() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// longest removes the connection that has waited longest from the order, to be closed; it returns
// nil if none waits.
func (p *Port) longest() *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.takeLongest()
}

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
	p.waiting--
}

// set sets whether a connection waits from now on.
func (p *Port) set(c *Conn, waits bool) {
	var longest *Conn
	p.mu.Lock()
	p.leave(c)
	if waits && !c.closed {
		c.prev, c.next = p.order.prev, &p.order
		c.prev.next, c.next.prev = c, c
		if p.waiting++; p.o.Waiting > 0 && p.waiting > p.o.Waiting {
			longest = p.takeLongest()
		}
	}
	p.mu.Unlock()
	if longest != nil {
		p.idle.n.Add(1)
		_ = longest.Close() // no operation on it is pending
	}
}

// ConnState implements [http.Server.ConnState].
func (p *Port) ConnState(conn net.Conn, state http.ConnState) {
	if c := ofPort(conn); c != nil {
		p.set(c, state == http.StateNew || state == http.StateIdle)
	}
}

type connKey struct{}

// ConnContext implements [http.Server.ConnContext]. Body needs it.
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
// server reads it, to keep the connection for the next request.
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
		p.arrives(c, false)
		next.ServeHTTP(w, r)
		r.Body = body // the server checks its type
		if !p.hasArrived(c) {
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
		b.conn.port.arrives(b.conn, true)
	}
	return n, err
}

// arrives records whether the whole body has arrived.
func (p *Port) arrives(c *Conn, all bool) {
	p.mu.Lock()
	c.arrived = all
	p.mu.Unlock()
	p.set(c, !all)
}

// hasArrived reports whether the whole body had arrived when the handler returned. If not, the
// connection continues to wait for it.
func (p *Port) hasArrived(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.arrived
}

// PortStats are a port's current numbers and its counters.
type PortStats struct {
	Open         int    // TCP connections
	AcceptErrors uint64 // accepts that failed
}

// Stats returns a snapshot.
func (p *Port) Stats() PortStats { return PortStats{p.opened(), p.acceptErr.Load()} }

// Refused returns the number of refused or closed connections, by limit.
func (p *Port) Refused() map[string]uint64 {
	all := []*counter{&p.full}
	if p.o.Waiting > 0 {
		all = append(all, &p.idle)
	}
	if p.o.IPConnections > 0 {
		all = append(all, &p.ipFull)
	}
	return counts(all...)
}
