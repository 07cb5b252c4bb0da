package forward

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
)

const (
	// retryTimeout is the maximum time for retries while there are too many forwarded
	// requests. After it a poll is answered without content.
	retryTimeout = 5 * time.Second
	// The pauses between the attempts double, and vary by half.
	minPause     = 50 * time.Millisecond
	longestPause = time.Second
)

var (
	errClosed = errors.New("forward: closed")
	errBusy   = errors.New("forward: too many forwarded requests")
)

// A passage is one request in flight through this node, and the ResponseWriter that the owner's
// answer is copied to.
type passage struct {
	http.ResponseWriter
	f       *Forwarder
	owner   string
	sid     string
	upgrade bool
	ctx     context.Context
	cancel  context.CancelCauseFunc
	client  *wire // set once the client's connection has been hijacked
	err     error // the reason why the last node gave no answer
}

// Forward forwards a request to the session's owner, another node, and returns its answer. It
// implements engineio's Options.Forward, whose contract defines its preconditions and its
// errors.
func (f *Forwarder) Forward(w http.ResponseWriter, r *http.Request, owner string) error {
	p := &passage{ResponseWriter: w, f: f, owner: owner, sid: sessionID(r), upgrade: websocket.IsWebSocketUpgrade(r)}
	p.ctx, p.cancel = context.WithCancelCause(r.Context())
	if !f.enter(p) {
		p.cancel(errClosed)
		return errClosed
	}
	defer f.leave(p)
	start := time.Now()
	err := p.try(r)
	for pause := minPause; p.mayRetry(r, err) && time.Since(start) < f.patience && p.wait(pause); pause *= 2 {
		err = p.try(r)
	}
	if err == nil {
		return nil
	}
	return p.fail(r, err)
}

// sessionID returns the id of the session that engineio takes a request for: the last one, if there
// are several.
func sessionID(r *http.Request) string {
	if all := r.URL.Query()["sid"]; len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

// try locates the owner and sends the request to it. It returns the reason if there is no
// answer.
func (p *passage) try(r *http.Request) error {
	f := p.f
	if !f.o.Outgoing.Enter(r) {
		return fmt.Errorf("%w: %w", errUndecided, errBusy)
	}
	defer f.o.Outgoing.Leave()
	addr, err := f.locate(p.ctx, p.owner, "")
	if err == nil {
		err = p.pass(r, addr)
	}
	if absent(err) { // it may have moved since the directory was read
		switch now, looked := f.locate(p.ctx, p.owner, addr); {
		case looked != nil:
			err = looked
		case now != addr:
			err = p.pass(r, now)
		}
	}
	if unreachable(err) || errors.Is(err, errBusy) || errors.Is(err, errCut) {
		err = fmt.Errorf("%w: %w", errUndecided, err)
	}
	return err
}

// mayRetry reports whether a failed request can be sent again. An owner that is busy has not
// processed it. An owner that has closed the connection may have, so only a poll is repeated: if
// the first one had reached the session, its end has ended the session, and the owner reports
// that. An upgrade does not wait, because its client can poll.
func (p *passage) mayRetry(r *http.Request, err error) bool {
	return !p.upgrade && (errors.Is(err, errBusy) || errors.Is(err, errCut) && r.Method == http.MethodGet)
}

// wait waits before the next attempt, and reports whether the passage continues.
func (p *passage) wait(pause time.Duration) bool {
	pause = min(pause, longestPause)
	timer := time.NewTimer(pause/2 + rand.N(pause))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// pass sends the request to the node at an address. It returns the reason if there is no
// answer.
func (p *passage) pass(r *http.Request, addr string) error {
	p.err = nil
	if r.GetBody != nil { // another attempt may have read it
		body, err := r.GetBody()
		if err != nil {
			return fmt.Errorf("forward: %w", err)
		}
		r.Body = body
	}
	proxy := httputil.ReverseProxy{
		Rewrite:        func(pr *httputil.ProxyRequest) { p.f.address(pr, p.owner, addr) },
		Transport:      p,
		FlushInterval:  -1,
		ErrorLog:       p.f.errors,
		ModifyResponse: p.check,
		ErrorHandler:   func(_ http.ResponseWriter, _ *http.Request, err error) { p.err = err },
	}
	proxy.ServeHTTP(p, r.WithContext(p.ctx))
	if p.client != nil {
		return nil // the owner has answered
	}
	return p.err
}

// errSilent means that a node accepts connections but does not respond.
var errSilent = errors.New("forward: owner silent")

// RoundTrip sends the request to the owner. The passage ends if the owner is silent for the
// timeout; while the owner holds a POST it sends informational responses, see [pending].
func (p *passage) RoundTrip(r *http.Request) (*http.Response, error) {
	silent := time.AfterFunc(p.f.o.Timeout, func() { p.cancel(errSilent) })
	defer silent.Stop()
	// It replaces the proxy's trace, which would forward these responses.
	trace := httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		if h.Get(headerFrom) == p.owner {
			silent.Reset(p.f.o.Timeout)
		}
		return nil
	}}
	res, err := p.f.transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(p.ctx, &trace)))
	if err != nil && p.ctx.Err() == nil && !notDialed(err) {
		err = fmt.Errorf("%w: %w", errCut, err)
	}
	return res, err
}

