package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// A probe holds the state for one callback of one test.
type probe struct {
	*testing.T
	c      *testCluster
	n      *testNode
	w      *wire
	f      func(*Socket) // the action of the callback, once
	begun  atomic.Bool
	latest atomic.Pointer[ConnectRequest]
	called chan struct{}
	told   chan error // by OnError
	panics chan *PanicError
}

func newProbe(t *testing.T, o Options, f func(*Socket)) *probe {
	st := &probe{
		T: t, c: newCluster(adapter.MemoryOptions{}), f: f,
		called: make(chan struct{}), told: make(chan error, 10), panics: make(chan *PanicError, 10),
	}
	o.OnPanic = func(err *PanicError) { st.panics <- err }
	newID := o.NewID
	if newID != nil {
		o.NewID = func(ctx context.Context, r *ConnectRequest) (string, error) {
			st.latest.Store(r)
			st.call(nil)
			return newID(ctx, r)
		}
	}
	if o.RecoveryLimit != nil {
		o.RecoveryLimit = func(*ConnectRequest) RecoveryLimit { st.call(nil); return nil }
	}
	if o.Recovers != nil {
		o.Recovers = func(string, *engineio.Handshake) bool { st.call(nil); return true }
	}
	st.n = st.c.node(t, "aaaa", o)
	st.listen(st.n.Namespace)
	joining(st.n.Namespace)
	return st
}

// listen records the errors of all sockets, and the latest request.
func (st *probe) listen(n *Namespace) {
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		st.latest.Store(r)
		return nil
	})
	n.OnConnect(func(s *Socket) { s.OnError(func(err error) { st.told <- err }) })
}

// call is called by each callback.
func (st *probe) call(s *Socket) {
	if !st.begun.Swap(true) {
		defer close(st.called)
		st.f(s)
	}
}

func (st *probe) handler(_ context.Context, e *Event) error { st.call(e.Socket()); return nil }

// connected connects a client, and calls do to register functions with its socket.
func (st *probe) connected(do func(*Socket)) {
	st.n.OnConnect(do)
	st.w = st.n.client(st.T)
	st.w.quiet() // OnConnect has run
}

// A site is a place where this package calls the application.
type site struct {
	name     string // the method or option that takes the function
	callback string // how a PanicError names it; the last part of name by default
	effect   string // of a panic on the connection: "closed", "refused" or "none"
	told     bool   // OnError receives a panic
	options  Options
	run      func(st *probe) // makes the callback be called
}

const event = `42["event"]`

