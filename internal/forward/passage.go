package forward

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

const (
	dialTimeout = time.Second
	// closeTimeout is how long a client may take to close a WebSocket that its
	// owner has closed.
	closeTimeout = time.Second
	// idleTimeout is less than that of the nodes' servers, so that no request is
	// sent on a connection that the owner is closing.
	idleTimeout     = time.Minute
	idleConnections = 128 // to one node
	// copyBuffer is what each direction of a WebSocket holds.
	copyBuffer = 4 << 10
)

var errClosed = errors.New("forward: closed")

// newTransport returns the way to the other nodes: direct, whatever proxies the
// environment names.
func newTransport(timeout time.Duration) *http.Transport {
	dialer := net.Dialer{Timeout: dialTimeout}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &wire{c, timeout}, nil
		},
		DisableCompression:    true, // what the client takes is between it and the owner
		ResponseHeaderTimeout: timeout,
		IdleConnTimeout:       idleTimeout,
		MaxIdleConnsPerHost:   idleConnections,
	}
}

// A passage is one request on its way through this node, and the ResponseWriter
// that the owner's answer is copied to.
type passage struct {
	http.ResponseWriter
	f       *Forwarder
	owner   string
	sid     string
	upgrade bool
	ctx     context.Context
	cancel  context.CancelCauseFunc
	client  *wire // once the client's connection has been taken over
	err     error // why there is no answer
}

// Forward answers a request of another node's session by that node. It returns
// false, and has written nothing, if there is no answer to be had. It has the
// form of engineio's Options.Forward, whose contract says what it can rely on.
func (f *Forwarder) Forward(w http.ResponseWriter, r *http.Request, owner string) bool {
	p := &passage{ResponseWriter: w, f: f, owner: owner, sid: r.URL.Query().Get("sid"), upgrade: websocket.IsWebSocketUpgrade(r)}
	p.ctx, p.cancel = context.WithCancelCause(r.Context())
	if !f.enter(p) {
		p.cancel(errClosed)
		return false
	}
	defer f.leave(p)
	addr, err := f.addresses.of(p.ctx, owner)
	if err != nil {
		p.fail(r, err)
		return false
	}
	proxy := httputil.ReverseProxy{
		Rewrite:        func(pr *httputil.ProxyRequest) { f.address(pr, owner, addr) },
		Transport:      f.transport,
		FlushInterval:  -1,
		ErrorLog:       f.errors,
		ModifyResponse: p.check,
		ErrorHandler:   func(_ http.ResponseWriter, _ *http.Request, err error) { p.fail(r, err) },
	}
	proxy.ServeHTTP(p, r.WithContext(p.ctx))
	return p.err == nil || p.client != nil
}

// address makes a client's request one for the owner.
func (f *Forwarder) address(pr *httputil.ProxyRequest, owner, addr string) {
	in, out := pr.In, pr.Out
	out.URL = &url.URL{
		Scheme: "http", Host: addr,
		Path: Prefix + in.URL.Path, RawPath: Prefix + in.URL.EscapedPath(), RawQuery: in.URL.RawQuery,
	}
	out.Host = in.Host
	out.Header.Del("Expect") // the body is here already
	f.sign(out, owner, in.RemoteAddr)
}

// answered returns why a response is not the answer of the node that was asked.
func answered(res *http.Response, node string) error {
	if reason := res.Header.Get(headerRefused); reason != "" {
		return fmt.Errorf("forward: node %s has refused the request as %s", node, reason)
	}
	if from := res.Header.Get(headerFrom); from != node {
		return fmt.Errorf("forward: not node %s has answered, but %q (%s)", node, from, res.Status)
	}
	return nil
}

// check looks at an owner's answer before any of it reaches the client.
func (p *passage) check(res *http.Response) error {
	if err := answered(res, p.owner); err != nil {
		return err
	}
	strip(res.Header)
	if res.StatusCode == http.StatusSwitchingProtocols {
		back, ok := res.Body.(io.ReadWriteCloser)
		if !ok {
			return errors.New("forward: the owner's connection cannot be taken over")
		}
		res.Body = &far{back, p}
	}
	p.f.stats.forwarded(OK)
	return nil
}

// fail notes why a request has no answer.
func (p *passage) fail(r *http.Request, err error) {
	p.err = err
	if p.client != nil {
		return // there was an answer
	}
	dial := (*net.OpError)(nil)
	switch {
	case r.Context().Err() != nil:
		p.f.stats.forwarded(Gone)
	case context.Cause(p.ctx) == errClosed:
		p.f.stats.forwarded(Failed)
	case errors.Is(err, adapter.ErrNoNode), errors.As(err, &dial) && dial.Op == "dial":
		p.f.stats.forwarded(NoOwner)
		p.f.o.Logger.Debug("a session's owner is gone", zap.String("owner", p.owner), zap.Error(err))
	default:
		p.f.stats.forwarded(Failed)
		p.f.log.Warn("a request could not be forwarded", zap.String("owner", p.owner), zap.Error(err))
	}
}

// Unwrap lets the response be flushed.
func (p *passage) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// Hijack takes the client's connection over. It closes with the passage, also
// while it is being read or written.
func (p *passage) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, buffered, err := http.NewResponseController(p.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	p.client = &wire{c, p.f.o.Timeout}
	context.AfterFunc(p.ctx, func() { _ = c.Close() }) // it is closed one way or the other
	return p.client, buffered, nil
}

// A wire is a connection whose peer has a bounded time to take what is written.
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

func (w *wire) CloseWrite() error {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return w.Close()
}

// WriteTo copies to the other end of a WebSocket.
func (w *wire) WriteTo(to io.Writer) (int64, error) { return copySmall(to, w.Conn) }

// far is the owner's end of a WebSocket. When the owner closes it, the client
// gets a last moment to close its own.
type far struct {
	io.ReadWriteCloser
	p *passage
}

func (b *far) WriteTo(to io.Writer) (int64, error) {
	n, err := copySmall(to, b.ReadWriteCloser)
	_ = b.p.client.SetReadDeadline(time.Now().Add(closeTimeout)) // fails if it is closed
	return n, err
}

// copySmall copies through a small buffer: WebSockets are many, and mostly idle.
func copySmall(to io.Writer, from io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, copyBuffer))
}
