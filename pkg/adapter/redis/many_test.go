package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// The cost of an event for Redis and the network is proportional to the number of its
// rooms, with one partition and with several.
func TestManyRoomsCostLinearWork(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			c := newCluster(t, server.URL(), func() []*redistest.Server { return []*redistest.Server{server} }, Options{Partitions: partitions, Timeout: 20 * time.Second})
			a, err := c.Node("a")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = a.Close() })
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			// Both in To and in Except, so that each list is long.
			list := func(kind string, n int) []rooms.Room {
				all := make([]rooms.Room, n)
				for i := range all {
					all[i] = rooms.InNamed("/", fmt.Sprintf("%s-%05d", kind, i))
				}
				return all
			}
			perRoom := func(n, except int) float64 {
				to := list("friend", n)
				start, err := a.Subscribe(ctx, to...)
				if err != nil {
					t.Fatal(err)
				}
				defer a.Unsubscribe(to...)
				before := traffic(t, server)
				r, err := a.Publish(ctx, adapter.Event{
					Target: rooms.Target{To: to, Except: list("spared", except)}, Stored: true, Data: []byte(`["hello"]`),
				})
				if err != nil {
					t.Fatalf("to %d rooms: %v", n, err)
				}
				heard := 0
				for heard < n {
					e, err := a.Next(ctx)
					if err != nil {
						t.Fatal(err)
					}
					heard += len(e.Target.To)
				}
				bytes := traffic(t, server) - before
				replayed := 0
				for e, err := range a.Replay(ctx, map[rooms.Room]adapter.Cursor{to[0]: start, to[n-1]: start}, r.Cursor, 0) {
					if err != nil || len(e.Target.Except) != except {
						t.Fatalf("to %d rooms: replay: %d rooms are spared, %v, want %d", n, len(e.Target.Except), err, except)
					}
					replayed++
				}
				if replayed == 0 {
					t.Fatalf("to %d rooms: nothing is replayed", n)
				}
				return bytes / float64(n+except)
			}
			few := perRoom(10, 0)
			for _, n := range []int{100, 1000, 3000, 9000} {
				if many := perRoom(n, n/9); many > few+300 { // the probes and heartbeats in the meantime
					t.Errorf("an event to %d rooms moves %.0f bytes for each, one to 10 rooms %.0f, want at most %.0f", n, many, few, few+300)
				}
			}
			if many := perRoom(10_000, 0); many > few+300 {
				t.Errorf("an event to 10,000 rooms moves %.0f bytes for each, one to 10 rooms %.0f, want at most %.0f", many, few, few+300)
			}
		})
	}
}

// traffic returns how many bytes a server has received and sent.
func traffic(t *testing.T, server *redistest.Server) (sum float64) {
	t.Helper()
	info, err := server.Client().Info(t.Context(), "stats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		for _, name := range []string{"total_net_input_bytes:", "total_net_output_bytes:"} {
			if value, ok := strings.CutPrefix(line, name); ok {
				n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				if err != nil {
					t.Fatal(err)
				}
				sum += n
			}
		}
	}
	return sum
}