var sites = []site{
	{name: "Namespace.Use", effect: "refused", run: func(st *probe) {
		st.n.Use(func(context.Context, *ConnectRequest) error { st.call(nil); return nil })
		st.w = st.n.dial(st.T)
		st.w.write("40")
	}},
	{name: "Namespace.OnConnect", effect: "closed", told: true, run: func(st *probe) {
		st.n.OnConnect(st.call)
		st.w = st.n.client(st.T)
	}},
	{name: "Namespace.On", effect: "closed", told: true, run: func(st *probe) {
		st.n.On("event", st.handler)
		st.connected(func(*Socket) {})
		st.w.write(event)
	}},
	{name: "Namespace.OnAny", effect: "closed", told: true, run: func(st *probe) {
		st.connected(func(*Socket) {})
		st.n.OnAny(st.handler)
		st.w.write(event)
	}},
	{name: "Namespace.OnRoom", effect: "none", run: func(st *probe) {
		st.n.OnRoom(func(RoomEvent) { st.call(nil) })
		st.w = st.n.client(st.T)
		st.w.call(`["join","room"]`)
	}},
	{name: "Namespace.OnServerSide", effect: "none", run: func(st *probe) {
		other := st.c.node(st.T, "bbbb", Options{})
		st.n.OnServerSide("event", st.handler2)
		st.w = st.n.client(st.T)
		must(st.T, other.ServerSideEmit(st.Context(), "event"))
	}},
	{name: "Socket.On", callback: "On", effect: "closed", told: true, run: func(st *probe) {
		st.connected(func(s *Socket) { s.On("event", st.handler) })
		st.w.write(event)
	}},
	{name: "Socket.Once", callback: "On", effect: "closed", told: true, run: func(st *probe) {
		st.connected(func(s *Socket) { s.Once("event", st.handler) })
		st.w.write(event)
	}},
	{name: "Socket.OnAny", effect: "closed", told: true, run: func(st *probe) {
		st.connected(func(s *Socket) {
			s.OnAny(func(c context.Context, e *Event) error {
				if e.Name == "event" {
					st.call(e.Socket())
				}
				return nil
			})
		})
		st.w.write(event)
	}},
	{name: "Socket.Use", callback: "Socket.Use", effect: "closed", told: true, run: func(st *probe) {
		st.connected(func(s *Socket) {
			s.Use(func(c context.Context, e *Event) error {
				if e.Name == "event" {
					st.call(e.Socket())
				}
				return nil
			})
		})
		st.w.write(event)
	}},
	{name: "Socket.OnError", effect: "none", told: true, run: func(st *probe) {
		st.n.On("event", func(context.Context, *Event) error { return errors.New("reported") })
		st.connected(func(s *Socket) { s.OnError(func(error) { st.call(s) }) })
		st.w.write(event)
	}},
	{name: "Socket.OnAnyOutgoing", effect: "none", told: true, run: func(st *probe) {
		st.connected(func(s *Socket) { s.OnAnyOutgoing(func(string, Args) { st.call(s) }) })
		must(st.T, st.n.Emit(st.Context(), "event"))
		st.w.event()
	}},
	{name: "Socket.OnDisconnecting", effect: "closed", told: true, run: func(st *probe) {
		st.connected(func(s *Socket) { s.OnDisconnecting(func(Reason) { st.call(s) }) })
		st.w.cut()
	}},
	{name: "Socket.OnDisconnect", effect: "closed", told: true, run: func(st *probe) {
		st.connected(func(s *Socket) { s.OnDisconnect(func(Reason) { st.call(s) }) })
		st.w.cut()
	}},
	{name: "Socket.KeepRooms", callback: "On", effect: "closed", told: true, run: func(st *probe) {
		st.n.On("event", func(ctx context.Context, e *Event) error {
			return e.Socket().KeepRooms(ctx, func(string) bool { st.call(e.Socket()); return true })
		})
		st.connected(func(*Socket) {})
		st.w.call(`["join","room"]`)
		st.w.write(event)
	}},
	{name: "ConnectRequest.KeepRooms", effect: "none", run: func(st *probe) {
		keepRooms(st.n.Namespace, func(string) bool { st.call(nil); return true })
		a := st.n.client(st.T)
		a.call(`["join","room"]`)
		a.cut()
		st.w = st.n.dial(st.T)
		st.w.write(`40{"pid":"` + a.pid + `"}`)
	}},
	{name: "Server.OnNamespace", effect: "refused", run: func(st *probe) {
		st.n.OnNamespace(func(*Namespace) { st.call(nil) })
		st.n.OfFunc(func(context.Context, string, json.RawMessage) (bool, error) { return true, nil })
		st.w = st.n.dial(st.T)
		st.w.write("40/new,")
	}},
	{name: "Server.OfFunc", effect: "refused", run: func(st *probe) {
		st.n.OfFunc(func(context.Context, string, json.RawMessage) (bool, error) { st.call(nil); return true, nil })
		st.w = st.n.dial(st.T)
		st.w.write("40/new,")
	}},
	{name: "Parent.Use", effect: "refused", run: func(st *probe) {
		st.parent().Use(func(context.Context, *ConnectRequest) error { st.call(nil); return nil })
		st.w = st.n.dial(st.T)
		st.w.write("40/child,")
	}},
	{name: "Parent.OnConnect", effect: "closed", told: true, run: func(st *probe) {
		st.parent().OnConnect(st.call)
		st.w = st.n.dial(st.T).connect("/child", "")
	}},
	{name: "Parent.On", effect: "closed", told: true, run: func(st *probe) {
		st.parent().On("event", st.handler)
		st.w = st.n.dial(st.T).connect("/child", "")
		st.w.write(`42/child,["event"]`)
	}},
	{name: "Parent.OnAny", effect: "closed", told: true, run: func(st *probe) {
		st.parent().OnAny(st.handler)
		st.w = st.n.dial(st.T).connect("/child", "")
		st.w.write(`42/child,["event"]`)
	}},
	{name: "Options.NewID", effect: "refused",
		options: Options{NewID: func(context.Context, *ConnectRequest) (string, error) { return newID(), nil }},
		run: func(st *probe) {
			st.w = st.n.dial(st.T)
			st.w.write("40")
		}},
	{
		name: "Options.Recovers", effect: "none",
		options: Options{Recovers: func(string, *engineio.Handshake) bool { return true }},
		run: func(st *probe) {
			silent := *st.n
			silent.url += "/socket.io/?ignored=" // so that the query contains no choice
			st.w = silent.dial(st.T)
			st.w.write("40")
		},
	},
	{
		name: "Options.RecoveryLimit", effect: "none",
		options: Options{RecoveryLimit: func(*ConnectRequest) RecoveryLimit { return nil }},
		run: func(st *probe) {
			connected := make(chan *Socket, 1)
			st.n.OnConnect(func(s *Socket) { connected <- s })
			st.w = st.n.client(st.T)
			r := &recovery{socket: <-connected}
			r.findLimit()
			adapter.CountRead(r.count(st.Context()), 1<<30)
		},
	},
	{name: "Options.OnPanic", effect: "none", run: func(st *probe) {
		st.n.opts.OnPanic = func(*PanicError) { st.call(nil) }
		st.n.OnServerSide("event", func(context.Context, *Event) error { panic("reported") })
		st.w = st.n.client(st.T)
		other := st.c.node(st.T, "bbbb", Options{})
		must(st.T, other.ServerSideEmit(st.Context(), "event"))
	}},
}

