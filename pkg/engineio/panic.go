package engineio

import (
	"errors"
	"net/http"
	"runtime/debug"

	"go.uber.org/zap"
)

// guard calls f, which calls a hook. It reports a panic of the hook, and whether there was one.
func (o *Options) guard(hook string, f func()) (panicked bool) {
	defer func() {
		if v := recover(); v != nil {
			panicked = true
			o.panicked(hook, v, debug.Stack())
		}
	}()
	f()
	return false
}

// guardResponse is guard for hooks that may have written a response. It is unknown how much of it
// the client has, so the request is aborted as in net/http. A hook may also abort it.
func (o *Options) guardResponse(hook string, f func()) {
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				o.panicked(hook, v, debug.Stack())
			}
			panic(http.ErrAbortHandler)
		}
	}()
	f()
}

// panicked reports a panic of a hook.
func (o *Options) panicked(hook string, value any, stack []byte) {
	if o.OnPanic == nil {
		o.logPanic(hook, value, stack)
		return
	}
	defer func() {
		if v := recover(); v != nil {
			o.logPanic(hook, value, stack)
			o.logPanic("OnPanic", v, debug.Stack())
		}
	}()
	o.OnPanic(hook, value, stack)
}

func (o *Options) logPanic(hook string, value any, stack []byte) {
	o.Logger.Error("hook panicked", zap.String("hook", hook), zap.Any("panic", value), zap.ByteString("stack", stack))
}
