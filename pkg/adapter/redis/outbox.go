package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// What may wait to be sent, and what goes into one call.
const (
	outboxItems = 16384
	outboxBytes = 64 << 20
	callBytes   = 4 << 20
	callRooms   = 4096 // Redis does nothing else while it is at one call
)

// A parcel is an event or a message on its way to Redis.
type parcel struct {
	ctx     context.Context // whose end means that nobody waits for it any more
	queued  time.Time
	rooms   []string // by name within the epoch, each once; none: it is a message
	stored  bool
	inbox   string // a message's channel
	payload []byte
	done    chan outcome // has space for one
}

// An outcome is where a parcel's event stands now, and how many heard it.
type outcome struct {
	place
	receivers int
	err       error
}

// An outbox is what waits for the call that is under way to end.
type outbox struct {
	mu      sync.Mutex
	waiting []*parcel
	bytes   int
	ready   chan struct{} // holds a token if there is something
}

var errOutboxFull = errors.New("adapter/redis: too many events wait to be published")

func (o *outbox) put(it *parcel) error {
	o.mu.Lock()
	if len(o.waiting) >= outboxItems || o.bytes >= outboxBytes {
		o.mu.Unlock()
		return errOutboxFull
	}
	o.waiting = append(o.waiting, it)
	o.bytes += len(it.payload)
	o.mu.Unlock()
	select {
	case o.ready <- struct{}{}:
	default:
	}
	return nil
}

// take returns what the next call carries, or nil when ctx ends.
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
	n, bytes, rooms := 0, 0, 0
	for ; n < len(o.waiting) && n < perCall; n++ {
		it := o.waiting[n]
		if n > 0 && (bytes+len(it.payload) > callBytes || rooms+len(it.rooms) > callRooms) {
			break
		}
		bytes += len(it.payload)
		rooms += len(it.rooms)
	}
	all := o.waiting[:n:n]
	if o.waiting = o.waiting[n:]; len(o.waiting) == 0 {
		o.waiting = nil
	}
	o.bytes -= bytes
	return all
}

// send queues a parcel and waits for what becomes of it.
func (p *partition) send(ctx context.Context, it *parcel) outcome {
	if err := p.down(); err != nil {
		return outcome{err: fmt.Errorf("%w: Redis can't be reached: %w", adapter.ErrUnavailable, err)}
	}
	return p.enqueue(ctx, it)
}

// timers are for those who wait, since there is one for each event.
var timers = sync.Pool{New: func() any { return time.NewTimer(time.Hour) }}

// enqueue is send for those that find out whether Redis is back.
func (p *partition) enqueue(ctx context.Context, it *parcel) outcome {
	it.ctx, it.queued, it.done = ctx, time.Now(), make(chan outcome, 1)
	if err := p.outbox.put(it); err != nil {
		return outcome{err: fmt.Errorf("%w: %w", adapter.ErrUnavailable, err)}
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
		return outcome{err: fmt.Errorf("%w: Redis did not answer within %v", adapter.ErrUnavailable, p.timeout)}
	case <-ctx.Done():
		return outcome{err: fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))}
	case <-p.ctx.Done():
		return outcome{err: fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(p.ctx))} // it may be on its way
	}
}
