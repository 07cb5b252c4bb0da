package socketio

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// Each invalid registration panics, and the message suggests a correction.
func TestRefusedRegistrations(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	var s *Socket
	n.OnConnect(func(connected *Socket) { s = connected })
	n.client(t).quiet()
	p := n.OfPattern(regexp.MustCompile("^/child$"))
	h := func(context.Context, *Event) error { return nil }

	type registrar interface{ On(string, Handler) }
	for _, r := range []registrar{n.Namespace, p, s} {
		for event, instead := range map[string]string{
			"connect": "OnConnect", "connection": "OnConnect", "disconnect": "OnDisconnect", "disconnecting": "OnDisconnecting",
			"connect_error": "Use", "newListener": "another name", "removeListener": "another name",
		} {
			refused(t, fmt.Sprintf("%T.On(%q)", r, event), fmt.Sprintf("socketio: On(%q): ", event), instead, func() { r.On(event, h) })
		}
		refused(t, fmt.Sprintf("%T.On, nil", r), `socketio: On("chat"): nil function`, "", func() { r.On("chat", nil) })
	}
	for _, r := range []interface {
		Use(func(context.Context, *ConnectRequest) error)
		OnConnect(func(*Socket))
		OnAny(Handler)
	}{n.Namespace, p} {
		refused(t, fmt.Sprintf("%T.Use", r), `socketio: Use: nil function`, "", func() { r.Use(nil) })
		refused(t, fmt.Sprintf("%T.OnConnect", r), `socketio: OnConnect: nil function`, "", func() { r.OnConnect(nil) })
		refused(t, fmt.Sprintf("%T.OnAny", r), `socketio: OnAny: nil function`, "", func() { r.OnAny(nil) })
	}
	for name, register := range map[string]func(){
		`Once("connect"): use `:                  func() { s.Once("connect", h) },
		`Once("chat"): nil function`:             func() { s.Once("chat", nil) },
		`OnServerSide("disconnect"): use `:       func() { n.OnServerSide("disconnect", h) },
		`OnServerSide("chat"): nil function`:     func() { n.OnServerSide("chat", nil) },
		`OnRoom: nil function`:                   func() { n.OnRoom(nil) },
		`OnNamespace: nil function`:              func() { n.OnNamespace(nil) },
		`OfFunc: nil function`:                   func() { n.OfFunc(nil) },
		`OfPattern: nil pattern`:                 func() { n.OfPattern(nil) },
		`Socket.Use: nil function`:               func() { s.Use(nil) },
		`Socket.OnAny: nil function`:             func() { s.OnAny(nil) },
		`OnAnyOutgoing: nil function`:            func() { s.OnAnyOutgoing(nil) },
		`OnError: nil function`:                  func() { s.OnError(nil) },
		`OnDisconnecting: nil function`:          func() { s.OnDisconnecting(nil) },
		`OnDisconnect: nil function`:             func() { s.OnDisconnect(nil) },
		`KeepRooms: nil function`:                func() { _ = s.KeepRooms(context.Background(), nil) },
		`ConnectRequest.KeepRooms: nil function`: func() { new(ConnectRequest).KeepRooms(nil) },
		`Of("/a,b"): `:                           func() { n.Of("/a,b") },
		`Of("/a?b"): `:                           func() { n.Of("a?b") },
	} {
		refused(t, name, "socketio: "+name, "", register)
	}
	if n.Of("") != n.Namespace || n.Of("/") != n.Namespace || n.Of("chat") != n.Of("/chat") {
		t.Error("names without a slash are others")
	}
}

// refused fails unless f panics with a message that begins with prefix and has part.
func refused(t *testing.T, what, prefix, part string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if got := fmt.Sprint(recover()); !strings.HasPrefix(got, prefix) || !strings.Contains(got, part) {
			t.Errorf("%s: got %s, want a panic with %s … %s", what, got, prefix, part)
		}
	}()
	f()
}

// The protocol allows a client to send the event "connection". Only OnAny sees it.
func TestConnectionFromClient(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	seen := make(chan string, 2)
	n.OnAny(func(_ context.Context, e *Event) error { seen <- e.Name; return nil })
	w := n.client(t)
	w.write(`42["connection"]`)
	if got := <-seen; got != "connection" {
		t.Errorf(`saw %q, want "connection"`, got)
	}
	w.quiet()
}

// NewServer refuses invalid options, and the error suggests a correction.
func TestRefusedOptions(t *testing.T) {
	for want, o := range map[string]Options{
		`Path "socket.io": write "/socket.io"`:   {Engine: engineio.Options{Path: "socket.io"}},
		`ReplayLimit is -1`:                      {ReplayLimit: -1},
		`ConnectTimeout is -1s`:                  {ConnectTimeout: -time.Second},
		`AckTimeout is -1s`:                      {AckTimeout: -time.Second},
		`RoomsPerSocket is -1`:                   {RoomsPerSocket: -1},
		`MailboxEvents is -1`:                    {MailboxEvents: -1},
		`MailboxBytes is -1`:                     {MailboxBytes: -1},
		`NamespacesPerConnection is -1`:          {NamespacesPerConnection: -1},
		`SessionRecoveries is -1`:                {SessionRecoveries: -1},
		`MaxPayload is -1`:                       {Engine: engineio.Options{MaxPayload: -1}},
		`Transports is empty`:                    {Engine: engineio.Options{Transports: []string{}}},
		`duplicate transport "polling"`:          {Engine: engineio.Options{Transports: []string{"polling", "polling"}}},
		`unknown transport "sse"`:                {Engine: engineio.Options{Transports: []string{"sse"}}},
		`Cookie is set by handshakes by polling`: {Engine: engineio.Options{Cookie: new(http.Cookie), Transports: []string{"websocket"}}},
		`Use[0] is nil`:                          {Engine: engineio.Options{Use: make([]func(http.Handler) http.Handler, 1)}},
	} {
		srv, err := NewServer(o)
		if err == nil {
			_ = srv.Close(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %s", err, want)
		}
	}
	srv, err := NewServer(Options{RecoveryWindow: -1})
	must(t, err)
	must(t, srv.Close(t.Context()))
}

// A panic of a hook of the engine is reported like one of the server's.
func TestPanicOfEngineHook(t *testing.T) {
	panics := make(chan *PanicError, 1)
	n := start(t, Options{
		Engine: engineio.Options{AllowRequest: func(r *http.Request) error {
			if r.Header.Get("Bad") != "" {
				panic("of the hook")
			}
			return nil
		}},
		OnPanic: func(err *PanicError) { panics <- err },
	})
	joining(n.Namespace)
	req, err := http.NewRequest(http.MethodGet, strings.Replace(n.url, "ws", "http", 1)+"/socket.io/?EIO=4&transport=polling", nil)
	must(t, err)
	req.Header.Set("Bad", "1")
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	_ = res.Body.Close()
	if err := <-panics; res.StatusCode != http.StatusForbidden || err.Callback != "Engine.AllowRequest" || err.Value != "of the hook" {
		t.Errorf("answered %s, reported %v", res.Status, err)
	}
	if n.Stats().Panics != 1 {
		t.Error("it is not counted")
	}
	n.client(t).quiet()
}
