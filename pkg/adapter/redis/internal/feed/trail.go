package feed

import (
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A trail records the events that the feed has delivered since it was last known to be complete. A
// primary that is demoted may continue to feed its subscribers with data from the new one, after a
// silent gap, and without breaking any connection. So when the feed comes from another server than
// before, events after the last sign that the former one took writes are checked again.
type trail struct {
	server string             // whose feed it was
	sure   adapter.Position   // it was complete up to here
	got    []adapter.Position // stored events that it delivered since, in order
}

// trailed is the number of events that it remembers. More count as not seen.
const trailed = 1 << 16

// swear records that a server's feed is complete up to a position.
func (t *trail) swear(server string, at adapter.Position) {
	t.server, t.sure, t.got = server, at, t.got[:0]
}

func (t *trail) note(e *adapter.Event) {
	if e.Stored && len(t.got) < trailed {
		t.got = append(t.got, e.Position)
	}
}

// from returns the position from which a catch-up with a server reads a room. The room is
// subscribed from position heard on, and the feed has reached tail.
func (t *trail) from(server string, heard, tail adapter.Position) adapter.Position {
	if t.server == "" || t.server == server || tail.Compare(heard) < 0 {
		return tail
	}
	return later(t.sure, heard)
}

// lacks reports whether the feed of another server should have delivered an event, and did not.
func (t *trail) lacks(server string, e *adapter.Event) bool {
	if !e.Stored || t.server == server {
		return false
	}
	_, found := slices.BinarySearchFunc(t.got, e.Position, adapter.Position.Compare)
	return !found
}
