package socketio

import "sync/atomic"

const (
	// heldPart is the part of the queue budget that may be held: a quarter.
	heldPart = 4
	// smallHeld is the number of bytes that a socket may always hold: other sockets must not
	// make it read a replay again for a few events.
	smallHeld = 4 << 10
	// heldSlot is the memory of a held delivery that gates do not share.
	heldSlot = 16
)

// A heldBudget counts the deliveries that the gates of a node hold, and the acks that wait. A
// delivery counts once for any number of gates. The budget takes no lock, because the fan-out
// updates it.
type heldBudget struct {
	bytes atomic.Int64
	most  int64 // 0 means no limit
}

// refuses reports whether a socket that would hold some bytes must not. What need not be held, because a
// replay reads it again or an ack can be sent early, takes at most half of the budget: clients that take
// their replays slowly hold it for minutes, and a socket that must hold an event would be cut.
func (b *heldBudget) refuses(bytes int, spare bool) bool {
	maximum := b.most
	if spare {
		maximum /= 2
	}
	return maximum > 0 && bytes > smallHeld && b.bytes.Load() > maximum
}

// keep counts that one more gate holds a delivery.
func (b *heldBudget) keep(d *delivery) {
	if b.bytes.Add(heldSlot); d.holders.Add(1) == 1 {
		b.bytes.Add(int64(d.size()))
	}
}

// drop counts that one gate less holds a delivery.
func (b *heldBudget) drop(d *delivery) {
	if b.bytes.Add(-heldSlot); d.holders.Add(-1) == 0 {
		b.bytes.Add(-int64(d.size()))
	}
}
