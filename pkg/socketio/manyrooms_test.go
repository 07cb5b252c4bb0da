package socketio

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A countingAdapter counts the calls of Publish, each a round trip with Redis.
type countingAdapter struct {
	adapter.Adapter
	published atomic.Int64
}

func (a *countingAdapter) Publish(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
	a.published.Add(1)
	return a.Adapter.Publish(ctx, e)
}

// A join of many rooms by command takes as many round trips as a join of one room, and
// misses no event published to any of them right after the command.
func TestSocketsJoinOfManyRooms(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{Partitions: partitions})
			memory, err := c.memory.Node("aaaa")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = memory.Close() })
			counting := &countingAdapter{Adapter: memory}
			n := start(t, Options{Adapter: counting, Sessions: c.sessions})
			joining(n.Namespace)
			a := n.client(t)
			names := make([]string, 1000)
			for i := range names {
				names[i] = fmt.Sprint("r", i)
			}
			must(t, n.SocketsJoin(t.Context(), names...))
			got, want := make(map[string]bool), make(map[string]bool)
			for i := 0; i < len(names); i += 100 {
				must(t, n.To(names[i]).Emit(t.Context(), "n", i))
				want[numbered(i)] = true
			}
			for range want {
				got[a.event()] = true
			}
			for event := range want {
				if !got[event] {
					t.Errorf("no %s among %v", event, got)
				}
			}
			must(t, n.To(names...).Emit(t.Context(), "n", -1))
			a.want(numbered(-1))
			a.quiet()
			if made := counting.published.Load(); made > int64(len(want))+10 {
				t.Errorf("%d events were published for one join, want at most %d", made, int64(len(want))+10)
			}
		})
	}
}
