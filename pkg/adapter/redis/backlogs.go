package redis

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
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
	hold  int                    // the size of the payloads that the requester may hold
	most  int                    // how many entries it may have
	found map[backlogID]*backlog // the answer
	err   error
	done  chan struct{}
}

// A backlogID is the history and the name of the room of a backlog. Its key in Redis is made
// of these once for each read, because names can be long and rooms many.
type backlogID struct{ epoch, name string }

// A backlog is what was read of one room. Its events are shared, so nobody
// changes them.
type backlog struct {
	key    string           // in Redis
	after  adapter.Position // it was read from here on
	last   string           // the id up to which it has been read
	to     []rooms.Room     // its room
	whole  bool             // up to its end: no more than the limit
	events []*adapter.Event
	listed []*adapter.Event // those whose lists are still to be read
	bytes  int              // that Redis has sent
	asked  int              // how many requests it answers
	broken []broken         // what could not be decoded, in order
	failed error            // the key holds no stream
}

// broken is the place of an event that can't be decoded.
type broken struct {
	at  adapter.Position
	err error
}

// ask has rooms read, each after a position, and waits for it. Events whose payloads are
// not held come without. With more than most entries it fails with errManyEntries. If most
// is math.MaxInt, the read is not shared.
func (p *partition) ask(ctx context.Context, epoch string, names []string, after map[string]adapter.Position, hold, most int) (map[backlogID]*backlog, error) {
	r := &backlogRequest{ctx: ctx, epoch: epoch, names: names, after: after, hold: hold, most: most, done: make(chan struct{})}
	if most == math.MaxInt { // others must neither wait for all of it nor hold it
		found, err := p.readAlone(ctx, r)
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))
		}
		return found, err
	}
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

