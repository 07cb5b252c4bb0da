package engineio

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// serveGet waits until there is something to send, and sends it.
func (p *pollingTransport) serveGet(w http.ResponseWriter, r *http.Request) {
	c := p.c
	c.mu.Lock()
	switch {
	case c.ws != nil:
		c.mu.Unlock()
		badRequest.answer(w, false)
		return
	case p.state == pollingGone && c.queue.pending == nil: // since the session was looked up
		c.mu.Unlock()
		unknownSession.answer(w, false)
		return
	case p.get != getNone:
		c.closeLocked(&CloseError{Reason: TransportError, Err: errOverlap}, closeDiscard)
		c.mu.Unlock()
		w.WriteHeader(http.StatusBadRequest)
		return
	case c.closed == nil && p.repeated(r):
		c.closeLocked(&CloseError{Reason: TransportError, Err: errRepeated}, closeDiscard)
		c.mu.Unlock()
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	woken := make(chan struct{})
	p.get, p.woken = getWaits, woken
	if c.queue.pending == nil && p.state == pollingClosing {
		p.state.next(pollingGone)
		c.push(p.last())
	}
	c.kick()
	p.release()
	c.mu.Unlock()

	select {
	case <-woken:
	case <-r.Context().Done():
	}
	c.mu.Lock()
	get := p.get
	p.get, p.woken = getNone, nil // before the answer is sent: the next GET may arrive immediately
	if get == getWaits {
		p.broken(context.Cause(r.Context()))
		if p.state == pollingGone { // no GET fetches the queued packets
			c.discard()
		}
		c.mu.Unlock()
		return
	}
	if p.state == pollingGone {
		c.heart.stop()
		if c.server.refusing.Load() { // the client reconnects, preferably to another server
			w.Header().Set("Connection", "close")
		}
	}
	// Within a deadline, so that a client that does not read the response is noticed.
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(c.server.requestTimeout()))
	b := (*batch)(nil)
	if get == getWrites {
		if b = c.queue.take(); b != nil {
			b.response = rc
		}
	}
	c.mu.Unlock()

	err := p.respond(w, r, b)

	c.mu.Lock()
	defer c.mu.Unlock()
	_ = rc.SetWriteDeadline(time.Time{})
	if get == getWrites {
		c.done(b)
		c.rest()
		p.release() // the client may have sent another request already
	}
	if err != nil {
		p.broken(err)
	}
}

// repeated reports whether a proxy has sent the last GET again: its answer, which had packets, was lost
// with a node or a connection, and its client would not notice. Stock clients put a random text into each
// request. Others put the time, so clocks say nothing, or always the same text. c.mu is held.
func (p *pollingTransport) repeated(r *http.Request) bool {
	former := p.asked
	p.asked = r.URL.Query().Get("t")
	p.varies = p.varies || p.asked != former
	return p.varies && p.asked == former && !isClock(former, time.Now())
}

// isClock reports whether a parameter t is nothing but the time, which may be the same in two GETs: a
// number, or milliseconds to base 36, as socket_io_client for Dart sends.
func isClock(t string, now time.Time) bool {
	if !strings.ContainsFunc(t, unicode.IsLetter) {
		return true
	}
	ms, err := strconv.ParseInt(t, 36, 64)
	return err == nil && time.UnixMilli(ms).Sub(now).Abs() < 24*time.Hour
}

// broken closes the connection because a GET was not answered, unless its client has closed: the
// messages it sent before that are still accepted. c.mu is held.
func (p *pollingTransport) broken(err error) {
	if p.state != pollingLeaving {
		p.c.closeLocked(&CloseError{Reason: TransportError, Err: err}, closeCut)
	}
}

// release answers a GET that waits during an upgrade, unless another answer is in progress. c.mu is
// held.
func (p *pollingTransport) release() {
	if c := p.c; p.state == pollingProbed && p.get == getWaits && c.queue.pending == nil && !c.writing {
		c.push(noopPacket)
	}
}

// respond answers a GET with a batch, or with a close if there is none.
func (p *pollingTransport) respond(w http.ResponseWriter, r *http.Request, b *batch) error {
	s := p.c.server
	var body *net.Buffers
	size, worth := 0, false
	if b == nil {
		body = &net.Buffers{closePacket.polling()}
	} else {
		body = p.c.buffers(b, (*Packet).polling, separator)
		worth = slices.ContainsFunc(b.packets, func(p *Packet) bool { return !p.noCompress })
		s.counts.packetsOut.Add(uint64(len(b.packets)))
	}
	for _, part := range *body {
		size += len(part)
	}
	h := w.Header()
	s.setPollingHeaders(h, r)
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	if t := s.o.HTTPCompressionThreshold; worth && t >= 0 && size >= t {
		if e := chooseEncoding(r.Header); e != nil && s.compressible(size) {
			var out bytes.Buffer
			compress(e.pool, &out, body, compressor.Close)
			size = out.Len()
			p.c.mu.Lock()
			p.c.spend(p.c.queue.addCopy(b, size), p.c.queue.bytes)
			p.c.mu.Unlock()
			body = &net.Buffers{out.Bytes()}
			h.Set("Content-Encoding", e.name)
		}
	}
	h.Set("Content-Length", strconv.Itoa(size))
	s.counts.bytesOut.Add(uint64(size))

	// Flushed here, within the caller's deadline. A ResponseWriter that cannot flush writes when the
	// handler returns.
	if err := p.c.writeParts(w, body); err != nil {
		return err
	}
	if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// requestTimeout bounds the time for a client to send a request's body, or to read a response: as
// long as a client may be silent.
func (s *Server) requestTimeout() time.Duration { return s.o.PingInterval + s.o.PingTimeout }

// setPollingHeaders sets the headers of all successful responses.
func (s *Server) setPollingHeaders(h http.Header, r *http.Request) {
	h.Set("Cache-Control", "no-store")
	if agent := r.UserAgent(); strings.Contains(agent, ";MSIE") || strings.Contains(agent, "Trident/") {
		h.Set("X-XSS-Protection", "0") // old Internet Explorers' XSS filter garbles payloads
	}
	s.addHeaders("Headers", s.o.Headers, h, r)
}
