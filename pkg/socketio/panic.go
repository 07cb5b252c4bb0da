package socketio

import (
	"errors"
	"fmt"
	"runtime/debug"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// A PanicError is a panic of one of the application's functions that this package called. The panic
// ends neither the process nor the other sockets, and neither does a call of runtime.Goexit: it is logged with its stack, and passed to
// Options.OnPanic and to the OnError functions of the socket that it concerns. The method that
// registers a function documents the other effects.
type PanicError struct {
	Callback string // the method or option that registered the function, such as "On" or "Engine.Admit"
	Value    any    // the panic's value
	Stack    []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("socketio: %s function panicked: %v", e.Callback, e.Value)
}

// Unwrap returns the value of the panic if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// errGoexit is the value of the PanicError of a function that has ended its goroutine, as
// testing.T.FailNow does. Only deferred functions run after that.
var errGoexit = errors.New("runtime.Goexit was called")

// guard calls f, which calls functions of the application, and reports its panic if there is one.
// Then it calls the functions in then, also if f has ended its goroutine.
func (s *Server) guard(callback string, f func(), then ...func(*PanicError)) (failed *PanicError) {
	returned := false
	defer func() {
		value := recover()
		if returned {
			return
		}
		if value == nil {
			value = errGoexit
		}
		failed = s.reportPanic(&PanicError{Callback: callback, Value: value, Stack: debug.Stack()}) // that of the panic
		for _, f := range then {
			f(failed)
		}
	}()
	f()
	returned = true
	return nil
}

func (s *Server) reportPanic(err *PanicError) *PanicError {
	s.stats.panics.Add(1)
	s.log.Error("callback panicked", zap.String("callback", err.Callback), zap.Any("panic", err.Value), zap.ByteString("stack", err.Stack))
	if s.opts.OnPanic != nil {
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("callback panicked", zap.String("callback", "OnPanic"), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			}
		}()
		s.opts.OnPanic(err)
	}
	return err
}

// guard is Server.guard for functions that concern the socket; its OnError functions are called as
// well.
func (s *Socket) guard(callback string, f func()) {
	s.client.srv.guard(callback, f, func(p *PanicError) { s.reportError(p) })
}

// protect is guard for handlers, and reports whether f has returned: as in net/http the connection
// is closed after a panic, but other sockets continue.
func (s *Socket) protect(callback string, f func()) (returned bool) {
	return s.client.srv.guard(callback, f, func(p *PanicError) {
		s.reportError(p)
		s.client.conn.Close(engineio.ForcedClose)
	}) == nil
}
