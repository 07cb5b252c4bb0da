package socketio

import (
	"errors"
	"fmt"
	"runtime/debug"

	"go.uber.org/zap"
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

// guard calls f, which calls one function of the application, and reports its
// panic if there is one.
func (s *Server) guard(callback string, f func()) (failed *PanicError) {
	returned := false
	defer func() {
		if p := failure(returned, recover()); p != nil {
			failed = s.panicked(callback, p)
		}
	}()
	f()
	returned = true
	return nil
}

// failure returns the value to report of a function that did not return, given the recovered
// value.
func failure(returned bool, recovered any) any {
	if recovered == nil && !returned {
		return errGoexit
	}
	return recovered
}

// panicked reports a panic. The deferred function that recovered it calls panicked, so that the
// stack is that of the panic.
func (s *Server) panicked(callback string, value any) *PanicError {
	return s.reportPanic(&PanicError{Callback: callback, Value: value, Stack: debug.Stack()})
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

// guard is Server.guard for a function that concerns the socket; its OnError functions are called
// as well.
func (s *Socket) guard(callback string, f func()) (failed *PanicError) {
	if failed = s.client.srv.guard(callback, f); failed != nil {
		s.tellErrors(failed)
	}
	return failed
}
