package engineio

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"go.uber.org/zap"
)

// hijackMessage is the response body if a WebSocket is impossible.
const hijackMessage = "WebSocket is not possible behind a middleware of this server"

// A hijacker takes over the connection of a ResponseWriter that middlewares have
// wrapped, if their writers have an Unwrap method. Gorilla requires this interface.
type hijacker struct {
	http.ResponseWriter
	err error // of Hijack
}

func (h *hijacker) Hijack() (c net.Conn, rw *bufio.ReadWriter, err error) {
	c, rw, err = http.NewResponseController(h.ResponseWriter).Hijack()
	h.err = err
	return c, rw, err
}

// cannotHijack answers an upgrade whose connection cannot be hijacked. The reason is logged once,
// because it is a mistake in the program and the same each time.
func (s *Server) cannotHijack(h *hijacker) {
	s.hijackOnce.Do(func() {
		s.log.Error("connection cannot be taken over for a WebSocket",
			zap.String("hint", "a middleware's ResponseWriter needs Hijack or Unwrap: docs/mounting.md"),
			zap.String("writer", fmt.Sprintf("%T", h.ResponseWriter)), zap.Error(h.err))
	})
	header := h.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(len(hijackMessage)))
	h.WriteHeader(http.StatusInternalServerError)
	_, _ = h.Write([]byte(hijackMessage)) // the peer is being refused
}
