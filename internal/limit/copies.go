package limit

import (
	"context"
	"fmt"
	"time"
)

// Costs of an event's copies beside the bytes of the event.
const (
	// copyCost is the cost of a copy: the names of its key and of its channel, sent to Redis and
	// back.
	copyCost = 256

	// newRoomCost is the cost of a room for which Redis makes a key: 4 KiB of memory for
	// REJOIN_BACKLOG_TTL.
	newRoomCost = 8 << 10
)

// ownPart is the part of the rate of copies that session writes of one socket may use if many clients
// may share its address.
const ownPart = 16

// A TooManyCopiesError means that one event is too large for that many rooms.
type TooManyCopiesError struct{ message string }

func (e *TooManyCopiesError) Error() string { return e.message }

// Copies are the bytes taken from the rate of copies for one event.
type Copies struct {
	of         *Client
	taken, due int // bytes
}

// Copy takes one event of some bytes to several rooms from the rate of copies of the user, or else
// the address, because it is stored and published once in each of the rooms. The first copy is
// free: [Client.Allow] counts its reception. newRooms is the number of rooms that the sender is
// not in. Until Done they count as new ones, up to a third of the burst, so that two events can
// pass together. If the error is a [*TooManyCopiesError] or an [*ExceededError] the caller should
// drop the event.
func (c *Client) Copy(rooms, bytes, newRooms int) (Copies, error) {
	if maximum := c.all.largest; rooms > 1 && maximum > 0 && bytes > maximum/rooms {
		return Copies{}, &TooManyCopiesError{fmt.Sprintf("%d bytes for each of %d rooms are more than %d; send it to fewer rooms at a time", bytes, rooms, maximum)}
	}
	k := Copies{of: c, due: (rooms - 1) * (bytes + copyCost)}
	if k.due+newRooms == 0 || c.all.copies.unit == 0 {
		return Copies{}, nil
	}
	maximum := c.all.copies.maximum()
	k.taken = min(k.due+min(newRooms*newRoomCost, maximum/3), maximum)
	h := c.holder()
	ok := c.all.copies.take(&h.copies, c.all.now(), k.taken)
	h.mu.Unlock()
	if !ok {
		return Copies{}, c.exceeded(CopyRate, "too many copies of events of "+c.whose())
	}
	return k, nil
}

// Done replaces the estimated number of new rooms by the actual one.
func (k Copies) Done(newRooms int) {
	if k.of == nil {
		return
	}
	h := k.of.holder()
	defer h.mu.Unlock()
	k.of.all.copies.charge(&h.copies, k.due+newRooms*newRoomCost-k.taken)
}

// Join takes a join of several rooms from the rate of copies: the names of new rooms are sent to
// Redis and back several times. If many clients may share an address, all of which join their rooms
// after a restart of their node, the socket's own rate is used. The error is an [*ExceededError].
func (c *Client) Join(rooms int) error {
	if rooms < 2 {
		return nil
	}
	ok := false
	c.useCopies(c.all.copies, &c.joins, func(p pace, used *due) { ok = p.take(used, c.all.now(), (rooms-1)*copyCost) })
	if !ok {
		return c.exceeded(CopyRate, "too many rooms are joined by "+c.whose())
	}
	return nil
}

// Once takes an event with an id from the rate of copies, of the user or the address in all cases:
// Redis keeps the id for minutes.
func (c *Client) Once() error {
	h := c.holder()
	ok := c.all.copies.take(&h.copies, c.all.now(), copyCost)
	h.mu.Unlock()
	if !ok {
		return c.exceeded(CopyRate, "too many events with an id of "+c.whose())
	}
	return nil
}

// Write waits until the socket may join or leave rooms once more. Each time its session is written to
// Redis, which can be many times the bytes of the request. The bytes are part of the rate of copies
// or, if many clients may share the address, of a smaller rate of the socket's own. The error is an
// [*ExceededError] if the rate allows none for some seconds, or the cause of the context's end.
func (c *Client) Write(ctx context.Context) error {
	return c.await(ctx, CopyRate, "too many changes of rooms of "+c.whose(), func(now int64) (bool, time.Duration) {
		var next time.Duration
		c.useCopies(c.all.ownWrites, &c.writes, func(p pace, used *due) { next = p.wait(*used, now, 1) })
		return next == 0, next
	})
}

// Wrote takes the bytes of a session's write from the rate, whether the rate allows them or
// not.
func (c *Client) Wrote(bytes int) {
	now := due(c.all.now())
	c.useCopies(c.all.ownWrites, &c.writes, func(p pace, used *due) {
		*used = max(*used, now)
		p.charge(used, bytes)
	})
}

// useCopies calls a function with the rate of copies of the user or the address, or with the socket's
// own if many clients may share the address.
func (c *Client) useCopies(own pace, ownUse *due, use func(p pace, used *due)) {
	if c.shared() {
		use(own, ownUse)
		return
	}
	h := c.holder()
	defer h.mu.Unlock()
	use(c.all.copies, &h.copies)
}
