package limit

import "fmt"

// What copies of events cost beside the bytes of the event.
const (
	// copyCost is what a copy costs: the names of its key and of its channel on their way
	// into Redis and out of it.
	copyCost = 256

	// newRoomCost is what a room costs for which Redis makes a key: 4 KiB of memory for
	// REJOIN_BACKLOG_TTL.
	newRoomCost = 8 << 10
)

// A TooManyCopiesError says that one event is too much for so many rooms.
type TooManyCopiesError struct{ message string }

func (e *TooManyCopiesError) Error() string { return e.message }

// Copies are what was taken of the rate of copies for one event.
type Copies struct {
	of         *Client
	taken, due int // bytes
}

// Copy takes one event of some bytes to several rooms from what the user, or else the
// address, may have copied, because it is stored and published once in each of the rooms.
// The first copy is free: that it was received is counted by [Client.Allow]. strangers are
// the rooms that the sender is not in: until Done they count as new ones, as far as these
// take a third of what can be used at once: two events can pass together. The error is a
// [*TooManyCopiesError] or an [*ExceededError]: the event should be dropped.
func (c *Client) Copy(rooms, bytes, strangers int) (Copies, error) {
	if most := c.all.largest; rooms > 1 && most > 0 && bytes > most/rooms {
		return Copies{}, &TooManyCopiesError{fmt.Sprintf("%d bytes for each of %d rooms are more than %d; send it to fewer rooms at a time", bytes, rooms, most)}
	}
	k := Copies{of: c, due: (rooms - 1) * (bytes + copyCost)}
	if k.due+strangers == 0 || c.all.copies.unit == 0 {
		return Copies{}, nil
	}
	most := c.all.copies.most()
	k.taken = min(k.due+min(strangers*newRoomCost, most/3), most)
	h := c.holder()
	ok := c.all.copies.take(&h.copies, c.all.now(), k.taken)
	h.mu.Unlock()
	if !ok {
		return Copies{}, c.exceeded(&c.all.copyRate, "too many copies of events of "+c.whose())
	}
	return k, nil
}

// Done gives back what was taken for rooms that were not new.
func (k Copies) Done(newRooms int) {
	if k.of == nil {
		return
	}
	h := k.of.holder()
	defer h.mu.Unlock()
	k.of.all.copies.charge(&h.copies, k.due+newRooms*newRoomCost-k.taken)
}

// Join takes a join of several rooms from the rate of copies: the names of new rooms go
// into Redis and come out of it several times. Where many clients may share an address,
// which all join their rooms when their node has restarted, it is the socket's own rate.
// The error is an [*ExceededError].
func (c *Client) Join(rooms int) error {
	if rooms < 2 || c.all.copies.unit == 0 {
		return nil
	}
	cost, ok := (rooms-1)*copyCost, false
	if c.shared() {
		ok = c.all.copies.take(&c.joins, c.all.now(), cost)
	} else {
		h := c.holder()
		ok = c.all.copies.take(&h.copies, c.all.now(), cost)
		h.mu.Unlock()
	}
	if !ok {
		return c.exceeded(&c.all.copyRate, "too many rooms are joined by "+c.whose())
	}
	return nil
}