func (st *probe) handler2(context.Context, *Event) error { st.call(nil); return nil }

// parent has a child "/child".
func (st *probe) parent() *Parent {
	p := st.n.OfFunc(func(context.Context, string, json.RawMessage) (bool, error) { return true, nil })
	p.OnConnect(func(s *Socket) { s.OnError(func(err error) { st.told <- err }) })
	return p
}

// Every function that an application can register is among the sites.
func TestSitesAreComplete(t *testing.T) {
	known := make(map[string]bool)
	for _, s := range sites {
		known[s.name] = true
	}
	check := func(name string) {
		if !known[name] {
			t.Errorf("%s takes a function, but no site tests it", name)
		}
		delete(known, name)
	}
	promoted := reflect.TypeFor[*Namespace]()
	for typ, name := range map[reflect.Type]string{
		reflect.TypeFor[*Server](): "Server", promoted: "Namespace", reflect.TypeFor[*Parent](): "Parent", reflect.TypeFor[*Socket](): "Socket",
		reflect.TypeFor[*ConnectRequest](): "ConnectRequest",
		reflect.TypeFor[Broadcast]():       "Broadcast", reflect.TypeFor[RemoteSocket](): "RemoteSocket", reflect.TypeFor[*Event](): "Event",
	} {
		for i := range typ.NumMethod() {
			m := typ.Method(i)
			if _, of := promoted.MethodByName(m.Name); of && name == "Server" {
				continue
			}
			for j := 1; j < m.Type.NumIn(); j++ {
				if m.Type.In(j).Kind() == reflect.Func {
					check(name + "." + m.Name)
				}
			}
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Options]()) {
		if f.Type.Kind() == reflect.Func {
			check("Options." + f.Name)
		}
	}
	for name := range known {
		t.Errorf("%s is tested, but does not exist", name)
	}
}

