package engineio

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// hookSites has each hook with options in which it panics while on, and the status of
// the first request then; 0 if it is aborted.
var hookSites = []struct {
	name   string
	status int
	set    func(o *Options, panics func())
}{
	{"AllowOrigin", 403, func(o *Options, panics func()) {
		o.AllowOrigin = func(*http.Request, string) bool { panics(); return true }
	}},
	{"AllowRequest", 403, func(o *Options, panics func()) {
		o.AllowRequest = func(*http.Request) error { panics(); return nil }
	}},
	{"Admit", 403, func(o *Options, panics func()) {
		o.Admit = func(*http.Request) (func(), error) { panics(); return nil, nil }
	}},
	{"Admit, ended", 403, func(o *Options, panics func()) {
		o.Admit = func(*http.Request) (func(), error) { return panics, nil }
		o.AllowRequest = func(r *http.Request) error { return errorIf(r.Header.Get("Bad") != "") }
	}},
	{"OnRefused", 403, func(o *Options, panics func()) {
		o.OnRefused = func(*http.Request, int, string) { panics() }
		o.AllowRequest = func(r *http.Request) error { return errorIf(r.Header.Get("Bad") != "") }
	}},
	{"InitialHeaders", 200, func(o *Options, panics func()) {
		o.InitialHeaders = func(http.Header, *http.Request) { panics() }
	}},
	{"Headers", 200, func(o *Options, panics func()) {
		o.Headers = func(http.Header, *http.Request) { panics() }
	}},
	{"Use", 0, func(o *Options, panics func()) {
		o.Use = []func(http.Handler) http.Handler{func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panics(); next.ServeHTTP(w, r) })
		}}
	}},
	{"GenerateID", 400, func(o *Options, panics func()) {
		o.GenerateID = func(*http.Request) (string, error) { panics(); return randomString(20), nil }
	}},
	{"Forward", 0, func(o *Options, panics func()) {
		o.Forward = func(http.ResponseWriter, *http.Request, string) error { panics(); return ErrUnknownSession }
	}},
	{"OnPanic", 403, func(o *Options, panics func()) {
		o.OnPanic = func(string, any, []byte) { panics() }
		o.AllowRequest = func(r *http.Request) error {
			if r.Header.Get("Bad") != "" {
				panic("reported")
			}
			return nil
		}
	}},
}

func errorIf(bad bool) error {
	if bad {
		return errors.New("bad")
	}
	return nil
}

// A panic of a hook is reported with its stack and has no effect on others.
func TestPanicsOfHooks(t *testing.T) {
	tested := make(map[string]bool)
	for _, site := range hookSites {
		hook, _, _ := strings.Cut(site.name, ",")
		tested[hook] = true
		t.Run(site.name, func(t *testing.T) {
			var on atomic.Bool
			var reported atomic.Int64
			logged, logs := observer.New(zap.ErrorLevel)
			o := Options{Logger: zap.New(logged), OnPanic: func(name string, value any, stack []byte) {
				reported.Add(1)
				if name != hook || value != "of "+site.name || !strings.Contains(string(stack), "TestPanicsOfHooks") {
					t.Errorf("reported %v in %s with the stack\n%s", value, name, stack)
				}
			}}
			site.set(&o, func() {
				if on.Load() {
					panic("of " + site.name)
				}
			})
			b := setUp(t, o)
			sid := ""
			if hook == "Forward" {
				sid = anOldSession
			}
			on.Store(true)
			header := "Bad"
			if hook == "AllowOrigin" {
				header = "Origin"
			}
			res, _, err := b.try("GET", sid, "", header, "https://a.example")
			switch {
			case site.status == 0 && err == nil:
				t.Errorf("got %s, want no response", res.Status)
			case site.status != 0 && (err != nil || res.StatusCode != site.status):
				t.Errorf("got %v, %v, want %d", res, err, site.status)
			}
			if hook == "OnPanic" {
				if logs.Len() == 0 {
					t.Error("neither panic is logged")
				}
			} else if reported.Load() == 0 {
				t.Error("not reported")
			}
			on.Store(false)
			b.post(b.open(), "4a")
		})
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Options]()) {
		typ := f.Type
		if typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() == reflect.Func && !tested[f.Name] {
			t.Errorf("%s is not tested", f.Name)
		}
	}
}

// A panic of the function that Admit returned, or of the serve function, ends only the
// connection. The former runs without a lock.
func TestPanicsAtTheEnd(t *testing.T) {
	reported := make(chan string, 10)
	b := &bench{T: t}
	b.serve(Options{
		OnPanic: func(hook string, value any, _ []byte) { reported <- fmt.Sprint(hook, ": ", value) },
		Admit: func(*http.Request) (func(), error) {
			return func() {
				b.Stats() // takes the server's lock
				for c := range b.Conns() {
					c.Queued() // takes a connection's
				}
				panic("ended")
			}, nil
		},
	}, func(*Conn) { panic("served") })
	sid := b.open()
	for _, want := range []string{"serve: served", "Admit: ended"} {
		if got := receive(t, reported); got != want {
			t.Errorf("reported %q, want %q", got, want)
		}
		if want == "serve: served" {
			b.poll(sid) // the close
		}
	}
	b.until(func() bool { return b.Stats().Polling == 0 })
}
