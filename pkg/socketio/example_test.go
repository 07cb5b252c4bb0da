package socketio_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A complete chat server. Its clients are stock Socket.IO clients. A client that loses its
// connection reconnects and gets the messages that it missed.
func Example() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	srv.On("chat", func(ctx context.Context, e *socketio.Event) error {
		return srv.Emit(ctx, "chat", e.Raw(0))
	})
	log.Fatal(http.ListenAndServe("localhost:8080", srv))
}

// The receivers of an event: a room, a room except its sender, and others.
func ExampleSocket_To() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	srv.On("join", func(ctx context.Context, e *socketio.Event) error {
		var room string
		if err := e.Bind(&room); err != nil {
			return err
		}
		if err := e.Socket().Join(ctx, room); err != nil {
			return err
		}
		return e.Ack("welcome")
	})
	srv.On("say", func(ctx context.Context, e *socketio.Event) error {
		s := e.Socket()
		return errors.Join(
			s.Emit(ctx, "to the sender", 1),
			srv.Emit(ctx, "to everybody", 2),
			s.Broadcast().Emit(ctx, "to all but the sender", 3),
			srv.To("lobby").Emit(ctx, "to a room", 4),
			s.To("lobby").Emit(ctx, "to a room but the sender", 5),
		)
	})

	site := serve(srv)
	defer site.close()
	ann, bob := site.connect("/", nil), site.connect("/", nil)
	fmt.Println(ann.ask("join", "lobby"), bob.ask("join", "lobby"))
	ann.emit("say")
	for range 3 {
		fmt.Println("ann:", ann.hear())
	}
	for range 4 {
		fmt.Println("bob:", bob.hear())
	}
	// Output:
	// ["welcome"] ["welcome"]
	// ann: ["to the sender",1]
	// ann: ["to everybody",2]
	// ann: ["to a room",4]
	// bob: ["to everybody",2]
	// bob: ["to all but the sender",3]
	// bob: ["to a room",4]
	// bob: ["to a room but the sender",5]
}

// A client sends a request and the server answers.
func ExampleEvent_Ack() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	srv.On("add", func(_ context.Context, e *socketio.Event) error {
		var a, b int
		if err := e.Bind(&a, &b); err != nil {
			return err
		}
		return e.Ack(a + b)
	})

	site := serve(srv)
	defer site.close()
	fmt.Println(site.connect("/", nil).ask("add", 2, 3))
	// Output: [5]
}

// A client that joins a chat room gets its latest messages, and then the later ones, without a gap or a
// repeat.
func ExampleEvent_AckJoin() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	srv.On("join", func(ctx context.Context, e *socketio.Event) error {
		var room string
		if err := e.Bind(&room); err != nil {
			return err
		}
		return e.AckJoin(ctx, socketio.Rewind{Last: 50}, room)
	})

	site := serve(srv)
	defer site.close()
	ctx := context.Background()
	fmt.Println(srv.To("lobby").Emit(ctx, "chat", "hi"), srv.To("lobby").Emit(ctx, "chat", "is anybody there?"))
	ann := site.connect("/", nil)
	var acks []struct {
		History map[string]struct {
			Events []struct {
				Event string
				Args  []string
			}
		}
	}
	if err := json.Unmarshal([]byte(ann.ask("join", "lobby")), &acks); err != nil {
		log.Fatal(err)
	}
	fmt.Println(acks[0].History["lobby"].Events)
	fmt.Println(srv.To("lobby").Emit(ctx, "chat", "yes"))
	fmt.Println(ann.hear())
	// Output:
	// <nil> <nil>
	// [{chat [hi]} {chat [is anybody there?]}]
	// <nil>
	// ["chat","yes"]
}

// The server requests an ack from all clients. Answers are returned as they arrive, and the
// error names the clients that do not answer.
func ExampleBroadcast_EmitWithAck() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	site := serve(srv)
	defer site.close()
	ann, bob := site.connect("/", nil), site.connect("/", nil)
	go ann.answer() // bob does not

	ctx := context.Background()
	answers, err := srv.Timeout(time.Second).EmitWithAck(ctx, "still there?", "yes")
	if err != nil {
		log.Fatal(err) // not sent
	}
	for answer, err := range answers.All() {
		if silent := (*socketio.UnansweredError)(nil); errors.As(err, &silent) {
			fmt.Println("no answer from bob:", slices.Equal(silent.Sockets, []string{bob.id}))
			break
		}
		fmt.Printf("ann, %v: %s\n", answer.SocketID == ann.id, answer.Raw(0))
	}
	// Output:
	// ann, true: "yes"
	// no answer from bob: true
}

// A middleware authenticates clients and sets their users.
func ExampleNamespace_Use() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	users := map[string]string{"secret of ann": "ann"}
	srv.Use(func(_ context.Context, r *socketio.ConnectRequest) error {
		var auth struct{ Token string }
		if err := r.Auth(&auth); err != nil {
			return err
		}
		user, known := users[auth.Token]
		if !known {
			return &socketio.ConnectError{Message: "who are you?"}
		}
		r.SetUser(user) // only ann can reconnect as ann
		return nil
	})
	srv.On("who am i", func(_ context.Context, e *socketio.Event) error {
		return e.Ack(e.Socket().User())
	})

	site := serve(srv)
	defer site.close()
	ann := site.connect("/", map[string]any{"token": "secret of ann"})
	fmt.Println(ann.ask("who am i"))
	_, refusal := site.try("/", map[string]any{"token": "a guess"})
	fmt.Println("refused:", refusal)
	// Output:
	// ["ann"]
	// refused: who are you?
}