// take returns the requests that go into the next pipeline, and after which positions it
// reads.
func (b *backlogs) take() (batch []*backlogRequest, from map[backlogID]adapter.Position) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from = make(map[backlogID]adapter.Position)
	for len(b.waiting) > 0 && (len(batch) == 0 || len(from)+len(b.waiting[0].names) <= readRooms) {
		r := b.waiting[0]
		b.waiting = b.waiting[1:]
		if r.ctx.Err() != nil { // nobody waits for it
			continue
		}
		batch = append(batch, r)
		for _, name := range r.names {
			room, at := backlogID{r.epoch, name}, r.after[name]
			if first, ok := from[room]; !ok || at.Compare(first) < 0 {
				from[room] = at
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
		batch, from := p.backlogs.take()
		if len(batch) == 0 {
			continue
		}
		p.answerReads(batch, from)
	}
}

// answerReads reads what requests have asked for. Each is judged by its own entries: where all of
// them together are too many, each is read alone.
func (p *partition) answerReads(batch []*backlogRequest, from map[backlogID]adapter.Position) {
	found, err := p.readBacklogs(p.ctx, batch, from)
	for _, r := range batch {
		adapter.CountRead(r.ctx, found.share(r))
		switch {
		case errors.Is(err, errManyEntries) && len(batch) > 1:
			r.found, r.err = p.readAlone(p.ctx, r)
		case err != nil:
			r.err = err
		case found.entriesOf(r) > r.most:
			r.err = errManyEntries
		default:
			r.found, r.err = found.rooms, found.stillThere(r.epoch)
		}
		close(r.done)
	}
}

// readAlone reads what one request has asked for.
func (p *partition) readAlone(ctx context.Context, r *backlogRequest) (map[backlogID]*backlog, error) {
	from := make(map[backlogID]adapter.Position, len(r.names))
	for _, name := range r.names {
		from[backlogID{r.epoch, name}] = r.after[name]
	}
	found, err := p.readBacklogs(ctx, []*backlogRequest{r}, from)
	adapter.CountRead(r.ctx, found.share(r))
	if err == nil {
		err = found.stillThere(r.epoch)
	}
	return found.rooms, err
}

// A reading is what one pipeline has read.
type reading struct {
	rooms  map[backlogID]*backlog
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

// share returns a request's part of what was read, in bytes: what several have asked for is
// shared among them.
func (r *reading) share(of *backlogRequest) int {
	bytes := 0
	for _, name := range of.names {
		if b := r.rooms[backlogID{of.epoch, name}]; b != nil {
			bytes += b.bytes / max(b.asked, 1)
		}
	}
	return bytes
}

// awaited reports whether anybody waits for the answer to one of the requests.
func awaited(batch []*backlogRequest) bool {
	return slices.ContainsFunc(batch, func(r *backlogRequest) bool { return r.ctx.Err() == nil })
}

// What a read of backlogs moves in one call, and what the payloads that it holds for
// several requesters may take together, and the entries.
const (
	readBytes     = 1 << 20
	sharedBytes   = 16 << 20
	sharedEntries = sharedBytes / eventOverhead
)

//go:embed missed.lua
var missedSource string

var missedScript = goredis.NewScript(missedSource)

// readBacklogs reads rooms, each one more than can be replayed, and then looks
// whether the server is the primary still and the histories are there. What was read
// before an error is returned with it.
//
// Where large events are around it reads in parts, so that Redis does not keep others
// waiting and little is held that is not returned. If a backlog is trimmed between two
// parts, more entries than can be replayed are behind the gap, because trimming leaves
// more.
func (p *partition) readBacklogs(ctx context.Context, batch []*backlogRequest, from map[backlogID]adapter.Position) (*reading, error) {
	found := &reading{make(map[backlogID]*backlog, len(from)), "", make(map[string]bool, 1)}
	unread := make([]*backlog, 0, len(from))
	parsed := make(map[string][]*backlog, 1) // by epoch
	for at, after := range from {
		room, _ := parseName(at.name)
		b := &backlog{key: p.names.room(at.epoch, at.name), after: after, last: formatPosition(after), to: []rooms.Room{room}}
		unread, found.rooms[at], parsed[at.epoch] = append(unread, b), b, append(parsed[at.epoch], b)
	}
	hold, largest, most := 0, 0, 0
	for _, r := range batch {
		hold, largest = hold+r.hold, max(largest, r.hold)
		if most = max(r.most, 1); len(batch) > 1 {
			most = sharedEntries
		}
		for _, name := range r.names {
			found.rooms[backlogID{r.epoch, name}].asked++
		}
	}
	hold = max(min(hold, sharedBytes), largest)
	count := min(usuallyRead, (most-1)/max(len(unread), 1)+1)
	for first := true; first || len(unread) > 0; first = false {
		if !awaited(batch) {
			return found, context.Canceled
		}
		read, err := p.readPart(ctx, batch, found, unread, p.rangeable(len(unread), count, hold, first), hold)
		if err != nil {
			return found, err
		}
		hold, unread, count = p.addPart(unread, read, hold), read.rest, p.limit+1
		left := most - found.entries()
		if left < 0 && len(unread) > 0 {
			return found, errManyEntries
		}
		if len(unread) > 0 {
			count = min(count, (left-1)/len(unread)+1)
		}
	}
	for _, b := range found.rooms {
		b.whole = len(b.events)+len(b.broken) <= p.limit
	}
	for epoch, all := range parsed {
		if err := p.readLists(ctx, epoch, batch, all, most); err != nil {
			return found, err
		}
	}
	return found, nil
}

// manyEntries is how many entries a replay has before it waits for its turn.
const manyEntries = 8 << 10

var errManyEntries = errors.New("adapter/redis: many entries in the backlogs")

// entriesOf returns how many entries a request's part of what was read has.
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

// A piece is what one call has read of backlogs: of all of them by XRANGE, or of the first
// ones by the script.
type piece struct {
	ranges []*goredis.XMessageSliceCmd
	lists  []any      // of ids and events, or errors
	rest   []*backlog // those of which there is more
}

// How many entries of each backlog are read at first, as few have more; and the least that
// XRANGE is used for.
const (
	usuallyRead = 32
	fewRead     = 8
)

// rangeable returns how many entries of each backlog, at most count, can be read by XRANGE:
// it costs Redis less than a script does, but is not bounded by bytes. It is 0 if they
// may take much more than is held; at first, when there are few, they may be read in vain.
func (p *partition) rangeable(backlogs, count, hold int, first bool) int {
	largest := p.sizes.largest(p.life)
	if largest == 0 || backlogs == 0 { // nothing is known of their size
		return 0
	}
	count = min(count, p.limit+1)
	bytes := min(sharedBytes, 4*max(hold, 0))
	if first {
		bytes = max(bytes, readBytes)
	}
	if fit := bytes / backlogs / largest; fit < count {
		if count = fit; fit < fewRead {
			count = 0
		}
	}
	return count
}

// readPart reads as much of rooms as is read in one call: count entries of each, or, if
// that is 0, as many as may be large. It notes what the histories are afterwards.
func (p *partition) readPart(ctx context.Context, batch []*backlogRequest, found *reading, unread []*backlog, count, hold int) (read piece, err error) {
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
			case len(unread) == 0:
			case count > 0:
				for _, b := range unread {
					read.ranges = append(read.ranges, pipe.XRangeN(ctx, b.key, "("+b.last, "+", int64(count)))
				}
			default:
				keys, args := p.scriptArgs(unread, hold)
				script = run(ctx, pipe, keys, args...)
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
			if err := read.take(script, unread); err != nil {
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
		if b := unread[i]; len(cmd.Val()) == count && len(b.events)+len(b.broken)+count <= p.limit {
			read.rest = append(read.rest, b)
		}
	}
	found.epoch = epoch.Val()
	for e, clock := range clocks {
		found.clocks[e] = clock.Val() > 0
	}
	return read, nil
}

// scriptArgs returns the keys and arguments of the script for the rest of backlogs.
func (p *partition) scriptArgs(unread []*backlog, hold int) (keys []string, args []any) {
	largest := orDefault(p.sizes.largest(p.life), readBytes)
	keys, args = make([]string, 0, len(unread)), make([]any, 0, 3+2*len(unread))
	args = append(args, readBytes, max(hold, 0), max(1, min(usuallyRead, 4*readBytes/largest)))
	for _, b := range unread {
		keys = append(keys, b.key)
		args = append(args, p.limit+1-len(b.events)-len(b.broken), b.last)
	}
	return keys, args
}

// take takes what the script has read.
func (r *piece) take(script *goredis.Cmd, unread []*backlog) error {
	reply, err := script.Slice()
	switch {
	case err != nil:
		return err
	case len(reply) < 2 || len(reply) > len(unread)+1:
		return errMalformed
	}
	r.lists, r.rest = reply[1:], nil
	if reply[0] != "" {
		r.rest = unread[len(r.lists)-1:] // the last list goes on
	}
	for _, list := range r.lists {
		if err, ok := list.(error); ok && !isWrongType(err) {
			return err
		}
	}
	return nil
}

// addPart adds what was read to the backlogs, and returns how much more may be held.
func (p *partition) addPart(unread []*backlog, read piece, hold int) int {
	failed := func(b *backlog, err error) {
		p.stats.malformed.Add(1)
		b.failed = fmt.Errorf("%w: %w", adapter.ErrUndecodable, atKey(b.key, err))
	}
	for i, cmd := range read.ranges {
		if err := cmd.Err(); err != nil {
			failed(unread[i], err)
		}
		for _, m := range cmd.Val() {
			payload, _ := m.Values["e"].(string)
			hold -= p.parse(unread[i], m.ID, payload, hold)
		}
	}
	last := make(map[string]decoded) // by id
	for i, list := range read.lists {
		if err, ok := list.(error); ok {
			failed(unread[i], err)
		}
		b := unread[i]
		entries, _ := list.([]any)
		for pair := range slices.Chunk(entries, 2) {
			id, _ := pair[0].(string)
			switch event := pair[1].(type) {
			case int64:
				p.add(b, id, last[id].in(b))
				continue
			case []any:
				head, _ := event[0].(string)
				size, _ := event[1].(int64)
				last[id] = p.decodeHead(b, head, int(size))
			default:
				payload, _ := event.(string)
				last[id] = p.decode(b, payload, hold)
				hold -= last[id].held()
			}
			p.add(b, id, last[id])
		}
	}
	return hold
}

// entryBytes is what an entry of a stream takes on the wire beside its event, about.
const entryBytes = 48

// A decoded is an event as an entry of a backlog has it, or why it cannot be decoded.
type decoded struct {
	event  *adapter.Event
	listed bool
	err    error
	to     []rooms.Room // the room
}

// held returns the size of the payload that it has.
func (d decoded) held() int {
	if d.err != nil {
		return 0
	}
	return payloadSize(d.event)
}

// in returns the copy of the event in another backlog.
func (d decoded) in(b *backlog) decoded {
	switch {
	case d.event == nil && d.err == nil: // Redis has sent none
		d.err = errMalformed
	case d.err == nil:
		e := *d.event
		if &e.Target.To[0] == &d.to[0] { // otherwise it says itself what its rooms are
			e.Target.To = b.to
		}
		d.event, d.to = &e, b.to
	}
	return d
}

// parse adds an entry of a backlog to it. Its payload is left out if it is larger than hold;
// otherwise parse returns its size.
func (p *partition) parse(b *backlog, id, payload string, hold int) (held int) {
	d := p.decode(b, payload, hold)
	p.add(b, id, d)
	return d.held()
}

func (p *partition) decode(b *backlog, payload string, hold int) decoded {
	p.sizes.saw(len(payload))
	b.bytes += len(payload)
	e, listed, err := decodeStored(payload, b.to, hold)
	return decoded{e, listed, err, b.to}
}

// decodeHead decodes an event whose payload, of a size, Redis has left out.
func (p *partition) decodeHead(b *backlog, head string, size int) decoded {
	p.sizes.saw(len(head) + size)
	b.bytes += len(head)
	d, e := decoder{rest: head}, &adapter.Event{Omitted: uint32(size)}
	listed, err := d.head(e, b.to)
	if err == nil && (d.rest != "" || size <= 0) {
		err = errMalformed
	}
	return decoded{e, listed, err, b.to}
}

// add adds an entry to a backlog.
func (p *partition) add(b *backlog, id string, d decoded) {
	b.last = id
	b.bytes += entryBytes
	at, err := p.parsePosition(id)
	if err == nil {
		err = d.err
	}
	if err != nil {
		p.stats.malformed.Add(1)
		b.broken = append(b.broken, broken{at, fmt.Errorf("%w: the entry %s of a backlog", err, id)})
		return
	}
	d.event.Position = at
	b.events = append(b.events, d.event)
	if d.listed {
		b.listed = append(b.listed, d.event)
	}
}

// A listing is the lists of an event that are stored apart.
type listing struct {
	adapter.Event
	err  error
	size int // as Redis has sent it, for each of the copies
}

// readLists completes the events of backlogs whose lists are stored apart. Lists can be much
// larger than the events, so a few are read in a call, and more where they are small. If
// they are too large, those of the rooms with most of them are not read.
func (p *partition) readLists(ctx context.Context, epoch string, batch []*backlogRequest, all []*backlog, most int) error {
	copies := make(map[adapter.Position]int)
	var order []adapter.Position
	slices.SortFunc(all, func(a, b *backlog) int { return cmp.Compare(len(a.listed), len(b.listed)) })
	for _, b := range all {
		for _, e := range b.listed {
			if copies[e.Position]++; copies[e.Position] == 1 {
				order = append(order, e.Position)
			}
		}
	}
	found := make(map[adapter.Position]*listing, len(order))
	defer func() { // also if not all could be read
		for _, b := range all {
			for _, e := range b.listed {
				if l := found[e.Position]; l != nil {
					b.bytes += l.size
				}
			}
			b.listed = nil
		}
	}()
	for bytes, step := 0, fewRead; len(order) > 0; {
		switch {
		case !awaited(batch):
			return context.Canceled
		case bytes > min(sharedBytes/2, p.replay) && most < math.MaxInt:
			return errManyEntries
		}
		if bytes > p.replay {
			break
		}
		chunk := order[:min(len(order), step)]
		order = order[len(chunk):]
		read, err := p.readListings(ctx, epoch, chunk, found, copies)
		if err != nil {
			return err
		}
		bytes += read
		step = max(1, min(readRooms, len(chunk)*readBytes/max(read, 1)))
	}
	for _, b := range all {
		for _, e := range b.listed {
			l := found[e.Position]
			if l == nil {
				b.broken = append(b.broken, broken{e.Position, tooMuch(p.replay)})
				continue
			}
			e.Target.Except, e.Earlier = l.Target.Except, l.Earlier
			if l.err != nil {
				b.broken = append(b.broken, broken{e.Position, l.err})
			}
		}
	}
	return nil
}

// readListings reads the lists of some events, and returns their size.
func (p *partition) readListings(ctx context.Context, epoch string, list []adapter.Position, found map[adapter.Position]*listing, copies map[adapter.Position]int) (bytes int, err error) {
	key := p.names.in(epoch) + listsName
	asked := make([]*goredis.XMessageSliceCmd, len(list))
	err = p.read(ctx, func(ctx context.Context, c goredis.Cmdable) error {
		_, err := c.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
			for i, at := range list {
				id := formatPosition(at)
				asked[i] = pipe.XRangeN(ctx, key, id, id, 1)
			}
			return nil
		})
		if isWrongType(err) { // each event says so
			return nil
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for i, at := range list {
		l := new(listing)
		found[at] = l
		switch read := asked[i].Val(); {
		case asked[i].Err() != nil:
			l.err = fmt.Errorf("%w: %w", adapter.ErrUndecodable, atKey(key, asked[i].Err()))
		case len(read) == 0:
			l.err = fmt.Errorf("%w: the lists of the event at %s", adapter.ErrTrimmed, formatPosition(at))
		default:
			s, _ := read[0].Values["e"].(string)
			l.err = decodeLists(s, &l.Event)
			bytes += len(s)
			l.size = len(s) / copies[at]
		}
	}
	return bytes, nil
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

// missedBy returns the events after a position and up to another, and whether that
// can be told from this read: a shared one may begin so much earlier that it does
// not show how many there are.
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
