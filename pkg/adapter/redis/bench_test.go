package redis

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

func benchNode(b *testing.B) *Adapter {
	b.Helper()
	target, err := redisurl.Parse(redistest.Start(b).URL())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
	defer cancel()
	a, err := New(ctx, Options{Redis: target, Node: "a", ProbeInterval: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = a.Close() })
	return a
}

func benchEvent(to rooms.Room) adapter.Event {
	return adapter.Event{Target: rooms.Target{To: []rooms.Room{to}}, Stored: true, Data: []byte(`["m","` + strings.Repeat("x", 150) + `"]`)}
}

func benchRooms(n int) []rooms.Room {
	list := make([]rooms.Room, n)
	for i := range list {
		list[i] = rooms.InNamed("/", fmt.Sprint("room ", i))
	}
	return list
}

// BenchmarkPublish is one event to one of 500 rooms without subscribers, so that only
// publishing is measured.
func BenchmarkPublish(b *testing.B) {
	for _, publishers := range []int{1, 64} {
		b.Run(fmt.Sprint(publishers, " concurrent"), func(b *testing.B) {
			a, list := benchNode(b), benchRooms(500)
			b.ReportAllocs()
			b.ResetTimer()
			publishAll(b, a, list, publishers, b.N)
		})
	}
}

func publishAll(b *testing.B, a *Adapter, list []rooms.Room, publishers, n int) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range publishers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if _, err := a.Publish(b.Context(), benchEvent(list[i%len(list)])); err != nil {
					b.Errorf("Publish: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkReceive is one event from its arrival on the subscriber's connection to the
// return of Next.
func BenchmarkReceive(b *testing.B) {
	a := benchNode(b)
	p := a.partitions[0]
	e := benchEvent(rooms.InNamed("/", "room"))
	encoded, _ := encodeEvent(&e, 1)
	payload := string(encoded)
	if _, err := a.Subscribe(b.Context(), e.Target.To...); err != nil {
		b.Fatal(err)
	}
	p.mu.Lock()
	g, at := p.gen, p.feed.Tail()
	p.mu.Unlock()
	b.ReportAllocs()
	at.Ms++ // behind the probes, and not ahead of the clock
	for b.Loop() {
		at.Seq++
		g.arrived(feed.Message{Name: "r/,room", At: at, Payload: payload})
		if _, err := a.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReplay makes the adapter calls of a recovery: two reads of the clock, and reads
// of the backlogs of its rooms with 20 missed events in one of them.
func BenchmarkReplay(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprint(clients, " concurrent"), func(b *testing.B) {
			a, list := benchNode(b), benchRooms(100)
			from, err := a.Head(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			publishAll(b, a, list, 64, 20*len(list))
			b.ReportAllocs()
			b.ResetTimer()
			var next atomic.Int64
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
						if err := replayOne(b.Context(), a, list[i%len(list)], i, from); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}

func replayOne(ctx context.Context, a *Adapter, room rooms.Room, i int, from adapter.Cursor) error {
	if _, err := a.Head(ctx); err != nil {
		return err
	}
	end, err := a.Head(ctx, from)
	if err != nil {
		return err
	}
	n := 0
	after := map[rooms.Room]adapter.Cursor{rooms.InEveryone("/"): from, rooms.InOwn("/", fmt.Sprint(i)): from, room: from}
	for _, err := range a.Replay(ctx, after, end, 0) {
		if err != nil {
			return err
		}
		n++
	}
	if n != 20 {
		return fmt.Errorf("%d events were replayed, want 20", n)
	}
	return nil
}

// The adapter calls of a recovery with many rooms.
func BenchmarkManyRooms(b *testing.B) {
	a := benchNode(b)
	var list []rooms.Room
	for i := range 990 {
		list = append(list, rooms.InNamed("/", fmt.Sprintf("%s %03d", strings.Repeat("n", 190), i)))
	}
	at, err := a.Subscribe(b.Context(), list...)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("subscribe", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := a.Subscribe(b.Context(), list...); err != nil {
				b.Fatal(err)
			}
			a.Unsubscribe(list...)
		}
	})
	if _, err := a.Publish(b.Context(), adapter.Event{Target: rooms.Target{To: list[:1]}, Data: []byte("x")}); err != nil {
		b.Fatal(err)
	}
	b.Run("replay", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			head, err := a.Head(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			from := make(map[rooms.Room]adapter.Cursor, len(list))
			for _, r := range list {
				from[r] = at
			}
			for _, err := range a.Replay(b.Context(), from, head, 1<<18) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
