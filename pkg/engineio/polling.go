package engineio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// pollingTransport is HTTP long-polling: the client's GETs are answered with
// what is queued, its POSTs bring what it sends. At most one of each is in flight.
type pollingTransport struct {
	c       *Conn
	arrived chan struct{} // capacity 1: Recv has something to look at
	emptied chan struct{} // capacity 1: Recv has taken all of inbox

	// Guarded by c.mu.
	get     *poll  // the GET that waits for an answer
	posting bool   // a POST is being received
	probed  bool   // an upgrade is under way: no GET shall wait
	inbox   []byte // a checked polling body that Recv takes packets from
}

// A poll is a GET that waits. It is woken once.
type poll struct {
	ready chan struct{} // capacity 1
	// writer: the poll is the connection's writer. A poll that is woken without
	// being it tells the client that the transport is closed.
	writer bool
	woken  bool
}

func (g *poll) wake(writer bool) {
	g.writer, g.woken = writer, true
	g.ready <- struct{}{}
}

func newPollingTransport(c *Conn) *pollingTransport {
	return &pollingTransport{c: c, arrived: make(chan struct{}, 1), emptied: make(chan struct{}, 1)}
}

func (p *pollingTransport) name() string { return Polling }

func (p *pollingTransport) writable() bool { return p.get != nil && !p.get.woken }

func (p *pollingTransport) start() bool {
	if !p.writable() {
		return false
	}
	p.get.wake(true)
	return true
}

func (p *pollingTransport) end(cause *CloseError, how ending) (unfetched bool) {
	last := closePacket
	if cause.Reason == TransportClose {
		last = noopPacket // the client closed: it need not be told
	}
	waiting := p.get != nil
	if !waiting && (how != endFlush || p.c.server.isClosing()) {
		p.c.done(p.c.take())
		return false // the next GET finds the session unknown
	}
	p.c.push(last)
	if waiting {
		return false
	}
	p.c.arm(phaseClosing, pollingCloseTimeout)
	return true
}

func (p *pollingTransport) cut() {
	p.c.done(p.c.take())
	if p.writable() {
		p.get.wake(false)
	}
}

