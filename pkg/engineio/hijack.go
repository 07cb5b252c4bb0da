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
	conn   *hijacked     // once it is taken over
	reader *bufio.Reader // of the connection
	err    error         // of Hijack
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if h.err = err; err != nil {
		return nil, nil, err
	}
	h.conn = &hijacked{Conn: c}
	h.reader = bufio.NewReaderSize(c, readBuffer)
	if rw.Reader.Buffered() == 0 { // otherwise gorilla refuses the handshake
		rw.Reader = h.reader
	}
	return h.conn, rw, nil
}

// A hijacked is a connection that keeps what is written first, the answer to the handshake, to be sent
// together with the first packets.
type hijacked struct {
	net.Conn
	answer   []byte
	answered bool
}

// answerRoom is the usual memory of an answer and the first packets.
const answerRoom = 256

func (c *hijacked) Write(b []byte) (int, error) {
	if c.answered {
		return c.Conn.Write(b)
	}
	c.answered, c.answer = true, append(make([]byte, 0, answerRoom), b...)
	return len(b), nil
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
