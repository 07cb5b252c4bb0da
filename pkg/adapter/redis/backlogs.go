package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// backlogReaders is how many pipelines of one partition may read backlogs at once.
const backlogReaders = 4

// backlogs shares the reads of rooms: what is asked for while all readers are at
// work goes into one pipeline, and a room that several ask for is read once, from
// the smallest position. So when a node dies, its rooms are read, and not its
// clients' rooms.
type backlogs struct {
	ready chan struct{} // holds a token if somebody waits

	mu      sync.Mutex
	waiting []*backlogRequest
}

type backlogRequest struct {
	ctx   context.Context
	epoch string
	names []string
	after map[string]adapter.Position
	found map[string]*backlog // the answer, by key
	err   error
	done  chan struct{}
}

// A backlog is what was read of one room. Its events are shared, so nobody
// changes them.
type backlog struct {
	after  adapter.Position // it was read from here on
	whole  bool             // up to its end: no more than the limit
	events []*adapter.Event
	listed []*adapter.Event // those whose lists are still to be read
	broken []broken         // what could not be decoded, in order
	failed error            // the key holds no stream
}

// broken is the place of an event that can't be decoded.
type broken struct {
	at  adapter.Position
	err error
}

// wanted is a room that a pipeline reads, after a position.
type wanted struct {
	epoch, name string
	after       adapter.Position
}

// ask has rooms read, each after a position, and waits for it.
func (p *partition) ask(ctx context.Context, epoch string, names []string, after map[string]adapter.Position) (map[string]*backlog, error) {
	r := &backlogRequest{ctx: ctx, epoch: epoch, names: names, after: after, done: make(chan struct{})}
	p.backlogs.mu.Lock()
	p.backlogs.waiting = append(p.backlogs.waiting, r)
	p.backlogs.mu.Unlock()
	p.backlogs.call()
	select {
	case <-r.done:
		return r.found, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))
	case <-p.ctx.Done():
		return nil, context.Cause(p.ctx)
	}
}

// call wakes a reader.
func (b *backlogs) call() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// take returns the requests that go into the next pipeline, and its rooms by key.
func (b *backlogs) take(key func(epoch, name string) string) (batch []*backlogRequest, from map[string]wanted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from = make(map[string]wanted)
	for len(b.waiting) > 0 && (len(batch) == 0 || len(from)+len(b.waiting[0].names) <= readRooms) {
		r := b.waiting[0]
		b.waiting = b.waiting[1:]
		if r.ctx.Err() != nil { // nobody waits for it
			continue
		}
		batch = append(batch, r)
		for _, name := range r.names {
			k, at := key(r.epoch, name), r.after[name]
			if first, ok := from[k]; !ok || at.Compare(first.after) < 0 {
				from[k] = wanted{r.epoch, name, at}
			}
		}
	}
	if len(b.waiting) > 0 {
		b.call() // for another reader
	} else {
		b.waiting = nil
	}
	return batch, from
}

func (n names) room(epoch, name string) string { return n.in(epoch) + name }

// runBacklogs answers all who wait, again and again.
func (p *partition) runBacklogs() {
	for {
		select {
		case <-p.backlogs.ready:
		case <-p.ctx.Done():
			return
		}
		batch, from := p.backlogs.take(p.names.room)
		if len(batch) == 0 {
			continue
		}
		found, err := p.readBacklogs(p.ctx, batch, from)
		for _, r := range batch {
			if r.err = err; err == nil {
				r.found, r.err = found.rooms, found.stillThere(r.epoch)
			}
			close(r.done)
		}
	}
}

// A reading is what one pipeline has read.
type reading struct {
	rooms  map[string]*backlog
	epoch  string          // the current one, after the reads
	clocks map[string]bool // by epoch: whether there is one
}

// stillThere makes sure, after a read, that what was not found is not missing
// because everything is.
func (r *reading) stillThere(epoch string) error {
	if r.epoch != epoch || !r.clocks[epoch] {
		return fmt.Errorf("%w: %s is not the current history", adapter.ErrHistoryLost, epoch)
	}
	return nil
}

