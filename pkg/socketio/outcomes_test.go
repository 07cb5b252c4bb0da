package socketio

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// outcomes lists the results of a socket's methods that can fail in a handler, in OnDisconnecting
// and in OnDisconnect: nil or a sentinel.
var outcomes = map[string][3]error{
	"Data":        {nil, nil, nil},
	"Join":        {nil, ErrDisconnected, ErrDisconnected},
	"Leave":       {nil, ErrDisconnected, ErrDisconnected},
	"KeepRooms":   {nil, ErrDisconnected, ErrDisconnected},
	"SetData":     {nil, ErrDisconnected, ErrDisconnected},
	"Emit":        {nil, ErrDisconnected, ErrDisconnected},
	"Send":        {nil, ErrDisconnected, ErrDisconnected},
	"Publish":     {nil, ErrDisconnected, ErrDisconnected},
	"EmitWithAck": {nil, ErrDisconnected, ErrDisconnected},
}

func TestOutcomesInCallbacks(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	type result struct {
		phase int
		errs  map[string]error
	}
	results := make(chan result, 3)
	try := func(phase int, s *Socket) {
		errs := make(map[string]error)
		typ := reflect.TypeFor[*Socket]()
		for i := range typ.NumMethod() {
			m := typ.Method(i)
			if outs := m.Type.NumOut(); outs == 0 || m.Type.Out(outs-1) != reflect.TypeFor[error]() {
				continue
			}
			if _, known := outcomes[m.Name]; !known {
				t.Errorf("no outcome is known for %s", m.Name)
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			args := []reflect.Value{reflect.ValueOf(s)}
			for j := 1; j < m.Type.NumIn(); j++ {
				switch in := m.Type.In(j); {
				case in == reflect.TypeFor[context.Context]():
					args = append(args, reflect.ValueOf(ctx))
				case in == reflect.TypeFor[string]():
					args = append(args, reflect.ValueOf("q"))
				case in == reflect.TypeFor[[]string]():
					args = append(args, reflect.ValueOf("room"))
				case in == reflect.TypeFor[any]():
					args = append(args, reflect.ValueOf(&struct{}{}))
				case in.Kind() == reflect.Func:
					args = append(args, zeroFunc(in, true))
				}
			}
			out := m.Func.Call(args)
			errs[m.Name], _ = out[len(out)-1].Interface().(error)
			cancel()
		}
		results <- result{phase, errs}
	}
	n.On("try", func(_ context.Context, e *Event) error { try(0, e.Socket()); return nil })
	n.OnConnect(func(s *Socket) {
		s.OnDisconnecting(func(Reason) { try(1, s) })
		s.OnDisconnect(func(Reason) { try(2, s) })
	})
	w := n.client(t)
	check := func() {
		t.Helper()
		r := <-results
		for name, err := range r.errs {
			if want := outcomes[name][r.phase]; !errors.Is(err, want) {
				t.Errorf("%s in phase %d: got %v, want %v", name, r.phase, err, want)
			}
		}
	}
	w.write(`42["try"]`)
	for {
		if m := w.next(); m[:2] == "42" && m[2] != '[' { // the query, which requests an ack
			id, _, _ := strings.Cut(m[2:], "[")
			w.write("43" + id + "[]")
			break
		}
	}
	check()
	w.cut()
	check()
	check()
}
