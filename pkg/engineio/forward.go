package engineio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"time"

	"go.uber.org/zap"
)

type forwardedKey struct{}

// Forwarded marks a request that another node's [Options.Forward] has forwarded, for ServeHTTP. The
// caller must know that it comes from there: Origins and Use are not applied again. It is served if
// it belongs to a session of this server, and is never forwarded again.
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
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	out := r.WithContext(ctx)
	out.Body, out.ContentLength, out.TransferEncoding = http.NoBody, 0, nil
	if r.Method == http.MethodPost {
		// Read here, so that a client that is slow or sends too much affects only this node.
		body, arrived, err := s.readBody(w, r.Request, nil, cancel)
		defer s.arriving.done(arrived) // after it has been forwarded
		if err != nil {
			status := http.StatusBadRequest
			if errors.Is(err, errTooLarge) {
				status = http.StatusRequestEntityTooLarge
			}
			w.WriteHeader(status)
			return true
		}
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		out.Body, _ = out.GetBody() // never fails
		out.ContentLength = int64(len(body))
	}
	if !r.upgrade {
		// A poll may wait as long as a client may be silent, and the client may take as long again
		// to read the response.
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(time.Now().Add(2 * s.requestTimeout()))
		defer func() { _ = rc.SetWriteDeadline(time.Time{}) }()
	}
	var err error
	s.o.guardResponse("Forward", func() { err = s.o.Forward(w, out, owner) })
	if err != nil && !errors.Is(err, ErrUnknownSession) {
		s.log.Debug("request not forwarded", zap.String("owner", owner), zap.Error(err))
		s.postpone(w, r)
		return true
	}
	return err == nil
}

// postpone answers a request of a session that may exist. Stock clients give up their session after
// every status but 200, so a poll is answered with a packet without content, after which the client
// polls again. The data of a POST has no receiver, and an upgrade cannot be promised.
func (s *Server) postpone(w http.ResponseWriter, r *request) {
	h := w.Header()
	h.Set("Connection", "close") // the next request may reach another node
	if r.upgrade || r.Method != http.MethodGet {
		h.Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	s.setPollingHeaders(h, r.Request)
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	_, _ = w.Write(noopPacket.polling()) // a client that has disconnected does not poll again
}
