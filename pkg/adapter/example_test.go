package adapter_test

import (
	"context"
	"fmt"
	"log"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Two nodes of one process: one publishes an event, and the other receives it from its
// feed.
func ExampleMemory() {
	ctx := context.Background()
	cluster := adapter.NewMemory(adapter.MemoryOptions{})
	a, err := cluster.Node("a")
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	b, err := cluster.Node("b")
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	lobby := rooms.InNamed("/", "lobby")
	if _, err := b.Subscribe(ctx, lobby); err != nil {
		log.Fatal(err)
	}
	receipt, err := a.Publish(ctx, adapter.Event{Target: rooms.Target{To: []rooms.Room{lobby}}, Data: []byte("hello")})
	if err != nil {
		log.Fatal(err)
	}
	e, err := b.Next(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s from %s, %v\n", e.Data, e.From, e.Cursor == receipt.Cursor)
	// Output: hello from a, true
}

// A member that was disconnected first fixes the end and then reads the missed events. Its
// feed, which it has held back since it subscribed, continues after that end.
func ExampleAdapter_recovery() {
	ctx := context.Background()
	node, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("a")
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	lobby := rooms.InNamed("/", "lobby")
	say := func(text string) adapter.Cursor {
		r, err := node.Publish(ctx, adapter.Event{Target: rooms.Target{To: []rooms.Room{lobby}}, Stored: true, Data: []byte(text)})
		if err != nil {
			log.Fatal(err)
		}
		return r.Cursor
	}

	offset := say("seen") // the last event that the member received
	say("missed")
	say("missed, too")

	if _, err := node.Subscribe(ctx, lobby); err != nil {
		log.Fatal(err)
	}
	end, err := node.Head(ctx, offset)
	if err != nil {
		log.Fatal(err)
	}
	for e, err := range node.Replay(ctx, map[rooms.Room]adapter.Cursor{lobby: offset}, end, 0) {
		if err != nil {
			log.Fatal(err) // events are missing and cannot be recovered
		}
		fmt.Printf("%s\n", e.Data)
	}
	// Output:
	// missed
	// missed, too
}
