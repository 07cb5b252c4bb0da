package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin-io/rejoin/internal/batch"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// backlogReaders is the maximum number of concurrent pipelines that read backlogs of one partition.
const backlogReaders = 4

// A backlogRequest asks for backlogs of rooms. Requests that arrive while all readers are busy go into
// one pipeline, and a room that several requests name is read once, from the smallest position. So
// after a node's crash the number of reads depends on its rooms, and not on its clients.
type backlogRequest struct {
	ctx     context.Context
	epoch   string
	names   []string
	after   map[string]adapter.Position
	hold    int           // maximum total payload size for the requester
	most    int           // maximum number of entries for the requester
	alone   bool          // the read is not shared
	catchUp bool          // of the feed, which judges itself what has expired, and may take minutes
	lists   *atomic.Int64 // bytes of lists that were read for the requester alone; nil if they are not limited
	kept    listings      // of the requester; nil if none are
}

// A sharedRequest is a request whose read is shared with others.
type sharedRequest = batch.Request[*backlogRequest, map[backlogID]*backlog]

// A backlogID is the history and the name of the room of a backlog. Its key in Redis is built from
// these once for each read, because names can be long and rooms many.
type backlogID struct{ epoch, name string }

// A backlog is the part of one room's backlog that was read. Its events are shared and must
// not be changed.
type backlog struct {
	key    string           // in Redis
	after  adapter.Position // it was read after this position
	last   string           // the id up to which it has been read
	to     []rooms.Room     // its room
	whole  bool             // read up to its end: no more than the limit
	events []*adapter.Event
	listed []*adapter.Event // events whose lists are still to be read
	bytes  int              // that Redis has sent
	wanted int              // the sum of the entries that its requests miss
	broken []broken         // events that could not be decoded, in order
	failed error            // the key does not hold a stream

	mu   sync.Mutex
	bare map[*adapter.Event]*adapter.Event // events without their payloads
}

// omit returns an event of the backlog without its payload, for requesters that do not hold it. They share
// it, because hundreds of them can miss thousands of events each.
func (b *backlog) omit(e *adapter.Event) *adapter.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	bare := b.bare[e]
	if bare == nil {
		if b.bare == nil {
			b.bare = make(map[*adapter.Event]*adapter.Event)
		}
		bare = omit(e)
		b.bare[e] = bare
	}
	return bare
}

// broken is the place of an event that cannot be decoded.
type broken struct {
	at  adapter.Position
	err error
}

// ask executes a request, together with others unless it must be alone, and waits for its answer.
// Events whose payloads are not held come without them. If there are more than r.most entries, or
// their lists are too large, ask fails with errManyEntries.
func (p *partition) ask(ctx context.Context, r *backlogRequest) (found map[backlogID]*backlog, err error) {
	r.ctx = ctx
	if r.alone { // other requests must neither wait for all of it nor hold it
		found, err = p.readAlone(ctx, r)
	} else {
		found, err = p.backlogs.Do(ctx, r, 0)
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))
	}
	return found, err
}

// origins are the positions after which the rooms of one pipeline are read.
type origins map[backlogID]adapter.Position

// fits reports whether a request may be in a pipeline that has n before it, and adds its rooms.
func (o *origins) fits(n int, r *sharedRequest) bool {
	if n == 0 {
		*o = make(origins)
	}
	if n > 0 && len(*o)+len(r.Value.names) > readRooms {
		return false
	}
	o.add(r.Value)
	return true
}

func (o origins) add(r *backlogRequest) {
	for _, name := range r.names {
		room, at := backlogID{r.epoch, name}, r.after[name]
		if first, ok := o[room]; !ok || at.Compare(first) < 0 {
			o[room] = at
		}
	}
}

func (n names) room(epoch, name string) string { return n.in(epoch) + name }

// runBacklogs answers pending requests until the adapter closes.
func (p *partition) runBacklogs() {
	var from origins
	p.backlogs.Serve(from.fits, func(all []*sharedRequest) { p.answerReads(all, from) })
}

// answerReads executes requests. Each is judged by its own entries: if all of them together are too
// many, each is read alone.
func (p *partition) answerReads(all []*sharedRequest, from origins) {
	requests := make([]*backlogRequest, len(all))
	for i, s := range all {
		requests[i] = s.Value
	}
	found, err := p.readBacklogs(p.ctx, requests, from)
	for i, r := range requests {
		adapter.CountRead(r.ctx, found.share(r))
		if errors.Is(err, errManyEntries) && len(all) > 1 {
			all[i].Answer(p.readAlone(p.ctx, r))
			continue
		}
		all[i].Answer(found.judge(r, err))
	}
}

