package redis

import (
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A trail is what the feed has brought since it was last sure to be whole. A
// primary that is demoted may go on feeding its subscribers with what the new one
// sends it, after a silent hole, and nobody's connection breaks. So when the feed
// comes from another server than before, what is behind the last sign that the
// former one took writes is looked at again.
type trail struct {
	server string             // whose feed it was
	sure   adapter.Position   // it was whole up to here
	got    []adapter.Position // stored events that it brought since, in order
}

// trailed is how many events it remembers. More count as not seen.
const trailed = 1 << 16

// swear says that what a server has fed is whole up to a position.
func (t *trail) swear(server string, at adapter.Position) {
	t.server, t.sure, t.got = server, at, t.got[:0]
}

func (t *trail) note(e *adapter.Event) {
	if e.Stored && len(t.got) < trailed {
		t.got = append(t.got, e.Position)
	}
}

func (t *trail) has(at adapter.Position) bool {
	_, found := slices.BinarySearchFunc(t.got, at, adapter.Position.Compare)
	return found
}

// from returns where a catch-up with a server begins to read a room that is heard
// from some position on, if the feed has come to tail.
func (t *trail) from(server string, heard, tail adapter.Position) adapter.Position {
	if t.server == "" || t.server == server || tail.Compare(heard) < 0 {
		return tail
	}
	return later(t.sure, heard)
}
