package socketio_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	"golang.org/x/time/rate"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Before a node stops, it disconnects its clients over some time, so that they reconnect to other
// nodes one after the other.
func ExampleServer_Drain() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	reasons := make(chan socketio.Reason, 1)
	srv.OnConnect(func(s *socketio.Socket) {
		s.OnDisconnect(func(reason socketio.Reason) { reasons <- reason })
	})

	site := serve(srv)
	defer site.close()
	ann := site.connect("/", nil)
	go func() { _, _, _ = ann.ws.ReadMessage() }() // it receives the close

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := srv.Drain(ctx, 100*time.Millisecond); err != nil { // 20 seconds for thousands of clients
		log.Fatal(err)
	}
	fmt.Println(<-reasons)
	// Output: server shutting down
}

// A namespace for each customer. OfFunc decides which namespaces there are, and a middleware which
// clients may enter them. An event of the parent goes to all of them.
func ExampleServer_OfFunc() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	keys := map[string]string{"/acme": "secret of acme"}
	customers := srv.OfFunc(func(_ context.Context, name string, _ json.RawMessage) (bool, error) {
		_, known := keys[name]
		return known, nil
	})
	customers.Use(func(_ context.Context, r *socketio.ConnectRequest) error {
		var auth struct{ Key string }
		if err := r.Auth(&auth); err != nil || auth.Key != keys[r.Namespace().Name()] {
			return &socketio.ConnectError{Message: "wrong key"}
		}
		return nil
	})

	site := serve(srv)
	defer site.close()
	ann := site.connect("/acme", map[string]any{"key": "secret of acme"})
	fmt.Println(customers.Emit(context.Background(), "notice", "maintenance"))
	fmt.Println(ann.hear())
	_, refusal := site.try("/acme", map[string]any{"key": "a guess"})
	fmt.Println("refused:", refusal)
	// Output:
	// <nil>
	// ["notice","maintenance"]
	// refused: wrong key
}

// A client's disconnect has a reason. The socket has left its rooms.
func ExampleSocket_OnDisconnect() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	reasons := make(chan socketio.Reason, 1)
	srv.OnConnect(func(s *socketio.Socket) {
		s.OnDisconnect(func(reason socketio.Reason) { reasons <- reason })
	})

	site := serve(srv)
	defer site.close()
	site.connect("/", nil).write("41") // as socket.disconnect() does
	fmt.Println(<-reasons)
	// Output: client namespace disconnect
}

// Data of a socket outlives its connection, and other nodes can read it.
func ExampleSocket_SetData() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	srv.On("nickname", func(ctx context.Context, e *socketio.Event) error {
		var name string
		if err := e.Bind(&name); err != nil {
			return err
		}
		if err := e.Socket().SetData(ctx, map[string]string{"nickname": name}); err != nil {
			return err
		}
		return e.Ack()
	})

	site := serve(srv)
	defer site.close()
	site.connect("/", nil).ask("nickname", "ann")
	sockets, err := srv.FetchSockets(context.Background())
	fmt.Printf("%s %v\n", sockets[0].Data, err)
	// Output: {"nickname":"ann"} <nil>
}

// A handler of the first event only.
func ExampleSocket_Once() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	srv.OnConnect(func(s *socketio.Socket) {
		s.Once("vote", func(_ context.Context, e *socketio.Event) error { return e.Ack("counted") })
	})
	srv.On("vote", func(_ context.Context, e *socketio.Event) error {
		if err := e.Ack("only one"); !errors.Is(err, socketio.ErrNoAck) { // acked by the handler before
			return err
		}
		return nil
	})

	site := serve(srv)
	defer site.close()
	ann := site.connect("/", nil)
	fmt.Println(ann.ask("vote", "yes"), ann.ask("vote", "no"))
	// Output: ["counted"] ["only one"]
}

// A client gets the errors of its handlers.
func ExampleSocket_OnError() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	srv.OnConnect(func(s *socketio.Socket) {
		s.OnError(func(err error) {
			if err := s.Emit(s.Context(), "error", err.Error()); err != nil {
				log.Print(err)
			}
		})
	})
	srv.On("buy", func(context.Context, *socketio.Event) error { return errOutOfStock })

	site := serve(srv)
	defer site.close()
	ann := site.connect("/", nil)
	ann.emit("buy", "tea")
	fmt.Println(ann.hear())
	// Output: ["error","event \"buy\": out of stock"]
}

// The first argument is for the handler, and the others are forwarded as they are.
func ExampleArgs() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	srv.On("to", func(ctx context.Context, e *socketio.Event) error {
		var room string
		if err := e.Arg(0, &room); err != nil {
			return err
		}
		return srv.To(room).Emit(ctx, "message", e.Rest(1)...)
	})
	srv.OnConnect(func(s *socketio.Socket) {
		if err := s.Join(s.Context(), "lobby"); err != nil {
			log.Print(err)
		}
	})

	site := serve(srv)
	defer site.close()
	ann := site.connect("/", nil)
	ann.emit("to", "lobby", "hi", map[string]any{"x": 1})
	fmt.Println(ann.hear())
	// Output: ["message","hi",{"x":1}]
}

// A readLimit is 1 MB per second, with a burst of 10 MB.
type readLimit struct{ *rate.Limiter }

func newReadLimit() readLimit { return readLimit{rate.NewLimiter(1e6, 10e6)} }

func (l readLimit) Charge(bytes int) { l.ReserveN(time.Now(), bytes) }

func (l readLimit) Wait() time.Duration {
	missing := -l.Tokens()
	return time.Duration(max(0, missing) / float64(l.Limit()) * float64(time.Second))
}

// The recoveries of all sockets of a user share a limit.
func ExampleRecoveryLimit() {
	users := map[string]readLimit{"ann": newReadLimit()}
	srv, err := socketio.NewServer(socketio.Options{
		RecoveryLimit: func(r *socketio.ConnectRequest) socketio.RecoveryLimit { return users[r.User()] },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close(context.Background())

	limit := users["ann"]
	fmt.Println(limit.Wait())
	limit.Charge(10_000_000) // as the server does
	limit.Charge(2_000_000)
	fmt.Println(limit.Wait().Round(time.Second))
	// Output:
	// 0s
	// 2s
}
