package rooms_test

import (
	"fmt"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

func BenchmarkMembers(b *testing.B) {
	var x rooms.Index[*int]
	for range 10_000 {
		x.Add(lobby, new(int))
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for range x.Members(lobby) {
			n++
		}
		if n != 10_000 {
			b.Fatal(n)
		}
	}
}

func BenchmarkCandidates(b *testing.B) {
	for _, overlapping := range []int{1, 2, 8} {
		b.Run(fmt.Sprintf("rooms=%d", overlapping), func(b *testing.B) {
			var x rooms.Index[*int]
			var target rooms.Target
			for r := range overlapping {
				target.To = append(target.To, rooms.InNamed("/", fmt.Sprint(r)))
			}
			for range 10_000 {
				m := new(int)
				for _, room := range target.To {
					x.Add(room, m)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				for range x.Candidates(target) {
				}
			}
		})
	}
}

// One member leaves a room of 100,000 and joins it again.
func BenchmarkAddRemove(b *testing.B) {
	for _, walked := range []bool{false, true} {
		b.Run(fmt.Sprintf("walked=%v", walked), func(b *testing.B) {
			var x rooms.Index[*int]
			members := make([]*int, 100_000)
			for i := range members {
				members[i] = new(int)
				x.Add(lobby, members[i])
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if walked {
					x.Members(lobby)
				}
				m := members[i%len(members)]
				x.Remove(lobby, m)
				x.Add(lobby, m)
			}
		})
	}
}