// A panic of any function of the application is reported and has the documented effect on
// the connection. Other connections are not affected.
func TestPanicsOfCallbacks(t *testing.T) {
	for _, site := range sites {
		t.Run(site.name, func(t *testing.T) {
			t.Parallel()
			st := newProbe(t, site.options, func(*Socket) { panic(site.name) })
			site.run(st)
			<-st.called
			callback := site.callback
			if callback == "" {
				_, callback, _ = strings.Cut(site.name, ".")
			}
			if site.name != "Options.OnPanic" {
				if err := <-st.panics; err.Callback != callback || err.Value != site.name || !strings.Contains(string(err.Stack), "TestPanicsOfCallbacks") {
					t.Errorf("reported %v in %q with the stack\n%s", err.Value, err.Callback, err.Stack)
				}
			}
			if site.told && site.name != "Socket.OnError" {
				if err := <-st.told; !errors.As(err, new(*PanicError)) {
					t.Errorf("OnError is told %v", err)
				}
			}
			switch site.effect {
			case "closed":
				<-st.w.closed
			case "refused":
				if m := st.w.next(); !strings.HasPrefix(m, "44") {
					t.Errorf("got %q, want a refusal", m)
				}
			case "none":
				st.w.write(`42999["ping me"]`)
				for !strings.HasPrefix(st.w.next(), "43999") {
				}
			}
			eventually(t, "it is counted", func() bool { return st.n.Stats().Panics > 0 })
			st.n.client(t).quiet()
		})
	}
}

// A function of the application that ends its goroutine, as testing.T.FailNow does, is reported like
// a panic. Other sockets are not affected, its socket ends with its connection, and the server can
// be closed.
func TestCallbacksThatEndTheirGoroutine(t *testing.T) {
	for _, site := range sites {
		t.Run(site.name, func(t *testing.T) {
			t.Parallel()
			st := newProbe(t, site.options, func(*Socket) { runtime.Goexit() })
			ran := make(chan struct{})
			go func() { // which the function may end
				defer close(ran)
				site.run(st)
			}()
			<-ran
			<-st.called
			if site.name != "Options.OnPanic" {
				if err := <-st.panics; err.Value != errGoexit {
					t.Errorf("reported %v, want %v", err.Value, errGoexit)
				}
			}
			if site.told && site.name != "Socket.OnError" {
				select {
				case err := <-st.told:
					if !errors.Is(err, errGoexit) {
						t.Errorf("OnError is told %v, want %v", err, errGoexit)
					}
				case <-time.After(patience):
					t.Error("OnError is not told")
				}
			}
			if site.effect == "closed" {
				<-st.w.closed
			}
			other := st.n.client(t)
			other.quiet()
			other.cut()
			if st.w != nil {
				st.w.cut()
			}
			eventually(t, "all sockets have ended", func() bool {
				st.n.Server.mu.Lock()
				defer st.n.Server.mu.Unlock()
				inside := 0
				for _, n := range st.n.namespaces {
					inside += n.clients
				}
				return st.n.Len() == 0 && inside == 0
			})
		})
	}
}

// Also the function of a namespace that a client enters as its second one closes the connection, rather
// than leaving CONNECT without an answer.
func TestNamespaceFunctionsThatEndTheirGoroutine(t *testing.T) {
	for name, register := range map[string]func(*testNode){
		"OfFunc": func(n *testNode) {
			n.OfFunc(func(context.Context, string, json.RawMessage) (bool, error) { runtime.Goexit(); return true, nil })
		},
		"OnNamespace": func(n *testNode) {
			n.OfPattern(regexp.MustCompile("^/child$"))
			n.OnNamespace(func(*Namespace) { runtime.Goexit() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, Options{})
			n.retryDelay = time.Millisecond
			joining(n.Namespace)
			register(n)
			w := n.client(t)
			w.write("40/child,")
			select {
			case <-w.closed:
			case <-time.After(patience):
				t.Error("nothing happens")
			}
			n.client(t).quiet()
		})
	}
}

// limit is the maximum time of a method in a callback: a second, and more for a slow
// machine.
const limit = 5 * time.Second

// waiting are the methods whose wait may depend on the return of the callback. They end
// with their context.
var waiting = map[string]bool{
	"EmitWithAck": true, "ServerSideEmitWithAck": true, "FetchSockets": true, "Members": true, "Close": true, "Drain": true, "SendAway": true,
}

