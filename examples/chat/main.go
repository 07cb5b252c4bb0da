// Command chat is a chat server on the library. Its clients have names, are in
// rooms, get a room's last lines and its members, and miss nothing when their
// connection breaks.
//
//	npm install --no-save --prefix examples/chat socket.io-client
//	go -C examples run ./chat
//
// Then open http://localhost:8080/ in two tabs. With -redis any number of these
// servers, each with another -addr, are one chat:
//
//	go -C examples run ./chat -addr localhost:8081 -redis redis://localhost:6379
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

//go:embed index.html
var page []byte

const (
	maxName = 24  // characters
	maxText = 500 // characters
	past    = 20  // events of a room that a new member gets
)

func main() {
	addr := flag.String("addr", "localhost:8080", "where to listen")
	files := flag.String("client", "chat/node_modules/socket.io-client/dist", "folder of the JavaScript client")
	redisURL := flag.String("redis", "", "Redis that the servers of a cluster share")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *files, *redisURL); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, addr, files, redisURL string) (err error) {
	options := socketio.Options{Client: os.DirFS(files)}
	if redisURL != "" {
		leave, err := join(ctx, redisURL, &options)
		if err != nil {
			return err
		}
		defer leave() // after the server has closed
	}
	chat, err := socketio.NewServer(options)
	if err != nil {
		return err
	}
	register(chat)

	mux := http.NewServeMux()
	mux.Handle("/socket.io/", chat)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
	site := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- site.ListenAndServe() }() // until Shutdown
	log.Printf("open http://%s/ in two tabs", addr)
	select {
	case err = <-failed:
	case <-ctx.Done():
	}

	// Clients are cut as by a lost connection, so they reconnect to this server's
	// successor or, in a cluster, to another server.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, chat.Close(ctx), site.Shutdown(ctx))
}

// A line is a message of the chat.
type line struct {
	From string `json:"from"`
	Text string `json:"text"`
	At   int64  `json:"at,omitempty"` // Unix time in milliseconds; 0 for a new line
}

// register registers the handlers of clients' events.
func register(chat *socketio.Server) {
	// Each client has a name. A session belongs to its user: no other user can recover it.
	chat.Use(func(_ context.Context, r *socketio.ConnectRequest) error {
		var auth struct{ Name string }
		if err := r.Auth(&auth); err != nil || !short(auth.Name, maxName) {
			return &socketio.ConnectError{Message: "a name is 1 to 24 characters"}
		}
		r.SetUser(auth.Name)
		return nil
	})

	chat.OnConnect(func(s *socketio.Socket) {
		s.OnDisconnecting(func(socketio.Reason) { // not for clients that reconnect
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if rooms := s.Rooms(); len(rooms) > 0 {
				if err := s.To(rooms...).Emit(ctx, "left", s.User()); err != nil {
					log.Print(err)
				}
			}
		})
	})

	// enter(room) adds the sender to a room, and answers with its last lines and
	// its members.
	chat.On("enter", func(ctx context.Context, e *socketio.Event) error {
		var room string
		if err := e.Bind(&room); err != nil {
			return err
		}
		s := e.Socket()
		if err := s.Join(ctx, room); err != nil {
			return err
		}
		lines, err := said(ctx, chat, room)
		if err != nil {
			return err
		}
		names := []string{}
		members, err := chat.In(room).FetchSockets(ctx)
		if silent := (*socketio.UnansweredError)(nil); err != nil && !errors.As(err, &silent) {
			return err // a list without a silent node is still useful
		}
		for _, m := range members {
			names = append(names, m.User)
		}
		if err := s.To(room).Emit(ctx, "entered", s.User()); err != nil {
			return err
		}
		return e.Ack(map[string]any{"lines": lines, "names": names})
	})

	// say(room, text) sends a line to all members of the room, in the same
	// order.
	chat.On("say", func(ctx context.Context, e *socketio.Event) error {
		var room, text string
		if err := e.Bind(&room, &text); err != nil {
			return err
		}
		s := e.Socket()
		if text = strings.TrimSpace(text); !short(text, maxText) || !s.InRoom(room) {
			return e.Ack(map[string]any{"ok": false})
		}
		if err := chat.To(room).Emit(ctx, "said", line{From: s.User(), Text: text}); err != nil {
			return err // no ack: the client's emit times out
		}
		return e.Ack(map[string]any{"ok": true})
	})

	// typing(room) may be lost.
	chat.On("typing", func(ctx context.Context, e *socketio.Event) error {
		var room string
		if err := e.Bind(&room); err != nil || !e.Socket().InRoom(room) {
			return err
		}
		return e.Socket().To(room).Volatile().Emit(ctx, "typing", e.Socket().User())
	})
}

// said returns the last lines of a room, oldest first.
func said(ctx context.Context, chat *socketio.Server, room string) ([]line, error) {
	events, _, err := chat.History(ctx, room, "", past)
	lines := []line{}
	for _, ev := range events {
		var l line
		if ev.Event == "said" && ev.Arg(0, &l) == nil {
			l.At = ev.At.UnixMilli()
			lines = append(lines, l)
		}
	}
	return lines, err
}

func short(text string, most int) bool {
	n := utf8.RuneCountInString(text)
	return 1 <= n && n <= most
}
