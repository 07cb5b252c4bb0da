package adapter

import (
	"fmt"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// One event, from Publish to Next on every node that is subscribed to the room.
func BenchmarkPublish(b *testing.B) {
	for _, nodes := range []int{1, 8} {
		for _, kept := range []bool{false, true} {
			b.Run(fmt.Sprintf("nodes=%d/stored=%v", nodes, kept), func(b *testing.B) {
				m := NewMemory(MemoryOptions{})
				var all []Adapter
				for i := range nodes {
					n := mustJoin(b, m, NodeID(fmt.Sprint(i)))
					mustSubscribe(b, n, room("r"))
					all = append(all, n)
				}
				e := stored("payload", room("r"))
				e.Stored = kept
				ctx := b.Context()
				b.ReportAllocs()
				for b.Loop() {
					if _, err := all[0].Publish(ctx, e); err != nil {
						b.Fatal(err)
					}
					for _, n := range all {
						if _, err := n.Next(ctx); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// A recovery: 20 missed events in each of 5 rooms, whose backlogs are full.
func BenchmarkReplay(b *testing.B) {
	m := NewMemory(MemoryOptions{})
	a := mustJoin(b, m, "a")
	after := make(map[rooms.Room]Cursor)
	for i := range 1500 {
		if i == 1480 {
			start := mustSubscribe(b, a)
			for r := range 5 {
				after[room(fmt.Sprint(r))] = start
			}
		}
		for r := range 5 {
			mustPublish(b, a, stored("payload", room(fmt.Sprint(r))))
		}
	}
	ctx := b.Context()
	head, err := a.Head(ctx)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range a.Replay(ctx, after, head, 0) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 100 {
			b.Fatal(n)
		}
	}
}
