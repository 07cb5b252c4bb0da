package engineio

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gorilla/websocket"
)

// A request is an HTTP request with the parameters of the protocol.
type request struct {
	*http.Request
	query     url.Values
	transport string
	sid       string
	version   string
	upgrade   bool
	polling   *pollingTransport // of the session; nil if it has a WebSocket
	forwarded bool              // by another node, which has checked the origin
	ended     func()            // returned by Admit, until a connection owns it; or nil
}

func newRequest(r *http.Request) *request {
	q := r.URL.Query()
	last := func(key string) string {
		if v := q[key]; len(v) > 0 {
			return v[len(v)-1]
		}
		return ""
	}
	return &request{
		Request:   r,
		query:     q,
		transport: last("transport"),
		sid:       last("sid"),
		version:   last("EIO"),
		upgrade:   websocket.IsWebSocketUpgrade(r),
		forwarded: isForwarded(r),
	}
}

// ServeHTTP serves a request below the server's path, or of the path without its
// trailing slash, which clients with addTrailingSlash: false request. It returns
// immediately when a WebSocket has been accepted.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, s.o.Path) && r.URL.Path+"/" != s.o.Path {
		http.NotFound(w, r)
		return
	}
	if isForwarded(r) { // the node that the client reached has done the rest
		s.dispatch(w, r)
		return
	}
	if len(s.o.Use) == 0 {
		s.handler.ServeHTTP(w, r)
		return
	}
	s.o.guardResponse("Use", func() { s.handler.ServeHTTP(w, r) })
}

func (s *Server) dispatch(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions { // CORS preflights have been answered; some clients send OPTIONS without their headers
		w.Header().Set("Allow", "GET, POST, OPTIONS")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	req := newRequest(r)
	defer func() { s.callEnded(req.ended) }()
	c, no := s.verify(req)
	switch {
	case no == unknownSession && s.forward(w, req):
	case no != nil:
		s.refused(r, no)
		no.answer(w, req.upgrade)
	case c == nil:
		s.open(w, req)
	case req.upgrade:
		s.upgrade(w, req, c)
	default:
		req.polling.serve(w, r)
	}
}

// protocolVersion is the supported revision of Engine.IO.
const protocolVersion = "4"

// verify checks a request in the protocol's order. It returns the connection that the request is
// for, or nil if it requests a new one.
func (s *Server) verify(r *request) (*Conn, *refusal) {
	if !slices.Contains(s.o.Transports, r.transport) {
		return nil, unknownTransport
	}
	switch {
	case r.forwarded && r.sid == "":
		return nil, badRequest // sessions begin where the client is
	case r.forwarded:
	case !validOrigin(r.Header.Get("Origin")):
		return nil, badRequest
	case !s.origins.allow(r.Request):
		s.badOrigins.log(s.log, r.Request, s.o.Origins)
		return nil, forbidden
	}
	if r.sid != "" {
		return s.verifySession(r)
	}
	return nil, s.verifyNew(r)
}

func (s *Server) verifySession(r *request) (*Conn, *refusal) {
	c := s.lookup(r.sid)
	if c == nil {
		return nil, unknownSession
	}
	var known bool
	r.polling, known = c.serving()
	switch {
	case !known:
		return nil, unknownSession
	case r.upgrade && s.o.DisableUpgrades:
		return nil, badRequest
	case !r.upgrade && (r.transport != Polling || r.polling == nil):
		return nil, badRequest
	case r.version != protocolVersion || r.query.Has("j"):
		return nil, badRequest
	}
	return c, nil
}

func (s *Server) verifyNew(r *request) *refusal {
	switch {
	case r.Method != http.MethodGet:
		return badMethod
	case r.transport == WebSocket && !r.upgrade:
		return badRequest
	}
	if no := s.askAdmit(r); no != nil {
		return no
	}
	if s.o.AllowRequest != nil {
		err := error(forbidden)
		if s.o.guard("AllowRequest", func() { err = s.o.AllowRequest(r.Request) }); err != nil {
			return &refusal{code: forbidden.code, message: err.Error()}
		}
	}
	switch {
	case r.version != protocolVersion:
		return unsupportedVersion
	case r.query.Has("j"): // JSONP
		return badRequest
	}
	return nil
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
