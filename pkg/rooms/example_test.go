package rooms_test

import (
	"fmt"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// The index finds candidates; Match decides which of them an event is for.
func Example() {
	type socket struct {
		name string
		in   map[rooms.Room]bool
	}
	lobby, muted := rooms.InNamed("/", "lobby"), rooms.InNamed("/", "muted")

	var index rooms.Index[*socket]
	ann := &socket{"ann", map[rooms.Room]bool{lobby: true}}
	bob := &socket{"bob", map[rooms.Room]bool{lobby: true, muted: true}}
	for _, s := range []*socket{ann, bob} {
		for room := range s.in {
			index.Add(room, s)
		}
	}

	target := rooms.Target{To: []rooms.Room{lobby}, Except: []rooms.Room{muted}}
	for s := range index.Candidates(target) {
		if target.Match(func(r rooms.Room) bool { return s.in[r] }) {
			fmt.Println(s.name)
		}
	}
	// Output: ann
}

// A client may join a room with the name of another client's id. It is not that client's own room.
func ExampleKind() {
	joined, own := rooms.InNamed("/", "Xk3f"), rooms.InOwn("/", "Xk3f")
	fmt.Println(joined == own, joined.Kind == rooms.Named, own.Kind == rooms.Own)
	// Output: false true true
}