// A middleware sets the rooms of a client from its auth payload, and stores a value for handlers.
func ExampleConnectRequest() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	type language struct{}
	srv.Use(func(_ context.Context, r *socketio.ConnectRequest) error {
		var auth struct{ Language, Team string }
		if err := r.Auth(&auth); err != nil {
			return err
		}
		r.SetValue(language{}, auth.Language)
		r.KeepRooms(func(room string) bool { return room != "admins" }) // of a recovered client
		return r.Join("team " + auth.Team)
	})
	srv.On("where am i", func(_ context.Context, e *socketio.Event) error {
		return e.Ack(e.Socket().Value(language{}), e.Socket().Rooms())
	})

	site := serve(srv)
	defer site.close()
	ann := site.connect("/", map[string]any{"language": "fr", "team": "red"})
	fmt.Println(ann.ask("where am i"))
	// Output: ["fr",["team red"]]
}

// A namespace for each order, made when the first client asks for it.
func ExampleServer_OfPattern() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	orders := srv.OfPattern(regexp.MustCompile(`^/order/\d+$`))
	orders.On("status", func(ctx context.Context, e *socketio.Event) error {
		return e.Socket().Namespace().Emit(ctx, "status", e.Raw(0))
	})

	site := serve(srv)
	defer site.close()
	cook := site.connect("/order/7", nil)
	guest := site.connect("/order/7", nil)
	cook.emit("status", "in the oven")
	fmt.Println(guest.hear())
	_, refusal := site.try("/order/pizza", nil)
	fmt.Println("refused:", refusal)
	// Output:
	// ["status","in the oven"]
	// refused: Invalid namespace
}

// A dynamic namespace whose name comes from a request, such as one of a webhook: it is not kept after
// its use, and names of others are refused.
func ExampleServer_Hold() {
	srv, err := socketio.NewServer(socketio.Options{DynamicNamespaces: 10_000})
	if err != nil {
		log.Fatal(err)
	}
	srv.OfPattern(regexp.MustCompile(`^/order/\d+$`))

	site := serve(srv)
	defer site.close()
	guest := site.connect("/order/7", nil)
	for _, name := range []string{"/order/7", "/order/8", "/order/pizza"} {
		order, release, ok := srv.Hold(name)
		if !ok {
			fmt.Println("unknown:", name)
			continue
		}
		if err := order.Emit(context.Background(), "status", "ready"); err != nil {
			log.Print(err)
		}
		release()
	}
	fmt.Println(guest.hear())
	fmt.Println(srv.Stats().Namespaces, "namespaces: / and /order/7")
	// Output:
	// unknown: /order/pizza
	// ["status","ready"]
	// 2 namespaces: / and /order/7
}

// A client that reconnects after a cut is the same socket, with its id, its rooms and the
// missed events.
func ExampleSocket_Recovered() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	joined := make(chan *socketio.Socket)
	srv.OnConnect(func(s *socketio.Socket) {
		if !s.Recovered() {
			if err := s.Join(s.Context(), "lobby"); err != nil {
				log.Print(err)
			}
		}
		joined <- s
	})

	site := serve(srv)
	defer site.close()
	ctx := context.Background()
	ann := site.connect("/", nil)
	<-joined
	err = srv.To("lobby").Emit(ctx, "n", 1)
	fmt.Println(ann.hear(), err)
	ann.cut()
	err = errors.Join(srv.To("lobby").Emit(ctx, "n", 2), srv.To("lobby").Emit(ctx, "n", 3))

	back := site.connect("/", ann.auth)
	fmt.Println((<-joined).Recovered(), back.id == ann.id, err)
	fmt.Println(back.hear(), back.hear())
	// Output:
	// ["n",1] <nil>
	// true true <nil>
	// ["n",2] ["n",3]
}

// One node of a cluster queries another.
func ExampleNamespace_ServerSideEmitWithAck() {
	cluster, sessions := adapter.NewMemory(adapter.MemoryOptions{}), session.NewMemory()
	var nodes []*socketio.Server
	for _, id := range []adapter.NodeID{"a", "b"} {
		link, err := cluster.Node(id)
		if err != nil {
			log.Fatal(err)
		}
		defer link.Close()
		srv, err := socketio.NewServer(socketio.Options{Adapter: link, Sessions: sessions})
		if err != nil {
			log.Fatal(err)
		}
		defer srv.Close(context.Background())
		srv.OnServerSide("how many", func(_ context.Context, e *socketio.Event) error {
			return e.Ack(srv.Len())
		})
		nodes = append(nodes, srv)
	}
	answers, err := nodes[0].ServerSideEmitWithAck(context.Background(), "how many")
	if err != nil {
		log.Fatal(err)
	}
	for answer, err := range answers.All() {
		fmt.Printf("%s: %s %v\n", answer.Node, answer.Raw(0), err)
	}
	// Output: b: 0 <nil>
}
