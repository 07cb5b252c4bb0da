package socketio

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A subscribeLater adapter subscribes to the room "game" once it is open.
type subscribeLater struct {
	adapter.Adapter
	adapter.ProgressReporter
	open chan struct{}
}

func (a *subscribeLater) Subscribe(ctx context.Context, list ...rooms.Room) (adapter.Cursor, error) {
	if slices.ContainsFunc(list, func(r rooms.Room) bool { return r.Name == "game" }) {
		<-a.open
	}
	return a.Adapter.Subscribe(ctx, list...)
}

// An event right after SocketsJoin is encoded once for all sockets that have joined, and counts once in
// the queue budget, as at any other time.
func TestEventRightAfterSocketsJoinIsShared(t *testing.T) {
	const clients, size = 20, 100 << 10
	a, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("node")
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	later := &subscribeLater{a, a.(adapter.ProgressReporter), make(chan struct{})}
	n := start(t, Options{Adapter: later})
	var polls []func() string
	for range clients {
		poll, post := n.polling(t)
		post("40")
		poll()
		polls = append(polls, poll)
	}
	must(t, n.SocketsJoin(t.Context(), "game"))
	must(t, n.To("game").Emit(t.Context(), "state", strings.Repeat("x", size)))
	close(later.open)
	eventually(t, "all have it", func() bool { return n.Stats().Deliveries == clients })
	if got := n.Stats().Engine.QueuedBytes; got > 2*size {
		t.Errorf("%d bytes are queued for %d clients, want one event of %d", got, clients, size)
	}
	var all sync.WaitGroup
	for _, poll := range polls {
		all.Go(func() { poll() })
	}
	all.Wait()
}
