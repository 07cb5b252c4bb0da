package wire

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/socketio"
	"github.com/rejoin-io/rejoin/tests/inbox"
)

// A server is the server of a conversation.
type server struct {
	addr    string
	seen    inbox.Inbox[string] // events of the application
	io      *socketio.Server
	release chan struct{} // lets a socket through the middleware of /slow
}

// startServer starts a server with a scenario's options and the application of
// all scenarios.
func startServer(t *testing.T, options map[string]string) *server {
	t.Helper()
	s := &server{release: make(chan struct{}, 16)}
	o, err := s.options(options)
	if err != nil {
		t.Fatal(err)
	}
	if s.io, err = socketio.NewServer(o); err != nil {
		t.Fatal(err)
	}
	s.application()
	mux := http.NewServeMux()
	mux.Handle(cmp.Or(o.Engine.Path, "/socket.io/"), s.io)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "elsewhere")
	})
	front := httptest.NewServer(mux)
	s.addr = strings.TrimPrefix(front.URL, "http://")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.io.Close(ctx); err != nil {
			t.Errorf("the server does not close: %v", err)
		}
		front.Close()
	})
	return s
}

// options turns the words of a script into options.
func (s *server) options(words map[string]string) (socketio.Options, error) {
	o := socketio.Options{RecoveryWindow: -1}
	e := &o.Engine
	var failed error
	duration := func(text string) time.Duration {
		d, err := time.ParseDuration(text)
		failed = errors.Join(failed, err)
		return d
	}
	for word, value := range words {
		switch word {
		case "pingInterval":
			e.PingInterval = duration(value)
		case "pingTimeout":
			e.PingTimeout = duration(value)
		case "upgradeTimeout":
			e.UpgradeTimeout = duration(value)
		case "connectTimeout":
			o.ConnectTimeout = duration(value)
		case "recovery":
			o.RecoveryWindow = duration(value)
		case "transports":
			e.Transports = strings.Split(value, ",")
		case "origins":
			e.Origins = strings.Split(value, ",")
		case "path":
			e.Path = value
		case "node":
			e.NodeID = value
		case "initial":
			e.InitialPacket = engineio.Text([]byte(value))
		case "upgrades":
			e.DisableUpgrades = value == "no"
		case "compression":
			e.HTTPCompressionThreshold = -1
		case "deflate":
			e.PerMessageDeflate = value == "yes"
		case "cookie":
			e.Cookie = &http.Cookie{}
		case "generate":
			e.GenerateID = func(*http.Request) (string, error) {
				if value == "fail" {
					return "", errors.New("no id")
				}
				return value, nil
			}
		case "forbid":
			e.AllowRequest = func(*http.Request) error {
				if value == "yes" {
					return errors.New("Forbidden")
				}
				return errors.New(value)
			}
		case "allow":
			var asked atomic.Bool
			e.AllowRequest = func(*http.Request) error {
				if asked.Swap(true) {
					return errors.New("asked already")
				}
				return nil
			}
		case "headers":
			e.InitialHeaders = func(h http.Header, _ *http.Request) { h.Set("X-First", "1") }
			e.Headers = func(h http.Header, _ *http.Request) { h.Set("X-Each", "1") }
		case "middleware":
			e.Use = []func(http.Handler) http.Handler{s.middleware(value)}
		default:
			failed = errors.Join(failed, fmt.Errorf("no such option: %s", word))
		}
	}
	return o, failed
}