// readBacklogs reads rooms, each one more than can be replayed, and then looks
// whether the server is the primary still and the histories are there.
func (p *partition) readBacklogs(ctx context.Context, batch []*backlogRequest, from map[string]wanted) (*reading, error) {
	reads := make(map[string]*goredis.XMessageSliceCmd, len(from))
	clocks := make(map[string]*goredis.IntCmd, 1)
	var role *goredis.Cmd
	var epoch *goredis.StringCmd
	err := p.read(ctx, func(ctx context.Context, c goredis.Cmdable) error {
		// In this order, but not in a transaction: that would keep everybody else
		// waiting.
		_, err := c.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
			for key, w := range from {
				reads[key] = pipe.XRangeN(ctx, key, "("+formatPosition(w.after), "+", int64(p.limit)+1)
			}
			role = p.askRole(ctx, pipe)
			epoch = pipe.Get(ctx, p.names.epoch())
			for _, r := range batch {
				clocks[r.epoch] = pipe.Exists(ctx, p.names.clock(r.epoch))
			}
			return nil
		})
		if err != nil && !isReply(err) {
			return err
		}
		for _, cmd := range reads {
			if err := cmd.Err(); err != nil && !isWrongType(err) { // that fails alone
				return err
			}
		}
		if err := isPrimary(role); err != nil {
			return err
		}
		if err := epoch.Err(); err != nil && !errors.Is(err, goredis.Nil) {
			return atKey(p.names.epoch(), err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	found := &reading{make(map[string]*backlog, len(from)), epoch.Val(), make(map[string]bool, 1)}
	for e, clock := range clocks {
		found.clocks[e] = clock.Val() > 0
	}
	parsed := make(map[string][]*backlog, 1) // by epoch
	for key, w := range from {
		b := p.parseBacklog(w.name, reads[key].Val(), w.after)
		if err := reads[key].Err(); err != nil {
			p.stats.malformed.Add(1)
			b.failed = fmt.Errorf("%w: %w", adapter.ErrUndecodable, atKey(key, err))
		}
		found.rooms[key], parsed[w.epoch] = b, append(parsed[w.epoch], b)
	}
	for epoch, all := range parsed {
		if err := p.readLists(ctx, epoch, all); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// parseBacklog reads the entries of a room's backlog.
func (p *partition) parseBacklog(name string, read []goredis.XMessage, after adapter.Position) *backlog {
	b := &backlog{after: after, whole: len(read) <= p.limit, events: make([]*adapter.Event, 0, len(read))}
	room, _ := parseName(name)
	to := []rooms.Room{room}
	for _, m := range read {
		at, err := p.parsePosition(m.ID)
		var e *adapter.Event
		var listed bool
		if err == nil {
			payload, _ := m.Values["e"].(string)
			e, listed, err = decodeEvent(payload, to)
		}
		if err != nil {
			p.stats.malformed.Add(1)
			b.broken = append(b.broken, broken{at, fmt.Errorf("%w: the entry %s of a backlog", err, m.ID)})
			continue
		}
		e.Position = at
		b.events = append(b.events, e)
		if listed {
			b.listed = append(b.listed, e)
		}
	}
	return b
}

// readLists completes the events of backlogs whose lists are stored apart.
func (p *partition) readLists(ctx context.Context, epoch string, all []*backlog) error {
	asked := make(map[adapter.Position]*goredis.XMessageSliceCmd)
	for _, b := range all {
		for _, e := range b.listed {
			asked[e.Position] = nil
		}
	}
	if len(asked) == 0 {
		return nil
	}
	err := p.read(ctx, func(ctx context.Context, c goredis.Cmdable) error {
		_, err := c.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
			for at := range asked {
				id := formatPosition(at)
				asked[at] = pipe.XRangeN(ctx, p.names.in(epoch)+listsName, id, id, 1)
			}
			return nil
		})
		if isWrongType(err) { // each event says so
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	found := make(map[adapter.Position]*adapter.Event, len(asked))
	failed := make(map[adapter.Position]error)
	for at, cmd := range asked {
		found[at] = new(adapter.Event)
		switch read := cmd.Val(); {
		case cmd.Err() != nil:
			failed[at] = fmt.Errorf("%w: %w", adapter.ErrUndecodable, atKey(p.names.in(epoch)+listsName, cmd.Err()))
		case len(read) == 0:
			failed[at] = fmt.Errorf("%w: the lists of the event at %s", adapter.ErrTrimmed, formatPosition(at))
		default:
			s, _ := read[0].Values["e"].(string)
			failed[at] = decodeLists(s, found[at])
		}
	}
	for _, b := range all {
		for _, e := range b.listed {
			e.Target.Except, e.Earlier = found[e.Position].Target.Except, found[e.Position].Earlier
			if err := failed[e.Position]; err != nil {
				b.broken = append(b.broken, broken{e.Position, err})
			}
		}
		b.listed = nil
	}
	return nil
}

// missedBy returns the events after a position and up to another, and whether that
// can be told from this read: a shared one may begin so much earlier that it does
// not show how many there are.
func (b *backlog) missedBy(after, upTo adapter.Position, limit int) (events []*adapter.Event, known bool, err error) {
	first, _ := slices.BinarySearchFunc(b.events, after, func(e *adapter.Event, at adapter.Position) int {
		if e.Position.Compare(at) <= 0 {
			return -1
		}
		return 1
	})
	events = b.events[first:]
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
