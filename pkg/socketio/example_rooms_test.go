package socketio_test

import (
	"context"
	"fmt"
	"log"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// lobby returns a server whose clients are in the room "lobby", and in the room that they name in
// their auth payload.
func lobby() *site {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	srv.Use(func(_ context.Context, r *socketio.ConnectRequest) error {
		var auth struct{ Room string }
		if err := r.Auth(&auth); err != nil || auth.Room == "" {
			return r.Join("lobby")
		}
		return r.Join("lobby", auth.Room)
	})
	return serve(srv)
}

// An event for a room, except those of its members that are in another room, too.
func ExampleBroadcast_Except() {
	site := lobby()
	defer site.close()
	ann, bob := site.connect("/", nil), site.connect("/", map[string]any{"room": "muted"})

	ctx := context.Background()
	err := site.srv.To("lobby").Except("muted").Emit(ctx, "news", 1)
	fmt.Println(err, site.srv.To("lobby").Emit(ctx, "news", 2))
	fmt.Println("ann:", ann.hear(), ann.hear())
	fmt.Println("bob:", bob.hear())
	// Output:
	// <nil> <nil>
	// ann: ["news",1] ["news",2]
	// bob: ["news",2]
}

// Cursor positions are worthless a moment later: clients that are behind do not get them, and they
// are not replayed.
func ExampleBroadcast_Volatile() {
	site := lobby()
	defer site.close()
	ann := site.connect("/", nil)
	fmt.Println(site.srv.To("lobby").Volatile().Emit(context.Background(), "pointer", 10, 20))
	fmt.Println(ann.hear())
	// Output:
	// <nil>
	// ["pointer",10,20]
}

// A notice of one node to its own clients. It has no place in the order, and is not replayed.
func ExampleBroadcast_Local() {
	site := lobby()
	defer site.close()
	ann := site.connect("/", nil)
	fmt.Println(site.srv.Local().Emit(context.Background(), "maintenance", "in 5 minutes"))
	fmt.Println(ann.hear())
	// Output:
	// <nil>
	// ["maintenance","in 5 minutes"]
}

// An application that stores messages itself can store them under their offsets.
func ExampleBroadcast_Publish() {
	site := lobby()
	defer site.close()
	ann := site.connect("/", nil)
	offset, err := site.srv.To("lobby").Publish(context.Background(), "chat", "hi")
	fmt.Println(ann.hear(), err)
	fmt.Println(ann.auth["offset"] == offset)
	// Output:
	// ["chat","hi"] <nil>
	// true
}

// The pages of what was said in a room, newest first.
func ExampleNamespace_History() {
	site := lobby()
	defer site.close()
	ctx := context.Background()
	for i := range 5 {
		if err := site.srv.To("lobby").Emit(ctx, "chat", i); err != nil {
			log.Fatal(err)
		}
	}
	before, more := "", true
	for more {
		var page []socketio.Past
		var err error
		if page, more, err = site.srv.History(ctx, "lobby", before, 2); err != nil {
			log.Fatal(err)
		}
		for _, e := range page {
			fmt.Printf("%s %s ", e.Event, e.Raw(0))
		}
		fmt.Println(more)
		if len(page) > 0 {
			before = page[0].Offset
		}
	}
	// Output:
	// chat 3 chat 4 true
	// chat 1 chat 2 true
	// chat 0 false
}

// An application that follows which rooms are in use on this node.
func ExampleNamespace_OnRoom() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	changes := make(chan socketio.RoomEvent, 100)
	srv.OnRoom(func(e socketio.RoomEvent) { changes <- e })
	srv.OnConnect(func(s *socketio.Socket) {
		if err := s.Join(s.Context(), "lobby"); err != nil {
			log.Print(err)
		}
	})

	site := serve(srv)
	defer site.close()
	ann := site.connect("/", nil)
	for range 2 {
		e := <-changes
		fmt.Println(e.Kind, e.Room, e.SocketID == ann.id)
	}
	ann.write("41") // it disconnects
	for range 2 {
		e := <-changes
		fmt.Println(e.Kind, e.Room, e.SocketID == ann.id)
	}
	// Output:
	// create-room lobby true
	// join-room lobby true
	// leave-room lobby true
	// delete-room lobby true
}

// Sockets on any node of the cluster, and what can be done with each.
func ExampleBroadcast_FetchSockets() {
	site := lobby()
	defer site.close()
	ann := site.connect("/", map[string]any{"room": "staff"})
	site.connect("/", nil)

	ctx := context.Background()
	sockets, err := site.srv.To("staff").FetchSockets(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range sockets {
		fmt.Println(s.ID == ann.id, s.Rooms, s.Transport)
		fmt.Println(s.Emit(ctx, "hello", "staff"))
	}
	fmt.Println(ann.hear())
	// Output:
	// true [lobby staff] websocket
	// <nil>
	// ["hello","staff"]
}

// A list of members that is too large for one answer, page by page.
func ExampleBroadcast_Members() {
	site := lobby()
	defer site.close()
	want := []string{site.connect("/", nil).id, site.connect("/", nil).id}

	var ids []string
	for after, more := "", true; more; {
		page, err := site.srv.To("lobby").Members(context.Background(), after)
		if err != nil {
			log.Fatal(err)
		}
		for _, m := range page.Page {
			ids = append(ids, m.ID)
			after = m.ID
		}
		more = page.More
	}
	slices.Sort(want)
	fmt.Println(slices.Equal(ids, want))
	// Output: true
}

// Commands act on sockets of all nodes, in the order of events: those published after SocketsJoin
// reach the new members.
func ExampleBroadcast_SocketsJoin() {
	site := lobby()
	defer site.close()
	ann := site.connect("/", map[string]any{"room": "waiting"})

	ctx := context.Background()
	waiting, game := site.srv.To("waiting"), site.srv.To("game")
	fmt.Println(waiting.SocketsJoin(ctx, "game"), waiting.SocketsLeave(ctx, "waiting"))
	fmt.Println(game.Emit(ctx, "start"), ann.hear())
	fmt.Println(game.DisconnectSockets(ctx, false), ann.read())
	// Output:
	// <nil> <nil>
	// <nil> ["start"]
	// <nil> 41
}