func (s *server) middleware(kind string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			what := r.Method
			if r.Header.Get("Upgrade") != "" {
				what = "upgrade"
			}
			s.seen.Put("middleware " + what)
			if kind == "fail" {
				http.Error(w, "no", http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// application sets up the namespaces.
func (s *server) application() {
	for _, name := range []string{"/", "/chat", "/slow", "/refuse", "/early"} {
		s.io.Of(name).Use(keepAuth)
		s.io.Of(name).OnConnect(s.connected)
	}
	dynamic := s.io.OfPattern(regexp.MustCompile(`^/dynamic-\d+$`))
	dynamic.Use(keepAuth)
	dynamic.OnConnect(s.connected)
	s.io.Of("/slow").Use(func(ctx context.Context, _ *socketio.ConnectRequest) error {
		s.seen.Put("waiting")
		select {
		case <-s.release:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	s.io.Of("/refuse").Use(func(_ context.Context, r *socketio.ConnectRequest) error {
		var auth struct{ Data any }
		if err := r.Auth(&auth); err != nil {
			return err
		}
		return &socketio.ConnectError{Message: "not you", Data: auth.Data}
	})
	s.io.Of("/early").Use(func(_ context.Context, r *socketio.ConnectRequest) error {
		return r.Emit("session", "abc")
	})
}

type authKey struct{}

// keepAuth keeps the auth payload for the event "auth".
func keepAuth(_ context.Context, r *socketio.ConnectRequest) error {
	var auth json.RawMessage
	err := r.Auth(&auth)
	r.SetValue(authKey{}, auth)
	return err
}

func (s *server) connected(socket *socketio.Socket) {
	namespace := socket.Namespace().Name()
	if socket.Recovered() {
		s.seen.Put("connected " + namespace + " recovered")
	} else {
		s.seen.Put("connected " + namespace)
	}
	socket.OnAny(func(_ context.Context, e *socketio.Event) error {
		s.seen.Put("event " + namespace + " " + e.Name)
		return nil
	})
	socket.OnError(func(error) { s.seen.Put("error " + namespace) })
	socket.OnDisconnect(func(reason socketio.Reason) {
		s.seen.Put(fmt.Sprintf("disconnect %s %s", namespace, reason))
	})
	socket.On("echo", withArgs(func(_ context.Context, e *socketio.Event, args []any) error {
		return e.Ack(args...)
	}))
	socket.On("back", withArgs(func(ctx context.Context, _ *socketio.Event, args []any) error {
		return socket.Emit(ctx, "back", args...)
	}))
	socket.On("plain", withArgs(func(ctx context.Context, _ *socketio.Event, args []any) error {
		return socket.Self().Compress(false).Emit(ctx, "plain", args...)
	}))
	socket.On("ask", withArgs(func(ctx context.Context, _ *socketio.Event, args []any) error {
		go s.ask(socket, args) // ends with the answer, or with the socket
		return nil
	}))
	socket.On("query", func(_ context.Context, e *socketio.Event) error {
		var key string
		if err := e.Arg(0, &key); err != nil {
			return err
		}
		return e.Ack(socket.Handshake().Query().Get(key))
	})
	socket.On("address", func(_ context.Context, e *socketio.Event) error {
		return e.Ack(socket.Handshake().RemoteAddr)
	})
	socket.On("auth", func(_ context.Context, e *socketio.Event) error {
		return e.Ack(socket.Value(authKey{}))
	})
	socket.On("join", func(ctx context.Context, e *socketio.Event) error {
		var room string
		if err := e.Arg(0, &room); err != nil {
			return err
		}
		if err := socket.Join(ctx, room); err != nil {
			return err
		}
		return e.Ack()
	})
	socket.On("leave", func(context.Context, *socketio.Event) error {
		socket.Disconnect(false)
		return nil
	})
	socket.On("quit", func(context.Context, *socketio.Event) error {
		socket.Disconnect(true)
		return nil
	})
}

// withArgs is a handler that gets the arguments as values.
func withArgs(f func(context.Context, *socketio.Event, []any) error) socketio.Handler {
	return func(ctx context.Context, e *socketio.Event) error {
		args, err := e.Values()
		if err != nil {
			return err
		}
		return f(ctx, e, args)
	}
}

func (s *server) ask(socket *socketio.Socket, args []any) {
	answer, err := socket.EmitWithAck(socket.Context(), "question", args...)
	if err != nil {
		return
	}
	values, err := answer.Values()
	if err == nil {
		err = socket.Emit(socket.Context(), "answer", values...)
	}
	if err != nil && !errors.Is(err, socketio.ErrDisconnected) {
		s.seen.Put("answer: " + err.Error())
	}
}

// command carries out a "server >" step.
func (s *server) command(text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	words := strings.Fields(text)
	switch words[0] {
	case "release":
		s.release <- struct{}{}
		return nil
	case "close":
		return s.io.Close(ctx)
	case "room":
		args := make([]any, 0, len(words))
		for _, word := range words[3:] {
			args = append(args, word)
		}
		return s.io.To(words[1]).Emit(ctx, words[2], args...)
	}
	return errors.New("no such command: " + strconv.Quote(text))
}
