package engineio

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// servePost accepts the client's messages.
func (p *pollingTransport) servePost(w http.ResponseWriter, r *http.Request) {
	c := p.c
	c.mu.Lock()
	var fault error
	switch {
	case c.ws != nil, p.state == pollingLeaving:
		c.mu.Unlock()
		badRequest.answer(w, false)
		return
	case p.posting:
		fault = errOverlap
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/octet-stream"):
		fault = errContentType
	}
	if fault != nil {
		c.closeLocked(&CloseError{Reason: TransportError, Err: fault}, closeDiscard)
		c.mu.Unlock()
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.posting = true
	p.limitUpgrade()
	c.mu.Unlock()

	status := p.receive(w, r)

	c.mu.Lock()
	p.posting = false
	p.limitUpgrade()
	c.mu.Unlock()
	signal(p.arrived)
	if status != http.StatusOK {
		w.WriteHeader(status)
		return
	}
	h := w.Header()
	c.server.setPollingHeaders(h, r)
	h.Set("Content-Type", "text/html")
	h.Set("Content-Length", "2")
	// The HTTP server's own deadline counts from the request, which may have been held.
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(c.server.requestTimeout()))
	_, _ = io.WriteString(w, "ok") // a client that has disconnected is noticed by its GET
	_ = rc.Flush()
	_ = rc.SetWriteDeadline(time.Time{})
}

// receive reads a POST's body, processes its control packets and hands its messages to Recv, once
// Recv has taken all earlier ones. It returns the status of the answer.
func (p *pollingTransport) receive(w http.ResponseWriter, r *http.Request) int {
	c := p.c
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	if err := p.awaitResume(ctx, r); err != nil {
		c.close(&CloseError{Reason: TransportError, Err: err}, closeDiscard)
		return http.StatusBadRequest
	}
	body, arrived, err := c.server.readBody(w, r, c, cancel)
	if errors.Is(err, errTooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	var fault *CloseError
	if err == nil {
		body, fault = c.check(body)
		err = p.deliver(ctx, body, arrived)
	}
	if err != nil {
		c.close(&CloseError{Reason: TransportError, Err: err}, closeDiscard)
		return http.StatusBadRequest
	}
	if fault == nil || p.leaves(fault) {
		return http.StatusOK
	}
	c.close(fault, closeDiscard)
	switch fault.Reason {
	case ParseError, TransportError:
		return http.StatusBadRequest
	default: // the client closed, or the session was closed and the close is pending
		return http.StatusOK
	}
}

// leaves reports whether an end is a close by the client. The next Recv performs it: earlier
// messages were acknowledged, so they are taken first. The client gets its answer immediately.
func (p *pollingTransport) leaves(end *CloseError) bool {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if !errors.Is(end, errPeerClosed) || !p.state.next(pollingLeaving) {
		return false
	}
	if p.get == getWaits {
		p.c.push(noopPacket)
	}
	signal(p.arrived)
	return true
}

// readBody reads a POST's body, within a deadline if one can be set. The body counts until the caller is
// done with the arrival; giveUp is called if there is no memory for it. c is nil if another node serves
// the connection.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, c *Conn, giveUp context.CancelCauseFunc) ([]byte, *arrival, error) {
	// The deadline stays if not everything is read, because the HTTP server continues to
	// read.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(s.requestTimeout()))
	limit := int64(s.o.MaxPayload)
	if r.ContentLength > limit {
		s.tooLarge(Polling, r.RemoteAddr, r.ContentLength)
		return nil, nil, errTooLarge
	}
	// A claimed Content-Length gets no more memory than an uncounted message, and the byte in which
	// the end shows.
	buf := make([]byte, 0, min(max(r.ContentLength, 511), smallArrival-1)+1)
	body, arrived, err := s.arriving.read(http.MaxBytesReader(w, r.Body, limit), buf, int(limit), bodyReceiver{rc, c, giveUp}, r.RemoteAddr)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		s.tooLarge(Polling, r.RemoteAddr, limit+1)
		return nil, nil, errTooLarge
	}
	if err == nil {
		_ = rc.SetReadDeadline(time.Time{})
	}
	return body, arrived, err
}

// A bodyReceiver is the receiver of a POST's body.
type bodyReceiver struct {
	*http.ResponseController
	c      *Conn                   // may be nil
	giveUp context.CancelCauseFunc // of the request
}

func (r bodyReceiver) interrupt() {
	r.giveUp(ErrReceiveBudget)
	_ = r.SetReadDeadline(past)
}

func (r bodyReceiver) progress() {
	if r.c != nil {
		r.c.heart.hears()
	}
}

// check processes the packets of a polling body, up to one that ends the connection. It returns the
// part before that one, and the end.
func (c *Conn) check(body []byte) (good []byte, fault *CloseError) {
	if !utf8.Valid(body) {
		return nil, &CloseError{Reason: ParseError, Err: errNotUTF8}
	}
	for rest := body; ; {
		start := len(body) - len(rest)
		packet, next := cutPacket(rest)
		kind, _, err := decode(packet)
		if fault := c.hear(kind, len(packet), err); fault != nil {
			return body[:max(start-1, 0)], fault
		}
		if next == nil {
			return body, nil
		}
		rest = next
	}
}
