package engineio

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// A BusyError refuses a new session temporarily: [Options.Admit] returns it. The request is
// answered on both transports with the status and the message, and its TCP connection is closed, so
// that the retry may reach another server.
type BusyError struct {
	Status     int           // 503 if zero; 429 if only this client is refused
	RetryAfter time.Duration // when to retry, sent in whole seconds, at least one
	Message    string
}

func (e *BusyError) Error() string { return "engineio: " + e.Message }

// announce sets the headers of the answer and returns its status.
func (e *BusyError) announce(h http.Header) int {
	seconds := max(1, (e.RetryAfter+time.Second-1)/time.Second)
	h.Set("Retry-After", strconv.Itoa(int(seconds)))
	h.Set("Connection", "close")
	return cmp.Or(e.Status, http.StatusServiceUnavailable)
}

// askAdmit asks the hook whether a request may begin a session.
func (s *Server) askAdmit(r *request) *refusal {
	if s.o.Admit == nil {
		return nil
	}
	var ended func()
	err := error(forbidden)
	s.o.guard("Admit", func() { ended, err = s.o.Admit(r.Request) })
	if busy, ok := errors.AsType[*BusyError](err); ok {
		return &refusal{code: busyCode, message: busy.Message, busy: busy}
	}
	if err != nil {
		return &refusal{code: forbidden.code, message: err.Error()}
	}
	r.ended = ended
	return nil
}

// callEnded calls the function that Admit returned, which may be nil, because the session has ended
// or was not created.
func (s *Server) callEnded(ended func()) {
	if ended != nil {
		s.o.guard("Admit", ended)
	}
}
