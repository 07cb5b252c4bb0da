package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// dialTimeout is long enough for two lost packets: TCP retries after one and three seconds.
	dialTimeout = 5 * time.Second
	// dialPause is the pause after an attempt that failed immediately.
	dialPause = 100 * time.Millisecond
	// closeTimeout is the time for a client to close a WebSocket that its owner has closed.
	closeTimeout = time.Second
	// idleTimeout is shorter than that of the nodes' servers, so that no request is sent on a
	// connection that the owner is closing.
	idleTimeout     = time.Minute
	idleConnections = 128 // to one node
	// copyBuffer is the buffer size of each direction of a WebSocket.
	copyBuffer = 4 << 10
)

// newTransport returns the transport to the other nodes. It ignores proxies that the environment
// names. It does not bound the wait for an answer.
func newTransport(timeout, dialTimeout time.Duration) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &ownerWire{wire: wire{c, timeout}}, nil
		},
		DisableCompression:  true, // compression is between the client and the owner
		IdleConnTimeout:     idleTimeout,
		MaxIdleConnsPerHost: idleConnections,
	}
}

// hopBuffer is the size, in bytes, of the kernel's receive buffer of a connection to another node.
// Without a limit it grows to megabytes while the client is fast; if the client is slow, the owner's
// pings are behind them. It has to be set before the owner sends anything.
const hopBuffer = 64 << 10

// clientBuffer is that of the send buffer of a client's connection, for the same reason.
const clientBuffer = 128 << 10

// dial connects to another node. It retries until ctx ends, unless the connection is refused.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var dialer net.Dialer
	for {
		c, err := dialer.DialContext(ctx, network, addr)
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(hopBuffer) // fails on a connection that has ended
		}
		if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
			return c, err
		}
		select {
		case <-time.After(dialPause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// A wire is a connection whose peer has a bounded time to read written data.
type wire struct {
	net.Conn
	timeout time.Duration
}

func (w *wire) Write(b []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return 0, err
	}
	return w.Conn.Write(b)
}

// An ownerWire is a connection to another node. That node may leave written data unread for as long
// as it sends something itself: it does not read a client whose handlers are busy, but it pings
// every client.
type ownerWire struct {
	wire
	writing atomic.Bool
}

func (w *ownerWire) Write(b []byte) (int, error) {
	w.writing.Store(true)
	defer w.writing.Store(false)
	return w.wire.Write(b)
}

func (w *ownerWire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 && w.writing.Load() {
		_ = w.SetWriteDeadline(time.Now().Add(w.timeout)) // fails if it is closed
	}
	return n, err
}

func (w *wire) CloseWrite() error {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return w.Close()
}

// WriteTo copies to the other end of a WebSocket.
func (w *wire) WriteTo(to io.Writer) (int64, error) { return copySmall(to, w.Conn) }

// far is the owner's end of a WebSocket. When the owner closes it, the client gets closeTimeout to
// close its own.
type far struct {
	io.ReadWriteCloser
	p *passage
}

func (b *far) WriteTo(to io.Writer) (int64, error) {
	n, err := copySmall(to, b.ReadWriteCloser)
	_ = b.p.client.SetReadDeadline(time.Now().Add(closeTimeout)) // fails if it is closed
	return n, err
}

// copySmall copies with a small buffer, because there are many WebSockets, mostly
// idle.
func copySmall(to io.Writer, from io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, copyBuffer))
}
