package limit

import (
	"time"

	"golang.org/x/time/rate"
)

// EventOptions configure [Events]: what a socket, and all sockets of a user
// together, may send in a second. A zero is no limit.
type EventOptions struct {
	SocketEvents, SocketBytes int
	UserEvents, UserBytes     int
	// LargestEvent is how many bytes can always come at once, where rates of bytes
	// are smaller.
	LargestEvent int
}

// Events limit what sockets and users send. All methods may be called at once.
type Events struct {
	sockets, users *senders
}

// An ExceededError says which limit an event exceeds.
type ExceededError struct{ message string }

func (e *ExceededError) Error() string { return e.message }

// NewEvents returns the limits of a node. Each rate allows one second's worth at
// once.
func NewEvents(o EventOptions) *Events {
	return &Events{
		sockets: newSenders(o.SocketEvents, o.SocketBytes, o.LargestEvent, SocketEventRate, SocketByteRate, "this socket"),
		users:   newSenders(o.UserEvents, o.UserBytes, o.LargestEvent, UserEventRate, UserByteRate, "this user"),
	}
}

// Allow takes one event of some bytes from what a socket and its user may send; a
// socket without a user has the empty one. The error is an [*ExceededError]: the
// event should be dropped.
func (e *Events) Allow(user, socket string, bytes int) error {
	if err := e.sockets.allow(socket, bytes); err != nil {
		return err
	}
	if user == "" {
		return nil
	}
	return e.users.allow(user, bytes)
}

// Refused returns how many events were refused, by limit.
func (e *Events) Refused() map[string]uint64 {
	return counts(&e.sockets.events, &e.sockets.bytes, &e.users.events, &e.users.bytes)
}

// senders are all sockets or all users.
type senders struct {
	off           bool
	whose         string
	states        *table[string, *sender]
	events, bytes counter
}

// A sender is what one of them has used.
type sender struct{ events, bytes *rate.Limiter }

func newSenders(events, bytes, largest int, eventLimit, byteLimit, whose string) *senders {
	return &senders{
		off:   events == 0 && bytes == 0,
		whose: whose,
		states: newTable[string](
			func() *sender { return &sender{perSecond(events, events), perSecond(bytes, max(bytes, largest))} },
			func(s *sender, now time.Time) bool { return full(s.events, now) && full(s.bytes, now) },
		),
		events: counter{name: eventLimit},
		bytes:  counter{name: byteLimit},
	}
}

func (all *senders) allow(key string, bytes int) (err error) {
	if all.off {
		return nil
	}
	now := time.Now()
	all.states.with(key, func(s *sender) {
		switch {
		case !s.events.AllowN(now, 1):
			all.events.n.Add(1)
			err = &ExceededError{"too many events of " + all.whose}
		case s.bytes.Limit() != rate.Inf && !s.bytes.AllowN(now, min(bytes, s.bytes.Burst())):
			all.bytes.n.Add(1)
			err = &ExceededError{"too many bytes of " + all.whose}
		}
	})
	return err
}
