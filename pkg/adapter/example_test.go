package adapter_test

import (
	"context"
	"errors"
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

// A node whose history is lost learns of it from its feed. Its members must reconnect.
func ExampleLostError() {
	ctx := context.Background()
	cluster := adapter.NewMemory(adapter.MemoryOptions{})
	node, err := cluster.Node("a")
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if _, err := node.Subscribe(ctx, rooms.InNamed("/", "lobby")); err != nil {
		log.Fatal(err)
	}

	cluster.Reset()
	_, err = node.Next(ctx)
	if lost := (*adapter.LostError)(nil); errors.As(err, &lost) {
		fmt.Println(lost.Reason, "for all rooms:", len(lost.Rooms) == 0)
	}
	// Output: the history was reset for all rooms: true
}

// Clients keep offsets as strings and send them back. They may send anything.
func ExampleParseCursor() {
	node, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("a")
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	head, err := node.Head(context.Background())
	if err != nil {
		log.Fatal(err)
	}

	offset := head.String()
	seen, err := adapter.ParseCursor(offset)
	fmt.Println(seen == head, err)
	_, err = adapter.ParseCursor("yesterday")
	fmt.Println(err)
	// Output:
	// true <nil>
	// adapter: malformed offset
}

// A caller can count the bytes that its reads cause.
func ExampleOnRead() {
	read := 0
	ctx := adapter.OnRead(context.Background(), func(bytes int) { read += bytes })
	adapter.CountRead(ctx, 300) // as Replay and History of a remote adapter do
	fmt.Println(read)
	// Output: 300
}

// An implementation has a Partition for each of its clocks, and embeds what Compose returns. It adds
// the nodes and their messages.
func ExampleCompose() {
	type cluster struct {
		*adapter.Partitions
	}
	join := func(ctx context.Context, node adapter.NodeID, partitions []adapter.Partition, feed <-chan adapter.Item) (*cluster, error) {
		composed, err := adapter.Compose(ctx, adapter.Composition{
			Node:       node,
			Partitions: partitions,
			Key:        func(r rooms.Room) string { return fmt.Sprint(r.Namespace, r.Kind, r.Name) },
			Next: func(ctx context.Context) (adapter.Item, error) {
				select {
				case item := <-feed:
					return item, nil
				case <-ctx.Done():
					return adapter.Item{}, context.Cause(ctx)
				}
			},
		})
		return &cluster{composed}, err
	}
	_ = join
}