// readAlone executes one request.
func (p *partition) readAlone(ctx context.Context, r *backlogRequest) (map[backlogID]*backlog, error) {
	from := make(origins, len(r.names))
	from.add(r)
	found, err := p.readBacklogs(ctx, []*backlogRequest{r}, from)
	adapter.CountRead(r.ctx, found.share(r))
	return found.judge(r, err)
}

// A reading is the result of one pipeline.
type reading struct {
	rooms  map[backlogID]*backlog
	epoch  string          // the current one, after the reads
	clocks map[string]bool // by epoch: whether its clock exists
	kept   time.Time       // later events have not expired
}

// stillThere makes sure, after a read, that entries are not missing because the whole history is
// lost.
func (r *reading) stillThere(epoch string) error {
	if r.epoch != epoch || !r.clocks[epoch] {
		return fmt.Errorf("%w: %s is not the current history", adapter.ErrHistoryLost, epoch)
	}
	return nil
}

// judge returns a request's answer after a read that has ended with an error or nil.
func (r *reading) judge(of *backlogRequest, err error) (map[backlogID]*backlog, error) {
	if err == nil {
		err = r.stillThere(of.epoch)
	}
	if err == nil && !of.catchUp {
		err = r.expired(of)
	}
	if err == nil && r.entriesOf(of) > of.most {
		err = errManyEntries
	}
	return r.rooms, err
}

// expired returns an error if events that a request needs may have expired: a room without a backlog, or
// whose backlog has begun anew, then looks like one without events.
func (r *reading) expired(of *backlogRequest) error {
	for _, name := range of.names {
		if at := of.after[name].Time(); at.Before(r.kept) {
			return fmt.Errorf("%w: events up to %v after the position may have expired in %s", adapter.ErrTrimmed, r.kept.Sub(at), name)
		}
	}
	return nil
}

// share returns a request's part of the bytes read. Requests share a room by the numbers of entries
// that they miss, so that a requester is not charged for one that misses much more.
func (r *reading) share(of *backlogRequest) int {
	bytes := 0
	for _, name := range of.names {
		if b := r.rooms[backlogID{of.epoch, name}]; b != nil {
			bytes += b.bytes * b.missing(of, name) / max(b.wanted, 1)
		}
	}
	return bytes
}

// weigh records how many entries of each room its requests miss.
func (r *reading) weigh(batch []*backlogRequest) {
	for _, of := range batch {
		for _, name := range of.names {
			if b := r.rooms[backlogID{of.epoch, name}]; b != nil {
				b.wanted += b.missing(of, name)
			}
		}
	}
}

// missing returns the number of entries of the room that a request misses, plus one for the
// room.
func (b *backlog) missing(of *backlogRequest, name string) int {
	return 1 + len(b.behind(of.after[name]))
}

// awaited reports whether the caller of any of the requests still waits.
func awaited(batch []*backlogRequest) bool {
	return slices.ContainsFunc(batch, func(r *backlogRequest) bool { return r.ctx.Err() == nil })
}

// manyEntries is the number of entries from which a replay must wait for its turn.
const manyEntries = 8 << 10

var errManyEntries = errors.New("adapter/redis: too many backlog entries for one read")

// entriesOf returns the number of entries read that belong to a request.
func (r *reading) entriesOf(of *backlogRequest) (n int) {
	for _, name := range of.names {
		after := of.after[name]
		b := r.rooms[backlogID{of.epoch, name}]
		n += len(b.behind(after))
		for _, bad := range b.broken {
			if after.Compare(bad.at) < 0 {
				n++
			}
		}
	}
	return n
}

func (r *reading) entries() (n int) {
	for _, b := range r.rooms {
		n += len(b.events) + len(b.broken)
	}
	return n
}

// behind returns the events after a position.
func (b *backlog) behind(after adapter.Position) []*adapter.Event {
	first, _ := slices.BinarySearchFunc(b.events, after, func(e *adapter.Event, at adapter.Position) int {
		if e.Position.Compare(at) <= 0 {
			return -1
		}
		return 1
	})
	return b.events[first:]
}

// missedBy returns the events after a position and up to another, and whether this read determines
// them. A shared read may begin so much earlier that it ends before the last of them.
func (b *backlog) missedBy(after, upTo adapter.Position, limit int) (events []*adapter.Event, known bool, err error) {
	events = b.behind(after)
	switch {
	case b.failed != nil:
		return nil, true, b.failed
	case !b.whole && b.after != after:
		return nil, false, nil
	case !b.whole:
		return nil, true, fmt.Errorf("%w: more than %d events", adapter.ErrTrimmed, limit)
	}
	for _, bad := range b.broken {
		if after.Compare(bad.at) < 0 && bad.at.Compare(upTo) <= 0 {
			return nil, true, bad.err
		}
	}
	for i, e := range events {
		if upTo.Compare(e.Position) < 0 {
			return events[:i], true, nil
		}
	}
	return events, true, nil
}