// errCut means that a connection to the owner has ended without an answer. The owner may have been
// killed, which the next attempt shows, or may have too many connections.
var errCut = errors.New("forward: connection closed without an answer")

// errNotOwner means that another node has the owner's address.
var errNotOwner = errors.New("forward: another node has the owner's address")

// absent reports whether a request has failed because the owner is not at the address that it was
// sent to. Then the owner has not received it.
func absent(err error) bool { return errors.Is(err, errNotOwner) || notDialed(err) }

// unreachable reports whether a request has failed because the owner is currently unreachable. Only
// a node that has ended refuses connections; a node that is starved of processor time, or behind a
// failing network, may still have the session.
func unreachable(err error) bool { return notDialed(err) && !errors.Is(err, syscall.ECONNREFUSED) }

func notDialed(err error) bool {
	dial := (*net.OpError)(nil)
	return errors.As(err, &dial) && dial.Op == "dial"
}

// address rewrites a client's request for the owner.
func (f *Forwarder) address(pr *httputil.ProxyRequest, owner, addr string) {
	in, out := pr.In, pr.Out
	out.URL = &url.URL{
		Scheme: "http", Host: addr,
		Path: Prefix + in.URL.Path, RawPath: Prefix + in.URL.EscapedPath(), RawQuery: in.URL.RawQuery,
	}
	out.Host = in.Host
	out.Header.Del("Expect") // the body has been read already
	f.sign(out, owner, in.RemoteAddr)
}

// answered returns the reason if a response is not an answer of the intended node.
func answered(res *http.Response, node string) error {
	switch reason, from := res.Header.Get(headerRefused), res.Header.Get(headerFrom); {
	case reason == busy && from == node:
		return fmt.Errorf("%w: node %s", errBusy, node)
	case reason == string(Misdirected):
		return fmt.Errorf("%w: not %s", errNotOwner, node)
	case reason != "":
		return fmt.Errorf("forward: node %s has refused the request as %s", node, reason)
	case from != node:
		return fmt.Errorf("%w: want %s, got an answer of %q (%s)", errNotOwner, node, from, res.Status)
	}
	return nil
}

// check validates an owner's answer before any of it reaches the client.
func (p *passage) check(res *http.Response) error {
	if err := answered(res, p.owner); err != nil {
		return err
	}
	strip(res.Header)
	if res.StatusCode == http.StatusSwitchingProtocols {
		back, ok := res.Body.(io.ReadWriteCloser)
		if !ok {
			return errors.New("forward: owner's connection cannot be hijacked")
		}
		res.Body = &far{back, p}
	}
	p.f.countOutcome(OK)
	// The client's time starts here. If the deadline cannot be set there is none.
	_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(p.f.o.Timeout))
	return nil
}

// fail counts a request without an answer, and returns the error for its session.
func (p *passage) fail(r *http.Request, err error) error {
	outcome := Failed
	switch {
	case r.Context().Err() != nil:
		outcome = Gone
	case context.Cause(p.ctx) == errClosed:
	case errors.Is(err, errUndecided):
		outcome = Undecided
		p.f.log.Warn("session owner unavailable", zap.String("owner", p.owner), zap.Error(err))
	case errors.Is(err, adapter.ErrNoNode), notDialed(err):
		outcome = NoOwner
		p.f.o.Logger.Debug("session owner not found", zap.String("owner", p.owner), zap.Error(err))
	default:
		p.f.log.Warn("request not forwarded to the owner", zap.String("owner", p.owner), zap.Error(err))
	}
	p.f.countOutcome(outcome)
	if errors.Is(err, errUndecided) {
		return err
	}
	return fmt.Errorf("%w: %w", engineio.ErrUnknownSession, err)
}

// Unwrap gives access to Flush.
func (p *passage) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// Hijack takes over the client's connection. The connection is closed with the passage, even while
// it is being read or written.
func (p *passage) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, buffered, err := http.NewResponseController(p.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	raw := c
	if secure, ok := c.(*tls.Conn); ok {
		raw = secure.NetConn()
	}
	if tcp, ok := raw.(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = tcp.SetWriteBuffer(clientBuffer) // fails on a connection that has ended
	}
	p.client = &wire{c, p.f.o.Timeout}
	context.AfterFunc(p.ctx, func() { _ = c.Close() }) // it is closed in any case
	return p.client, buffered, nil
}