// ending are the methods that end the socket or the server: they are called last.
var ending = []string{"Close", "Cut", "Disconnect", "DisconnectSockets", "Drain", "SendAway"}

// Every method can be called in every callback.
func TestMethodsInCallbacks(t *testing.T) {
	for _, site := range sites {
		t.Run(site.name, func(t *testing.T) {
			t.Parallel()
			var st *probe
			st = newProbe(t, site.options, func(s *Socket) {
				if s == nil {
					for s = range st.n.Sockets() {
						break
					}
				}
				callAll(st, s, false)
				callAll(st, s, true)
			})
			site.run(st)
			<-st.called
		})
	}
}

// callAll calls all methods concurrently, with arguments made from their types.
func callAll(st *probe, s *Socket, last bool) {
	receivers := []any{st.n.Server, st.n.Namespace, st.n.OfFunc(func(context.Context, string, json.RawMessage) (bool, error) { return false, nil }), st.n.To("r")}
	if r := st.latest.Load(); r != nil {
		receivers = append(receivers, r)
	}
	if s != nil {
		receivers = append(receivers, s, s.Broadcast(), s.Self(), RemoteSocket{SocketInfo: SocketInfo{ID: s.ID()}, ns: s.Namespace()})
	}
	var names []string
	done := make(chan string, 1000)
	for _, r := range receivers {
		v := reflect.ValueOf(r)
		for i := range v.NumMethod() {
			method := v.Type().Method(i).Name
			name := v.Type().String() + "." + method
			if slices.Contains(ending, method) != last || method == "ServeHTTP" || slices.Contains(names, name) {
				continue
			}
			names = append(names, name)
			go func() {
				callMethod(st, v.Method(i), waiting[method])
				done <- name
			}()
		}
	}
	timeout := time.After(limit)
	for range names {
		select {
		case name := <-done:
			names[slices.Index(names, name)] = ""
		case <-timeout:
			st.Errorf("blocked: %s", strings.Join(slices.DeleteFunc(names, func(n string) bool { return n == "" }), " "))
			return
		}
	}
}

// callMethod calls a method, and ranges over the sequence that it returns.
func callMethod(st *probe, m reflect.Value, waits bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	if waits {
		ctx, cancel = context.WithTimeout(context.Background(), 200*time.Millisecond)
	}
	defer cancel()
	var args []reflect.Value
	typ := m.Type()
	for i := range typ.NumIn() {
		in := typ.In(i)
		switch {
		case typ.IsVariadic() && i == typ.NumIn()-1:
			if in.Elem().Kind() == reflect.String {
				args = append(args, reflect.ValueOf("r"))
			}
		case in == reflect.TypeFor[context.Context]():
			args = append(args, reflect.ValueOf(ctx))
		case in.Kind() == reflect.String:
			args = append(args, reflect.ValueOf("r").Convert(in))
		case in.Kind() == reflect.Func:
			args = append(args, zeroFunc(in, false))
		case in.Kind() == reflect.Interface: // any
			args = append(args, reflect.ValueOf(new(int)))
		case in == reflect.TypeFor[*regexp.Regexp]():
			args = append(args, reflect.ValueOf(regexp.MustCompile("^/none$")))
		case in.Kind() == reflect.Pointer:
			args = append(args, reflect.New(in.Elem()))
		default:
			args = append(args, reflect.Zero(in))
		}
	}
	for _, out := range m.Call(args) {
		if out.Kind() == reflect.Func && out.Type().NumIn() == 1 && out.Type().In(0).Kind() == reflect.Func {
			out.Call([]reflect.Value{zeroFunc(out.Type().In(0), true)})
		}
	}
}

// zeroFunc makes a function that returns zero values, or true.
func zeroFunc(typ reflect.Type, yield bool) reflect.Value {
	return reflect.MakeFunc(typ, func([]reflect.Value) []reflect.Value {
		var out []reflect.Value
		for i := range typ.NumOut() {
			v := reflect.Zero(typ.Out(i))
			if v.Kind() == reflect.Bool && yield {
				v = reflect.ValueOf(true)
			}
			out = append(out, v)
		}
		return out
	})
}