// retire gives way to another transport: a GET that waits is told so.
func (p *pollingTransport) retire() {
	if p.writable() {
		p.get.wake(false)
	}
	signal(p.arrived)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// serve handles a request of the session.
func (p *pollingTransport) serve(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		p.serveGet(w, r)
	case http.MethodPost:
		p.servePost(w, r)
	default:
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// serveGet waits until there is something to send, and sends it.
func (p *pollingTransport) serveGet(w http.ResponseWriter, r *http.Request) {
	c := p.c
	c.mu.Lock()
	switch {
	case c.transport != p:
		c.mu.Unlock()
		badRequest.answer(w, false)
		return
	case c.closed != nil && c.pending == nil: // since the session was looked up
		c.mu.Unlock()
		unknownSession.answer(w, false)
		return
	case p.get != nil:
		c.endLocked(&CloseError{Reason: TransportError, Err: errOverlap}, endDrop)
		c.mu.Unlock()
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	g := &poll{ready: make(chan struct{}, 1)}
	p.get = g
	c.kick()
	if p.probed && c.pending == nil && !c.writing {
		c.push(noopPacket)
	}
	c.mu.Unlock()

	select {
	case <-g.ready:
	case <-r.Context().Done():
	}
	c.mu.Lock()
	p.get = nil // before the answer leaves: the next GET may come at once
	if !g.woken {
		c.endLocked(&CloseError{Reason: TransportError, Err: context.Cause(r.Context())}, endCut)
		c.mu.Unlock()
		return
	}
	if c.closed != nil {
		c.server.wheel.cancel(&c.timer)
		c.server.forget(c)
	}
	b := (*batch)(nil)
	if g.writer {
		b = c.take()
	}
	c.mu.Unlock()

	err := p.respond(w, r, b)

	c.mu.Lock()
	defer c.mu.Unlock()
	if g.writer {
		c.done(b)
		c.rest()
	}
	if err != nil {
		c.endLocked(&CloseError{Reason: TransportError, Err: err}, endCut)
	}
}

// respond answers a GET with a batch, or with a close if there is none.
func (p *pollingTransport) respond(w http.ResponseWriter, r *http.Request, b *batch) error {
	s := p.c.server
	body, worth := closePacket.polling(), false
	if b != nil {
		body = b.body()
		worth = !all(b.packets, func(p *Packet) bool { return p.noCompress })
		s.counts.packetsOut.Add(uint64(len(b.packets)))
	}
	h := w.Header()
	s.setPollingHeaders(h, r)
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	if t := s.o.HTTPCompressionThreshold; worth && t >= 0 && len(body) >= t {
		if e := chooseEncoding(r.Header); e != nil {
			var out bytes.Buffer
			compress(e.pool, &out, body, compressor.Close)
			body = out.Bytes()
			h.Set("Content-Encoding", e.name)
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	s.counts.bytesOut.Add(uint64(len(body)))

	// Flushed here, within a deadline of its own, so that a response that the
	// client does not take is noticed. A ResponseWriter that can do neither writes
	// when the handler returns.
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(s.o.PingInterval + s.o.PingTimeout))
	defer func() { _ = rc.SetWriteDeadline(time.Time{}) }()
	if _, err := w.Write(body); err != nil {
		return err
	}
	if err := rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// setPollingHeaders sets what all successful responses have.
func (s *Server) setPollingHeaders(h http.Header, r *http.Request) {
	h.Set("Cache-Control", "no-store")
	if agent := r.UserAgent(); strings.Contains(agent, ";MSIE") || strings.Contains(agent, "Trident/") {
		h.Set("X-XSS-Protection", "0") // old Internet Explorers garble payloads in the name of safety
	}
	s.setHeaders(h, r)
}

func all[T any](s []T, is func(T) bool) bool {
	for _, v := range s {
		if !is(v) {
			return false
		}
	}
	return true
}

// servePost takes in what the client sends.
func (p *pollingTransport) servePost(w http.ResponseWriter, r *http.Request) {
	c := p.c
	c.mu.Lock()
	var fault error
	switch {
	case c.transport != p:
		c.mu.Unlock()
		badRequest.answer(w, false)
		return
	case p.posting:
		fault = errOverlap
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/octet-stream"):
		fault = errContentType
	}
	if fault != nil {
		c.endLocked(&CloseError{Reason: TransportError, Err: fault}, endDrop)
		c.mu.Unlock()
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.posting = true
	c.mu.Unlock()

	status := p.receive(w, r)

	c.mu.Lock()
	p.posting = false
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
	_, _ = io.WriteString(w, "ok") // a client that is gone is noticed by its GET
}

// receive reads a POST's body, acts on its control packets and hands its
// messages to Recv, once Recv has taken all earlier ones. It returns the status
// of the answer.
func (p *pollingTransport) receive(w http.ResponseWriter, r *http.Request) int {
	c := p.c
	body, err := readBody(w, r, int64(c.server.o.MaxPayload))
	if errors.Is(err, errTooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	if err != nil {
		c.end(&CloseError{Reason: TransportError, Err: err}, endDrop)
		return http.StatusBadRequest
	}
	good, fault := c.check(body)
	if err := p.deliver(r.Context(), good); err != nil {
		c.end(&CloseError{Reason: TransportError, Err: err}, endDrop)
		return http.StatusBadRequest
	}
	if fault == nil {
		return http.StatusOK
	}
	switch c.end(fault, endDrop); fault.Reason {
	case ParseError, TransportError:
		return http.StatusBadRequest
	default: // the client closed, or the session was closed and waits to tell so
		return http.StatusOK
	}
}

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, errTooLarge
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, errTooLarge
	}
	return buf.Bytes(), err
}

// check hears the packets of a polling body, up to one that ends the connection.
// It returns the part before that one, and the end.
func (c *Conn) check(body []byte) (good []byte, fault *CloseError) {
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

// deliver puts a checked body where Recv finds it, when the one before is taken.
func (p *pollingTransport) deliver(ctx context.Context, body []byte) error {
	for {
		p.c.mu.Lock()
		if len(p.inbox) == 0 {
			p.inbox = body
			p.c.mu.Unlock()
			signal(p.arrived)
			return nil
		}
		p.c.mu.Unlock()
		select {
		case <-p.emptied:
		case <-p.c.ctx.Done():
			return nil // nobody waits for it any more
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// recv returns the next message that was posted. After an upgrade it empties the
// inbox, and goes on with the new transport.
func (p *pollingTransport) recv() (Message, error) {
	c := p.c
	for {
		c.mu.Lock()
		switch {
		case len(p.inbox) > 0:
			var packet []byte
			if packet, p.inbox = cutPacket(p.inbox); p.inbox == nil {
				signal(p.emptied)
			}
			c.mu.Unlock()
			kind, data, _ := decode(packet) // it was checked when it was posted
			if kind == typeMessage || kind == typeBinary {
				return Message{Binary: kind == typeBinary, Data: data}, nil
			}
			continue
		case c.closed != nil:
			c.mu.Unlock()
			return Message{}, c.closed
		}
		next, upgraded := c.transport.(source)
		upgraded = upgraded && c.transport != p && !p.posting
		c.mu.Unlock()
		if upgraded {
			c.source = next
			return next.recv()
		}
		select {
		case <-p.arrived:
		case <-c.ctx.Done():
		}
	}
}
