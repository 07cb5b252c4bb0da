package socketio

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

type testKey struct{}

// decide calls all methods that take a decision, with values that name the call, and returns the errors
// by method.
func decide(r *ConnectRequest, name string) map[string]error {
	r.SetUser(name)
	r.SetValue(testKey{}, name)
	r.Keep([]byte(name))
	r.KeepRooms(func(string) bool { return false })
	return map[string]error{"Join": r.Join(name), "SetData": r.SetData(name), "Emit": r.Emit(name)}
}

// Every method of a request that returns an error is a decision, except those that read.
func TestMethodsThatDecide(t *testing.T) {
	known := []string{"Auth", "Former", "Emit", "Join", "SetData"}
	typ := reflect.TypeFor[*ConnectRequest]()
	for i := range typ.NumMethod() {
		m := typ.Method(i)
		if out := m.Type.NumOut(); out > 0 && m.Type.Out(out-1) == reflect.TypeFor[error]() && !slices.Contains(known, m.Name) {
			t.Errorf("no test covers a late call of %s", m.Name)
		}
	}
}

// Decisions of middlewares take effect, and later ones do not: while the socket is being
// connected, when it is connected, and after it has ended.
func TestDecisions(t *testing.T) {
	inner, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("a")
	must(t, err)
	t.Cleanup(func() { _ = inner.Close() })
	a := &placing{Adapter: inner}
	n := start(t, Options{Adapter: a})
	joining(n.Namespace)
	var request *ConnectRequest
	late := func(when string) {
		for method, err := range decide(request, "late") {
			if !errors.Is(err, ErrDisconnected) {
				t.Errorf("%s %s: %v, want ErrDisconnected", method, when, err)
			}
		}
		var auth struct{ Name string }
		if err := request.Auth(&auth); err != nil || auth.Name != "ann" {
			t.Errorf(`Auth %s: %q, %v, want "ann"`, when, auth.Name, err)
		}
		if request.User() != "early" || request.Value(testKey{}) != "early" {
			t.Errorf(`%s: user %q, value %v, want "early", early`, when, request.User(), request.Value(testKey{}))
		}
	}
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		request = r
		for method, err := range decide(r, "early") {
			if err != nil {
				t.Errorf("%s: %v", method, err)
			}
		}
		a.placed = func() { late("while the socket is being connected") }
		return nil
	})
	w := n.dial(t).connect("/", `{"name":"ann"}`)
	a.placed = nil
	if len(w.early) != 1 || w.early[0] != `42["early",null]` {
		t.Errorf("events before CONNECT: %q", w.early)
	}
	late("when it is connected")
	s, data := n.Socket(w.sid), ""
	must(t, s.Data(&data))
	if s.User() != "early" || s.Value(testKey{}) != "early" || data != "early" || !slices.Equal(s.Rooms(), []string{"early"}) {
		t.Errorf("user %q, value %v, data %q, rooms %q", s.User(), s.Value(testKey{}), data, s.Rooms())
	}
	s.mu.Lock()
	if s.kept != "early" {
		t.Errorf("kept %q, want early", s.kept)
	}
	s.mu.Unlock()
	if request.ID() != w.sid {
		t.Errorf("the request has the id %q, the socket %q, want %q", request.ID(), w.sid, w.sid)
	}
	w.quiet()
	w.cut()
	eventually(t, "it has ended", func() bool { return n.Len() == 0 })
	late("when the socket has ended")
}

// Decisions after the client has disconnected have no effect either, although the middlewares have
// not returned.
func TestDecisionsAfterTheClientHasDisconnected(t *testing.T) {
	n := start(t, Options{})
	errs := make(chan map[string]error, 1)
	began := make(chan struct{})
	n.Use(func(ctx context.Context, r *ConnectRequest) error {
		close(began)
		<-ctx.Done()
		errs <- decide(r, "late")
		return nil
	})
	w := n.dial(t)
	w.write("40")
	<-began
	w.cut()
	for method, err := range receive(t, errs) {
		if !errors.Is(err, ErrDisconnected) {
			t.Errorf("%s: %v, want ErrDisconnected", method, err)
		}
	}
}

// A refused Join adds no room.
func TestRefusedJoinOfARequest(t *testing.T) {
	n := start(t, Options{RoomsPerSocket: 3})
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		must(t, r.Join("a", "b"))
		for want, names := range map[error][]string{ErrRoomName: {"c", ""}, ErrTooManyRooms: {"c", "d"}} {
			if err := r.Join(names...); !errors.Is(err, want) {
				t.Errorf("Join(%q): %v, want %v", names, err, want)
			}
		}
		return r.Join("b", "a", "b")
	})
	n.client(t).inRooms(n, "a", "b")
}

