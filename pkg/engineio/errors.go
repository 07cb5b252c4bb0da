package engineio

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"go.uber.org/zap"
)

// A Reason is the reason why a connection ended, in the protocol's terms.
type Reason string

// The reasons.
const (
	// TransportError means that the peer violated the transport's protocol, a write failed, or the
	// peer was too slow for its send queue, or for a budget of all connections.
	TransportError Reason = "transport error"
	// TransportClose means that the peer closed or disconnected.
	TransportClose Reason = "transport close"
	// ForcedClose means that this side closed, by [Conn.Close] or [Server.Close].
	ForcedClose Reason = "forced close"
	// PingTimeout means that the peer did not answer a ping in time.
	PingTimeout Reason = "ping timeout"
	// ParseError means that the peer sent something that is not a packet.
	ParseError Reason = "parse error"
)

// A CloseError is the end of a connection. The first one is kept: [Conn.Recv],
// [Conn.Send] and the cause of [Conn.Context] all return it.
type CloseError struct {
	Reason Reason
	Err    error // the cause; nil if the reason is sufficient
}

func (e *CloseError) Error() string {
	if e.Err == nil {
		return "engineio: " + string(e.Reason)
	}
	return "engineio: " + string(e.Reason) + ": " + e.Err.Error()
}

func (e *CloseError) Unwrap() error { return e.Err }

// Errors that callers may test for.
var (
	// ErrSlowClient means that a packet would have exceeded the connection's send queue. The
	// *CloseError of a connection that was cut for this reason wraps it.
	ErrSlowClient = errors.New("send queue is full")
	// ErrQueueBudget means that the queues of all connections together exceeded the budget, and this
	// connection was not reading or had the most queued. It is wrapped likewise.
	ErrQueueBudget = errors.New("queue budget exceeded")
	// ErrReceiveBudget means that the messages of all connections that had not arrived completely,
	// or were pending, exceeded the budget, and this connection's was the slowest or had begun
	// last. It is wrapped likewise.
	ErrReceiveBudget = errors.New("receive budget exceeded")
	// ErrPaused means that the connection was paused for longer than Options.PauseTimeout. It is
	// wrapped likewise.
	ErrPaused = errors.New("reading was paused for too long")
	// ErrUnknownSession means that a session does not exist; see [Options].Forward.
	ErrUnknownSession = errors.New("engineio: unknown session")
	// ErrServerClosed means that the server was closed.
	ErrServerClosed = errors.New("engineio: server closed")
)

// Errors of a peer that end a connection. The *CloseError wraps them.
var (
	errPeerClosed  = errors.New("closed by the peer")
	errOverlap     = errors.New("overlapping requests")
	errRepeated    = errors.New("GET repeated by a proxy")
	errContentType = errors.New("unexpected content type")
	errClientPing  = errors.New("ping from a client")
	errTooLarge    = errors.New("message exceeds the maximum payload")
	errNotUTF8     = errors.New("text message is not UTF-8")
	errBadPacket   = errors.New("not a packet")
)

// A refusal is the protocol's answer to a request that is not served.
type refusal struct {
	code    int
	message string
	busy    *BusyError // set for a refusal by Admit
}

var (
	unknownTransport   = &refusal{code: 0, message: "Transport unknown"}
	unknownSession     = &refusal{code: 1, message: "Session ID unknown"}
	badMethod          = &refusal{code: 2, message: "Bad handshake method"}
	badRequest         = &refusal{code: 3, message: "Bad request"}
	forbidden          = &refusal{code: 4, message: "Forbidden"}
	unsupportedVersion = &refusal{code: 5, message: "Unsupported protocol version"}
	// notAccepting is not part of the protocol: the server accepts no new connections. The answer has
	// no body.
	notAccepting = &refusal{code: -1, message: "Server takes no new connections"}
)

// busyCode is the code of refusals by Admit, the smallest of all codes.
const busyCode = -2

// refused counts a refusal and calls OnRefused.
func (s *Server) refused(r *http.Request, why *refusal) {
	s.log.Debug("request refused", zap.String("reason", why.message), zap.String("remote", r.RemoteAddr))
	s.counts.refused[why.code-busyCode].Add(1)
	if s.o.OnRefused != nil {
		s.o.guard("OnRefused", func() { s.o.OnRefused(r, why.code, why.message) })
	}
}

// Error lets a refusal stand for the error of a hook that panics.
func (f *refusal) Error() string { return f.message }

// answer writes the refusal. Peers that request an upgrade cannot read a body, so they get the bare
// message, with status 400 unless it is Admit's.
func (f *refusal) answer(w http.ResponseWriter, upgrade bool) {
	h := w.Header()
	status := http.StatusBadRequest
	switch {
	case f.busy != nil:
		status = f.busy.announce(h)
	case f.code == forbidden.code && !upgrade:
		status = http.StatusForbidden
	}
	if upgrade {
		h.Set("Connection", "close")
		h.Set("Content-Type", "text/html")
		h.Set("Content-Length", strconv.Itoa(len(f.message)))
		w.WriteHeader(status)
		_, _ = w.Write([]byte(f.message)) // the peer is being refused
		return
	}
	message, _ := json.Marshal(f.message) // a string can be encoded
	h.Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"code":%d,"message":%s}`, f.code, message) // as above
}
