package socketio

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

const tooManyRooms = `["socketio: too many rooms: at most 3"]`

// A client joins as many rooms as it may, and a room that it leaves makes place
// for another, until more have been left than can be remembered.
func TestRoomsPerSocket(t *testing.T) {
	n := start(t, Options{RoomsPerSocket: 3})
	joining(n.Of("/"))
	w := n.client(t)
	call := func(event, room, want string) {
		t.Helper()
		if got := w.call(fmt.Sprintf("[%q,%q]", event, room)); got != want {
			t.Fatalf("%s %s: %s", event, room, got)
		}
	}
	for i := range 3 {
		call("join", fmt.Sprint(i), `["ok"]`)
	}
	call("join", "3", tooManyRooms)
	call("join", "2", `["ok"]`) // it is there already
	for i := range 3*staysPerRoom - 3 {
		call("leave", fmt.Sprint(i%3), `["ok"]`)
		call("join", fmt.Sprint(i%3), `["ok"]`)
	}
	call("leave", "0", `["ok"]`)
	call("join", "0", `["socketio: too many rooms: too many were left within the last minutes"]`)
	if got := n.Stats().TooManyRooms; got != 2 {
		t.Errorf("%d are counted", got)
	}
}

// The limit comes back with the session, and with those of its rooms that it has left.
func TestRoomsPerSocketAfterARecovery(t *testing.T) {
	n := start(t, Options{RoomsPerSocket: 3})
	joining(n.Of("/"))
	w := n.client(t)
	for _, call := range []string{`["join","0"]`, `["join","1"]`, `["leave","0"]`, `["join","2"]`} {
		w.call(call)
	}
	w.cut()
	w = n.back(t, w)
	if got := w.call(`["join","3"]`); got != `["ok"]` {
		t.Errorf("the third: %s", got)
	}
	if got := w.call(`["join","4"]`); got != tooManyRooms {
		t.Errorf("the fourth: %s", got)
	}
}

// What the application commands is not bound by what clients may: nobody would
// hear of it.
func TestCommandsJoinBeyondTheLimit(t *testing.T) {
	n := start(t, Options{RoomsPerSocket: 3})
	joining(n.Of("/"))
	w := n.client(t)
	must(t, n.SocketsJoin(t.Context(), "a", "b", "c", "d", "e"))
	must(t, n.To("e").Emit(t.Context(), "n", 1))
	w.want(numbered(1))
	if got := w.call(`["join","f"]`); got != tooManyRooms {
		t.Errorf("the client's own: %s", got)
	}
}

// One namespace too many is refused with words, and the connection goes on.
func TestNamespacesPerConnection(t *testing.T) {
	n := start(t, Options{NamespacesPerConnection: 2})
	for _, name := range []string{"/", "/a", "/b"} {
		joining(n.Of(name))
	}
	w := n.client(t)
	w.connect("/a", "")
	w.write("40/b,")
	if got, want := w.next(), `44/b,{"message":"Too many namespaces: at most 2 on one connection","data":{"code":"too_many"}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n.Stats().TooManyNamespaces != 1 {
		t.Error("it is not counted")
	}
	w.quiet()
	w.write("41/a,")
	w.connect("/b", "")
	if !strings.HasPrefix(w.call(`["join","x"]`), `["ok"]`) {
		t.Error("there is no place though one was given up")
	}
}

// Events that wait for their handlers are bounded in bytes, too: the connection
// is not read meanwhile. All of them are handled, in order.
func TestWaitingEventsAreBounded(t *testing.T) {
	const events, size = 20, 1000
	o := Options{}
	o.MailboxBytes = 3 * size
	n := start(t, o)
	begin, handled := make(chan struct{}), make(chan int, events)
	n.Of("/").On("e", func(_ context.Context, e *Event) error {
		<-begin
		handled <- e.Size()
		return nil
	})
	letGo := sync.OnceFunc(func() { close(begin) })
	t.Cleanup(letGo)
	w := n.client(t)
	for range events {
		w.write(`42["e","` + strings.Repeat("x", size) + `"]`)
	}
	s := n.Socket(w.sid)
	eventually(t, "a full mailbox", func() bool {
		s.mail.mu.Lock()
		defer s.mail.mu.Unlock()
		return s.mail.full != nil
	})
	if got := n.Stats().EventsIn; got > 5 { // one is handled, three wait, one is on its way
		t.Errorf("%d events were taken in", got)
	}
	letGo()
	for range events {
		select {
		case got := <-handled:
			if got != size+len(`["e",""]`) {
				t.Errorf("its size is %d", got)
			}
		case <-time.After(patience):
			t.Fatal("an event is not handled")
		}
	}
}
