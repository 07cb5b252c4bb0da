package engineio

import (
	"bytes"
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
	body, err := c.server.readBody(w, r, c)
	if errors.Is(err, errTooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	var fault *CloseError
	if err == nil {
		body, fault = c.check(body)
		err = p.deliver(r.Context(), body)
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

// readBody reads a POST's body, within a deadline if one can be set. c is nil if another node serves the
// connection.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, c *Conn) ([]byte, error) {
	// The deadline stays if not everything is read, because the HTTP server reads on.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(s.requestTimeout()))
	limit := int64(s.o.MaxPayload)
	if r.ContentLength > limit {
		s.tooLarge(Polling, r.RemoteAddr, r.ContentLength)
		return nil, errTooLarge
	}
	// A claimed Content-Length gets no more memory than an uncounted message, and the byte in which
	// the end shows.
	buf := make([]byte, 0, min(max(r.ContentLength, 511), smallArrival-1)+1)
	body, err := s.arriving.read(http.MaxBytesReader(w, r.Body, limit), buf, int(limit), bodyReceiver{rc, c}, r.RemoteAddr)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		s.tooLarge(Polling, r.RemoteAddr, limit+1)
		return nil, errTooLarge
	}
	if err == nil {
		_ = rc.SetReadDeadline(time.Time{})
	}
	return body, err
}

// A bodyReceiver is the receiver of a POST's body.
type bodyReceiver struct {
	*http.ResponseController
	c *Conn // may be nil
}

func (r bodyReceiver) interrupt() { _ = r.SetReadDeadline(past) }

func (r bodyReceiver) progress() {
	if r.c != nil {
		r.c.heart.heard.Store(true)
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

// upgradePosts is how many POSTs are answered during an upgrade although Recv has not taken as much
// as is usually required. A stock client that has the answer to its probe does not poll any more,
// gets no ping, and waits for the answer to its POST. It may have begun one more before.
const upgradePosts = 2

// addedInPause is how many bytes of POSTs are answered during a pause.
const addedInPause = 8 << 10

// deliver passes a checked body to Recv, once the earlier ones are taken as far as there is space
// for it: together they may be as large as one. Clients and proxies wait some seconds for the
// answer to a POST. A paused connection accepts little, such as a close: more of its client is held
// only as long as the client keeps a TCP connection open for it.
func (p *pollingTransport) deliver(ctx context.Context, body []byte) error {
	for {
		p.c.mu.Lock()
		paused := !p.c.heart.paused.IsZero()
		fits := len(p.inbox) == 0 || len(p.inbox)+1+len(body) <= p.c.server.o.MaxPayload
		if paused && p.added+len(body) > addedInPause {
			fits = false
		}
		if upgrading := p.state == pollingProbed || p.state == pollingUpgraded; !fits && upgrading && p.ahead < upgradePosts {
			p.ahead++
			fits = true
		}
		if fits {
			switch {
			case len(p.inbox) == 0:
				p.inbox, p.whole = body, bytes.IndexByte(body, separator[0]) < 0
			case len(body) > 0:
				p.inbox, p.whole = append(append(p.inbox, separator...), body...), false
			}
			p.held = cap(p.inbox)
			if paused {
				p.added += len(body)
			}
			p.c.mu.Unlock()
			signal(p.arrived)
			return nil
		}
		if p.taken == nil {
			p.taken = make(chan struct{}, 1)
		}
		taken := p.taken
		p.c.mu.Unlock()
		select {
		case <-taken:
		case <-p.c.ctx.Done():
			return nil // it is no longer needed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// recv returns the next message that was posted. After an upgrade it empties the inbox, and
// continues with the new transport.
func (p *pollingTransport) recv() (Message, error) {
	c := p.c
	for {
		c.mu.Lock()
		switch {
		case len(p.inbox) > 0:
			var packet []byte
			p.added = 0
			if packet, p.inbox = cutPacket(p.inbox); p.inbox == nil {
				p.ahead = 0
			}
			if p.posting {
				signal(p.taken)
			}
			whole := p.whole
			c.mu.Unlock()
			kind, data, _ := decode(packet) // it was checked when it was posted
			if kind == typeMessage || kind == typeBinary {
				if kind == typeMessage && !whole {
					data = bytes.Clone(data) // the message is kept, the rest of its body must not be
				}
				return Message{Binary: kind == typeBinary, Data: data}, nil
			}
			continue
		case c.closed != nil:
			c.mu.Unlock()
			return Message{}, c.closed
		case p.state == pollingLeaving:
			c.closeLocked(&CloseError{Reason: TransportClose, Err: errPeerClosed}, closeDiscard)
			c.mu.Unlock()
			continue
		}
		if p.posting {
			signal(p.taken) // it may wait for the end of a pause
		}
		upgraded := p.state == pollingUpgraded && !p.posting
		if upgraded {
			c.polling = nil
		}
		c.mu.Unlock()
		if upgraded {
			return c.ws.recv()
		}
		select {
		case <-p.arrived:
		case <-c.ctx.Done():
		}
	}
}
