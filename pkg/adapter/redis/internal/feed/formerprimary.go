package feed

import (
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A formerPrimary records the events that the feed of a primary has delivered since it was last
// confirmed to be complete. A primary that is demoted may continue to feed its subscribers with data
// from the new one, after a silent gap, and without breaking any connection. So when the feed comes
// from another server than before, events after the last sign that the former one took writes are
// checked again.
type formerPrimary struct {
	server    string             // whose feed it was
	confirmed adapter.Position   // it was complete up to here
	delivered []adapter.Position // stored events that it delivered since, in order
}

// maxDelivered is the number of events that it remembers. More count as not seen.
const maxDelivered = 1 << 16

// confirm records that a server's feed is complete up to a position.
func (p *formerPrimary) confirm(server string, at adapter.Position) {
	p.server, p.confirmed, p.delivered = server, at, p.delivered[:0]
}

func (p *formerPrimary) note(e *adapter.Event) {
	if e.Stored && len(p.delivered) < maxDelivered {
		p.delivered = append(p.delivered, e.Position)
	}
}

// from returns the position from which a catch-up with a server reads a room. The room is
// subscribed from the position subscribed on, and the feed has reached tail.
func (p *formerPrimary) from(server string, subscribed, tail adapter.Position) adapter.Position {
	if p.server == "" || p.server == server || tail.Compare(subscribed) < 0 {
		return tail
	}
	return later(p.confirmed, subscribed)
}

// lacks reports whether the feed of another server should have delivered an event, and did not.
func (p *formerPrimary) lacks(server string, e *adapter.Event) bool {
	if !e.Stored || p.server == server {
		return false
	}
	_, found := slices.BinarySearchFunc(p.delivered, e.Position, adapter.Position.Compare)
	return !found
}
