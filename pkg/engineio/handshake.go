package engineio

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// A Handshake is the data of a connection's first request.
type Handshake struct {
	// Header has no headers of the WebSocket handshake, except its extensions. It is kept as long
	// as the connection, so it has at most 100 lines (a name with several values has one for each)
	// and 16 KiB of names and values. If the request had more, the longest headers are missing;
	// Authorization and Cookie only if they alone are too long.
	Header     http.Header
	URL        string // path and query, as requested
	RemoteAddr string // of the TCP peer; proxies' headers are ignored
	TLS        bool
	Time       time.Time
}

// Query returns the parameters of the URL. Each call parses them again: a server holds many
// handshakes and reads few of them twice.
func (h *Handshake) Query() url.Values {
	_, query, _ := strings.Cut(h.URL, "?")
	v, _ := url.ParseQuery(query) // malformed parameters are omitted, as in net/http
	return v
}

// Limits of the request headers that a handshake keeps.
const (
	keptHeaderLines = 100
	keptHeaderBytes = 16 << 10
)

// keptHeader returns the headers that a handshake keeps.
func keptHeader(all http.Header) http.Header {
	h := make(http.Header) // sized to the kept headers, which are held for long
	lines, bytes := 0, 0
	for k, v := range all {
		if k == "Upgrade" || k == "Connection" || strings.HasPrefix(k, "Sec-Websocket-") && k != "Sec-Websocket-Extensions" {
			continue
		}
		h[k] = v
		lines, bytes = lines+len(v), bytes+headerSize(k, v)
	}
	if lines <= keptHeaderLines && bytes <= keptHeaderBytes {
		return h
	}
	names := slices.SortedFunc(maps.Keys(h), func(a, b string) int {
		return cmp.Or(cmp.Compare(headerSize(a, h[a]), headerSize(b, h[b])), strings.Compare(a, b))
	})
	kept := make(http.Header)
	lines, bytes = 0, 0
	for _, k := range append([]string{"Authorization", "Cookie"}, names...) {
		values, left := h[k]
		more := headerSize(k, values)
		if !left || lines+len(values) > keptHeaderLines || bytes+more > keptHeaderBytes {
			continue
		}
		delete(h, k)
		lines, bytes = lines+len(values), bytes+more
		kept[k] = slices.Clone(values) // net/http has the values of all headers in one slice
	}
	return kept
}

func headerSize(name string, values []string) (bytes int) {
	for _, v := range values {
		bytes += len(name) + len(v)
	}
	return bytes
}

func newHandshake(r *http.Request) *Handshake {
	return &Handshake{
		Header:     keptHeader(r.Header),
		URL:        r.URL.RequestURI(),
		RemoteAddr: r.RemoteAddr,
		TLS:        r.TLS != nil,
		Time:       time.Now(),
	}
}

// randomIDLen is the number of random characters of a session id.
const randomIDLen = 16

// newID returns a session id for a request: by default 20 characters, of which the first four
// identify the node.
func (s *Server) newID(r *http.Request) (id string, err error) {
	if s.o.GenerateID == nil {
		return s.o.NodeID + randomString(randomIDLen), nil
	}
	err = errors.New("GenerateID panicked")
	s.o.guard("GenerateID", func() { id, err = s.o.GenerateID(r) })
	return id, err
}

// open serves a request for a new session. Its packet 0, and the initial packet if any, are the
// first in the queue.
func (s *Server) open(w http.ResponseWriter, r *request) {
	if s.refusing.Load() {
		s.refuseNew(w, r)
		return
	}
	id, err := s.newID(r.Request)
	if err != nil || s.lookup(id) != nil {
		s.log.Warn("no session id", zap.Error(err))
		s.refused(r.Request, badRequest)
		badRequest.answer(w, r.upgrade)
		return
	}
	c := newConn(s, id, newHandshake(r.Request))
	if r.upgrade {
		s.openWebSocket(w, r, c)
	} else {
		s.openPolling(w, r, c)
	}
}

func (s *Server) openPolling(w http.ResponseWriter, r *request, c *Conn) {
	p := newPollingTransport(c)
	p.asked = r.query.Get("t")
	c.polling = p
	if !s.begin(c, r) {
		s.refuseNew(w, r)
		return
	}
	if s.o.Cookie != nil {
		cookie := *s.o.Cookie
		cookie.Value = c.id
		http.SetCookie(w, &cookie)
	}
	s.addHeaders("InitialHeaders", s.o.InitialHeaders, w.Header(), r.Request)
	p.serve(w, r.Request)
}

func (s *Server) openWebSocket(w http.ResponseWriter, r *request, c *Conn) {
	if r.transport != WebSocket {
		s.upgrade(w, r, c)
		return
	}
	h := s.upgradeHeader(w, r.Request)
	s.addHeaders("InitialHeaders", s.o.InitialHeaders, h, r.Request)
	t, err := s.accept(c, w, r, h)
	if err != nil {
		return
	}
	c.ws = t
	if !s.begin(c, r) {
		t.cut()
	}
}

// refuseNew answers a request for a new session while the server refuses them. The TCP connection is
// closed, so that the retry may reach another server.
func (s *Server) refuseNew(w http.ResponseWriter, r *request) {
	s.refused(r.Request, notAccepting)
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusServiceUnavailable)
}

// begin registers a connection, sends or queues its first packets and starts to serve it. It returns
// false if the server refuses it, or the id is in use.
func (s *Server) begin(c *Conn, r *request) bool {
	c.mu.Lock()
	if !s.admit(c) {
		c.mu.Unlock()
		return false
	}
	c.ended, r.ended = r.ended, nil // now owned by the connection
	c.heart.start(c.expire)
	ws := c.ws
	c.writing = ws != nil
	c.push(c.openPacket())
	if s.o.InitialPacket != nil {
		c.push(s.o.InitialPacket)
	}
	c.mu.Unlock()
	go c.run() // until the connection has ended; Server.Close waits for it
	if ws != nil {
		ws.drain() // which begins with the answer to the handshake
	}
	return true
}

// openPacket returns the packet that begins a session.
func (c *Conn) openPacket() *Packet {
	s, upgrades := c.server, `,"upgrades":[]`
	if c.ws == nil && !s.o.DisableUpgrades && slices.Contains(s.o.Transports, WebSocket) {
		upgrades = `,"upgrades":["websocket"]`
	}
	sid, _ := json.Marshal(c.id) // a string can be encoded
	data := append(append(make([]byte, 0, 256), `{"sid":`...), sid...)
	return newPacket(opText, []byte{typeOpen}, append(append(data, upgrades...), s.parameters...))
}
