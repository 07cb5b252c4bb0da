package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/rejoin-io/rejoin/internal/batch"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
)

// Limits of the outbox, and of one call.
const (
	outboxItems = 16384
	outboxBytes = 64 << 20

	// callBytes bounds the bytes that one call publishes, including each copy. All of them enter
	// the output buffers of subscribers together, and Redis closes a subscriber with 32 MB
	// queued. A single event may be larger.
	callBytes = 4 << 20

	// callRooms bounds the rooms of one call, because Redis does nothing else meanwhile:
	// each room takes about 10 µs. An event to more, which may be adapter.MaxRooms, has a
	// call of its own.
	callRooms = 4096
)

// A parcel is an event or a message in flight to Redis. It has begun when an attempt to send it may
// have been executed.
type parcel = batch.Request[content, outcome]

type content struct {
	rooms   []string // by name within the epoch, each once; none for a message
	stored  bool
	inbox   string // a message's channel
	payload []byte
	lists   []byte // stored separately from the payload
	once    *adapter.Once
}

// size returns the number of bytes sent to Redis for it.
func (c *content) size() int {
	n := len(c.payload) + len(c.lists)
	for _, name := range c.rooms {
		n += len(name)
	}
	return n
}

// copied returns the number of bytes that Redis stores and publishes for it.
func (c *content) copied() int {
	n := len(c.lists)
	for _, name := range c.rooms {
		n += len(c.payload) + len(name)
	}
	if len(c.rooms) == 0 {
		n += len(c.payload)
	}
	return n
}

// An outcome is the result of sending a parcel: its event's position, whether it had been published
// before and how long ago, and what it reached; or an error.
type outcome struct {
	cursor   adapter.Cursor
	repeated bool
	age      time.Duration
	reached
	err error
}

// reached is the number of subscribers that an event has reached, and the number of its rooms that
// have none and were not stored before.
type reached struct{ receivers, newRooms int }

// A load counts the contents of one call.
type load struct{ bytes, rooms int }

// fits reports whether a parcel may be in a call that has n before it, and counts it.
func (l *load) fits(n int, it *parcel) bool {
	if n == 0 {
		*l = load{}
	}
	l.bytes += it.Value.copied()
	l.rooms += len(it.Value.rooms)
	return n < feed.PerCall && l.bytes <= callBytes && l.rooms <= callRooms
}

// send queues a parcel and waits for its outcome.
func (p *partition) send(ctx context.Context, c content) outcome {
	if err := p.down(); err != nil {
		return outcome{err: c.unanswered(fmt.Errorf("server unreachable: %w", err))}
	}
	return p.enqueue(ctx, &c)
}

// enqueue is send for callers that check whether Redis is reachable again.
func (p *partition) enqueue(ctx context.Context, c *content) outcome {
	o, err := p.outbox.Do(ctx, *c, c.size())
	if err != nil {
		o.err = c.unanswered(err)
	}
	return o
}

// unanswered returns the error of a parcel without an outcome. An event that has not begun is
// certainly not published.
func (c *content) unanswered(cause error) error {
	err := adapter.ErrUnavailable
	if len(c.rooms) > 0 && !batch.Begun(cause) {
		err = adapter.ErrNotPublished
	}
	return fmt.Errorf("%w: %w", err, cause)
}