// Several functions must all allow a room, but a room that a middleware joins stays, with its
// missed events. A recovered socket has the data of its session, not that of the middlewares.
func TestDecisionsAboutARecoveredSocket(t *testing.T) {
	store := &claiming{Store: session.NewMemory(), dropped: make(chan string, 10)}
	n := start(t, Options{Sessions: store})
	joining(n.Namespace)
	var requests []*ConnectRequest
	store.claimed = func() { // too late, also for the rooms that it keeps
		for method, err := range decide(requests[1], "late") {
			if !errors.Is(err, ErrDisconnected) {
				t.Errorf("%s: %v, want ErrDisconnected", method, err)
			}
		}
	}
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		requests = append(requests, r)
		r.KeepRooms(func(room string) bool { return room != "a" })
		r.KeepRooms(func(room string) bool { return room != "b" })
		must(t, r.SetData(fmt.Sprint("data ", len(requests))))
		return r.Join("a")
	})
	w := n.client(t)
	for _, room := range []string{"b", "c"} {
		w.call(fmt.Sprintf(`["join",%q]`, room))
	}
	w.cut()
	for i, room := range []string{"a", "b", "c"} {
		must(t, n.To(room).Emit(t.Context(), "n", i))
	}
	back := n.back(t, w)
	if back.sid != w.sid {
		t.Fatal("not recovered")
	}
	back.want(numbered(0), numbered(2))
	back.inRooms(n, "a", "c")
	var data string
	must(t, n.Socket(back.sid).Data(&data))
	if data != "data 1" {
		t.Errorf(`the data is %q, want "data 1"`, data)
	}
	if id := requests[1].ID(); id == "" || id == back.sid {
		t.Errorf("the request of the recovered socket has the id %q", id)
	}
}

// The id of a client whose recovery is refused late is one of NewID, too.
func TestNewIDAfterARefusal(t *testing.T) {
	next := 0
	newID := func(context.Context, *ConnectRequest) (string, error) {
		next++
		return fmt.Sprint("made ", next), nil
	}
	n := newCluster(adapter.MemoryOptions{BacklogLimit: 5}).node(t, "node", Options{NewID: newID})
	w := n.client(t)
	must(t, n.Emit(t.Context(), "n", 0))
	w.want(numbered(0))
	w.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	for i := range 20 {
		must(t, n.Emit(t.Context(), "n", i))
	}
	if back := n.back(t, w); w.sid != "made 1" || back.sid != "made 2" {
		t.Errorf(`first %q, then %q, want "made 1", "made 2"`, w.sid, back.sid)
	}
	must(t, n.ToSocket("made 2").Emit(t.Context(), "n", 1))
}

// The payload of CONNECT is dropped with its request: neither the socket nor a replay holds it.
func TestConnectPayloadIsDropped(t *testing.T) {
	n, shared := startRemote(t, 1)
	n.replays.patience = time.Hour
	dropped := make(chan struct{}, 1)
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		runtime.AddCleanup(r, func(struct{}) { dropped <- struct{}{} }, struct{}{})
		return nil
	})
	isDropped := func(when string) {
		t.Helper()
		eventually(t, "the request is dropped "+when, func() bool {
			runtime.GC()
			select {
			case <-dropped:
				return true
			default:
				return false
			}
		})
	}
	w := n.client(t)
	w.call(`["join","r"]`)
	isDropped("when the socket is connected")
	w.cut()
	for i := range 20 {
		must(t, n.To("r").Emit(t.Context(), "n", i, string(make([]byte, 50_000))))
	}
	shared.waits.Store(true)
	back := n.dial(t)
	back.write(fmt.Sprintf(`40{"pid":%q}`, w.pid))
	back.connected()
	<-shared.waiting
	isDropped("while the replay waits")
	shared.waits.Store(false)
	back.cut()
}

// If decisions are made concurrently with the end of the middlewares, accepted ones take effect: an
// event has been sent before CONNECT, and the socket is in the room.
func TestConcurrentDecisions(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	var running sync.WaitGroup
	accepted := make(chan map[string]bool, 100)
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		begun := make(chan struct{})
		running.Go(func() {
			done := make(map[string]bool)
			for i := 0; ; i++ {
				name := fmt.Sprint("call ", i)
				errs := decide(r, name)
				for method, err := range errs {
					done[method+" "+name] = err == nil
				}
				if i == 0 {
					close(begun)
				}
				if errs["Join"] != nil && errs["SetData"] != nil && errs["Emit"] != nil {
					accepted <- done
					return
				}
			}
		})
		<-begun
		return nil
	})
	for range 20 {
		w := n.client(t)
		done, s, data := receive(t, accepted), n.Socket(w.sid), ""
		sent := make(map[string]bool)
		for _, m := range w.early {
			sent[m] = true
		}
		must(t, s.Data(&data))
		if !done["SetData "+data] {
			t.Errorf("the data is %q, which was not accepted", data)
		}
		for i := 0; ; i++ {
			name := fmt.Sprint("call ", i)
			if _, called := done["Join "+name]; !called {
				break
			}
			if event := fmt.Sprintf(`42[%q,null]`, name); done["Emit "+name] != sent[event] {
				t.Errorf("%s: accepted %v, sent %v", event, done["Emit "+name], sent[event])
			}
			if done["Join "+name] != s.InRoom(name) {
				t.Errorf("room %s: accepted %v, is there %v", name, done["Join "+name], s.InRoom(name))
			}
		}
		w.quiet()
	}
	running.Wait()
}
