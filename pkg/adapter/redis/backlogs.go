package redis

import (
	"context"
	_ "embed"
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
	hold  int                 // the size of the payloads that the requester may hold
	many  bool                // it may have any number of entries
	found map[string]*backlog // the answer, by key
	err   error
	done  chan struct{}
}

// A backlog is what was read of one room. Its events are shared, so nobody
// changes them.
type backlog struct {
	after  adapter.Position // it was read from here on
	last   string           // the id up to which it has been read
	to     []rooms.Room     // its room
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

// ask has rooms read, each after a position, and waits for it. Events whose payloads are
// not held come without. Unless many is set it may fail with errManyEntries.
func (p *partition) ask(ctx context.Context, epoch string, names []string, after map[string]adapter.Position, hold int, many bool) (map[string]*backlog, error) {
	r := &backlogRequest{ctx: ctx, epoch: epoch, names: names, after: after, hold: hold, many: many, done: make(chan struct{})}
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

// What a read of backlogs moves in one call, and what the payloads that it holds for
// several requesters may take together.
const (
	readBytes   = 1 << 20
	sharedBytes = 16 << 20
)

//go:embed missed.lua
var missedSource string

var missedScript = goredis.NewScript(missedSource)

// readBacklogs reads rooms, each one more than can be replayed, and then looks
// whether the server is the primary still and the histories are there.
//
// Where large events are around it reads in parts, so that Redis does not keep others
// waiting and little is held that is not returned. If a backlog is trimmed between two
// parts, more entries than can be replayed are behind the gap, because trimming leaves
// more.
func (p *partition) readBacklogs(ctx context.Context, batch []*backlogRequest, from map[string]wanted) (*reading, error) {
	found := &reading{make(map[string]*backlog, len(from)), "", make(map[string]bool, 1)}
	keys := make([]string, 0, len(from))
	parsed := make(map[string][]*backlog, 1) // by epoch
	for key, w := range from {
		room, _ := parseName(w.name)
		b := &backlog{after: w.after, last: formatPosition(w.after), to: []rooms.Room{room}}
		keys, found.rooms[key], parsed[w.epoch] = append(keys, key), b, append(parsed[w.epoch], b)
	}
	hold, most, many := 0, 0, false
	for _, r := range batch {
		hold, most, many = hold+r.hold, max(most, r.hold), many || r.many
	}
	hold = max(min(hold, sharedBytes), most)
	count := usuallyRead
	for first := true; first || len(keys) > 0; first = false {
		read, err := p.readPart(ctx, batch, found, keys, p.rangeable(keys, count))
		if err != nil {
			return nil, err
		}
		hold, keys, count = p.addPart(found, keys, read, hold), read.rest, p.limit+1
		if len(keys) > 0 && !many {
			if found.entries() > manyEntries {
				return nil, errManyEntries
			}
			count = (2*manyEntries - found.entries()) / len(keys)
		}
	}
	for _, b := range found.rooms {
		b.whole = len(b.events)+len(b.broken) <= p.limit
	}
	for epoch, all := range parsed {
		if err := p.readLists(ctx, epoch, all); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// manyEntries is from how many entries on one read does not go on for several requesters.
const manyEntries = 16 << 10

var errManyEntries = errors.New("adapter/redis: many entries in the backlogs")

func (r *reading) entries() (n int) {
	for _, b := range r.rooms {
		n += len(b.events) + len(b.broken)
	}
	return n
}

// A piece is what one call has read of backlogs: of all keys by XRANGE, or of the first
// ones by the script.
type piece struct {
	ranges []*goredis.XMessageSliceCmd
	lists  []any    // of ids and payloads, or errors
	rest   []string // the keys of which there is more
}

// How many entries of each backlog are read at first, as few have more; and the least that
// XRANGE is used for.
const (
	usuallyRead = 32
	fewRead     = 8
)

// rangeable returns how many entries of each backlog, at most count, can be read by XRANGE:
// it costs Redis less than a script does, but is not bounded by bytes. It is 0 if they
// may be too large.
func (p *partition) rangeable(keys []string, count int) int {
	largest := p.sizes.largest(p.life)
	if largest == 0 || len(keys) == 0 { // nothing is known of their size
		return 0
	}
	count = min(count, p.limit+1)
	if fit := sharedBytes / len(keys) / largest; fit < count {
		if count = fit; fit < fewRead {
			count = 0
		}
	}
	return count
}

// readPart reads as much of rooms as is read in one call: count entries of each, or, if
// that is 0, as many as may be large. It notes what the histories are afterwards.
func (p *partition) readPart(ctx context.Context, batch []*backlogRequest, found *reading, keys []string, count int) (read piece, err error) {
	clocks := make(map[string]*goredis.IntCmd, 1)
	var script, role *goredis.Cmd
	var epoch *goredis.StringCmd
	run := missedScript.EvalSha
	once := func(ctx context.Context, c goredis.Cmdable) error {
		// In this order, but not in a transaction: that would keep everybody else
		// waiting.
		read.ranges = read.ranges[:0]
		_, err := c.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
			switch {
			case len(keys) == 0:
			case count > 0:
				for _, key := range keys {
					read.ranges = append(read.ranges, pipe.XRangeN(ctx, key, "("+found.rooms[key].last, "+", int64(count)))
				}
			default:
				script = run(ctx, pipe, keys, p.scriptArgs(found, keys)...)
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
		for _, cmd := range read.ranges {
			if err := cmd.Err(); err != nil && !isWrongType(err) { // that fails alone
				return err
			}
		}
		if script != nil {
			if err := read.take(script, keys); err != nil {
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
	}
	err = p.read(ctx, func(ctx context.Context, c goredis.Cmdable) error {
		err := once(ctx, c)
		if err != nil && says(err, "NOSCRIPT") {
			run = missedScript.Eval
			err = once(ctx, c)
		}
		return err
	})
	if err != nil {
		return read, err
	}
	for i, cmd := range read.ranges {
		if b := found.rooms[keys[i]]; len(cmd.Val()) == count && len(b.events)+len(b.broken)+count <= p.limit {
			read.rest = append(read.rest, keys[i])
		}
	}
	found.epoch = epoch.Val()
	for e, clock := range clocks {
		found.clocks[e] = clock.Val() > 0
	}
	return read, nil
}

// scriptArgs returns the arguments of the script for the rest of the keys' backlogs.
func (p *partition) scriptArgs(found *reading, keys []string) []any {
	args := make([]any, 0, 1+2*len(keys))
	args = append(args, readBytes)
	for _, key := range keys {
		b := found.rooms[key]
		args = append(args, p.limit+1-len(b.events)-len(b.broken), b.last)
	}
	return args
}

// take takes what the script has read.
func (r *piece) take(script *goredis.Cmd, keys []string) error {
	reply, err := script.Slice()
	switch {
	case err != nil:
		return err
	case len(reply) < 2 || len(reply) > len(keys)+1:
		return errMalformed
	}
	r.lists, r.rest = reply[1:], nil
	if reply[0] != "" {
		r.rest = keys[len(r.lists)-1:] // the last list goes on
	}
	for _, list := range r.lists {
		if err, ok := list.(error); ok && !isWrongType(err) {
			return err
		}
	}
	return nil
}

// addPart adds what was read to the backlogs, and returns how much more may be held.
func (p *partition) addPart(found *reading, keys []string, read piece, hold int) int {
	failed := func(key string, err error) {
		p.stats.malformed.Add(1)
		found.rooms[key].failed = fmt.Errorf("%w: %w", adapter.ErrUndecodable, atKey(key, err))
	}
	for i, cmd := range read.ranges {
		if err := cmd.Err(); err != nil {
			failed(keys[i], err)
		}
		for _, m := range cmd.Val() {
			payload, _ := m.Values["e"].(string)
			hold -= p.parse(found.rooms[keys[i]], m.ID, payload, hold)
		}
	}
	for i, list := range read.lists {
		if err, ok := list.(error); ok {
			failed(keys[i], err)
		}
		entries, _ := list.([]any)
		for pair := range slices.Chunk(entries, 2) {
			id, _ := pair[0].(string)
			payload, _ := pair[1].(string)
			hold -= p.parse(found.rooms[keys[i]], id, payload, hold)
		}
	}
	return hold
}

// parse reads an entry of a backlog. Its payload is left out if it is larger than hold;
// otherwise parse returns its size.
func (p *partition) parse(b *backlog, id, payload string, hold int) (held int) {
	b.last = id
	p.sizes.saw(len(payload))
	at, err := p.parsePosition(id)
	var e *adapter.Event
	var listed bool
	if err == nil {
		e, listed, err = decodeStored(payload, b.to, hold)
	}
	if err != nil {
		p.stats.malformed.Add(1)
		b.broken = append(b.broken, broken{at, fmt.Errorf("%w: the entry %s of a backlog", err, id)})
		return 0
	}
	e.Position = at
	b.events = append(b.events, e)
	if listed {
		b.listed = append(b.listed, e)
	}
	return payloadSize(e)
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
