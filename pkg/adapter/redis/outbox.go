package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
)

// Limits of the outbox, and of one call.
const (
	outboxItems = 16384
	outboxBytes = 64 << 20

	// callBytes bounds what one call publishes, including each copy, because all of it goes into
	// the output buffers of subscribers together: Redis closes a subscriber with 32 MB queued. A
	// single event may be larger.
	callBytes = 4 << 20

	// callRooms bounds the rooms of one call, because Redis does nothing else
	// meanwhile: about 10 µs for each. An event to more, which may be
	// adapter.MaxRooms, has a call of its own.
	callRooms = 4096
)

// A parcel is an event or a message in flight to Redis.
type parcel struct {
	ctx     context.Context // its end means that the caller no longer waits
	queued  time.Time
	rooms   []string // by name within the epoch, each once; none for a message
	stored  bool
	inbox   string // a message's channel
	payload []byte
	lists   []byte       // stored separately from the payload
	done    chan outcome // has space for one
	state   atomic.Int32 // a parcelState
}

// A parcelState coordinates the publisher, which sends a parcel, and the caller, which may stop
// waiting for it.
type parcelState = int32

const (
	stateUnsent    parcelState = iota // no attempt to send it may have been executed
	stateSent                         // one may have been
	stateWithdrawn                    // it must not be sent any more
)

// begin reports whether a parcel may be sent.
func (it *parcel) begin() bool {
	return it.state.Load() == stateSent || it.state.CompareAndSwap(stateUnsent, stateSent)
}

// unanswered returns the outcome of a parcel without an answer. One that was not sent is withdrawn,
// so its event is certainly not published.
func (it *parcel) unanswered(cause error) outcome {
	err := adapter.ErrUnavailable
	if len(it.rooms) > 0 && (it.state.CompareAndSwap(stateUnsent, stateWithdrawn) || it.state.Load() == stateWithdrawn) {
		err = adapter.ErrNotPublished
	}
	return outcome{err: fmt.Errorf("%w: %w", err, cause)}
}

// size returns the number of bytes sent to Redis for it.
func (it *parcel) size() int {
	n := len(it.payload) + len(it.lists)
	for _, name := range it.rooms {
		n += len(name)
	}
	return n
}

// copied returns the number of bytes that Redis stores and publishes for it.
func (it *parcel) copied() int {
	n := len(it.lists)
	for _, name := range it.rooms {
		n += len(it.payload) + len(name)
	}
	if len(it.rooms) == 0 {
		n += len(it.payload)
	}
	return n
}

// An outcome is the result of sending a parcel: its event's place and what it reached, or an error.
type outcome struct {
	place
	reached
	err error
}

// reached is the number of subscribers that an event has reached, and the number of its rooms that
// have none and were not stored before.
type reached struct{ receivers, newRooms int }

// An outbox holds parcels until the call in flight has ended.
type outbox struct {
	mu      sync.Mutex
	waiting []*parcel
	bytes   int
	ready   chan struct{} // holds a token if a parcel is queued
}

var errOutboxFull = errors.New("adapter/redis: too many events wait to be published")

func (o *outbox) put(it *parcel) error {
	o.mu.Lock()
	if len(o.waiting) >= outboxItems || o.bytes >= outboxBytes {
		o.mu.Unlock()
		return errOutboxFull
	}
	o.waiting = append(o.waiting, it)
	o.bytes += it.size()
	o.mu.Unlock()
	select {
	case o.ready <- struct{}{}:
	default:
	}
	return nil
}

// take returns the parcels of the next call, or nil when ctx ends.
func (o *outbox) take(ctx context.Context) []*parcel {
	for {
		if all := o.next(); len(all) > 0 {
			return all
		}
		select {
		case <-o.ready:
		case <-ctx.Done():
			return nil
		}
	}
}

func (o *outbox) next() []*parcel {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, bytes, copied, rooms := 0, 0, 0, 0
	for ; n < len(o.waiting) && n < feed.PerCall; n++ {
		it := o.waiting[n]
		if n > 0 && (copied+it.copied() > callBytes || rooms+len(it.rooms) > callRooms) {
			break
		}
		bytes += it.size()
		copied += it.copied()
		rooms += len(it.rooms)
	}
	all := o.waiting[:n:n]
	if o.waiting = o.waiting[n:]; len(o.waiting) == 0 {
		o.waiting = nil
	}
	o.bytes -= bytes
	return all
}

// send queues a parcel and waits for its outcome.
func (p *partition) send(ctx context.Context, it *parcel) outcome {
	if err := p.down(); err != nil {
		return it.unanswered(fmt.Errorf("server unreachable: %w", err))
	}
	return p.enqueue(ctx, it)
}

// timers are pooled, because there is one for each waiting event.
var timers = sync.Pool{New: func() any { return time.NewTimer(time.Hour) }}

// enqueue is send for callers that check whether Redis is reachable again.
func (p *partition) enqueue(ctx context.Context, it *parcel) outcome {
	it.ctx, it.queued, it.done = ctx, time.Now(), make(chan outcome, 1)
	if err := p.outbox.put(it); err != nil {
		return it.unanswered(err)
	}
	late := timers.Get().(*time.Timer)
	late.Reset(p.timeout)
	defer func() {
		late.Stop()
		timers.Put(late)
	}()
	select {
	case o := <-it.done:
		return o
	case <-late.C:
		return it.unanswered(fmt.Errorf("no answer from Redis within %v", p.timeout))
	case <-ctx.Done():
		return it.unanswered(context.Cause(ctx))
	case <-p.ctx.Done():
		return it.unanswered(context.Cause(p.ctx))
	}
}
