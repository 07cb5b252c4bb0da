package engineio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"time"
)

type forwardedKey struct{}

// Forwarded marks a request that another node's [Options.Forward] has passed on,
// for ServeHTTP. It must be known to come from there: Origins and Use are not
// asked again. It is served if it belongs to a session of this server, and never
// forwarded once more.
func Forwarded(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), forwardedKey{}, true))
}

func isForwarded(r *http.Request) bool { return r.Context().Value(forwardedKey{}) != nil }

// idPattern is the form of an id that newID makes.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{20}$`)

// forward offers a request of an unknown session to the hook. It reports whether
// the request has been answered.
func (s *Server) forward(w http.ResponseWriter, r *request) bool {
	if s.o.Forward == nil || r.forwarded || !idPattern.MatchString(r.sid) {
		return false
	}
	owner := r.sid[:nodeIDLen]
	if owner == s.o.NodeID {
		return false
	}
	out := *r.Request
	out.Body, out.ContentLength, out.TransferEncoding = http.NoBody, 0, nil
	if r.Method == http.MethodPost {
		// Read here, a client that is slow or sends too much is this node's trouble
		// alone.
		body, err := s.readBody(w, r.Request)
		if err != nil {
			status := http.StatusBadRequest
			if errors.Is(err, errTooLarge) {
				status = http.StatusRequestEntityTooLarge
			}
			w.WriteHeader(status)
			return true
		}
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	if !r.upgrade {
		// A poll may wait for as long as a client may be silent, and the client may
		// take as long again to take the response.
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(time.Now().Add(2 * s.requestTimeout()))
		defer func() { _ = rc.SetWriteDeadline(time.Time{}) }()
	}
	return s.o.Forward(w, &out, owner)
}
