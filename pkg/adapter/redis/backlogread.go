package redis

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Limits of the bytes that a read of backlogs moves in one call, and of the total payloads and
// entries that it holds for several requesters.
const (
	readBytes     = 1 << 20
	sharedBytes   = 16 << 20
	sharedEntries = sharedBytes / eventOverhead
)

//go:embed missed.lua
var missedSource string

var missedScript = goredis.NewScript(missedSource)

// readBacklogs reads rooms, each up to one entry more than can be replayed, and then checks that
// the server is still the primary and that the histories exist. Backlogs read before an error
// are returned with it.
//
// If there are large events it reads in parts, so that Redis does not delay other clients and
// little memory holds data that is not returned. If a backlog is trimmed between two parts, more
// entries than can be replayed follow the gap, because trimming leaves more.
func (p *partition) readBacklogs(ctx context.Context, batch []*backlogRequest, from map[backlogID]adapter.Position) (*reading, error) {
	found := &reading{rooms: make(map[backlogID]*backlog, len(from)), clocks: make(map[string]bool, 1)}
	unread := make([]*backlog, 0, len(from))
	parsed := make(map[string][]*backlog, 1) // by epoch
	for at, after := range from {
		room, _ := parseName(at.name)
		b := &backlog{key: p.names.room(at.epoch, at.name), after: after, last: formatPosition(after), to: []rooms.Room{room}}
		unread, found.rooms[at], parsed[at.epoch] = append(unread, b), b, append(parsed[at.epoch], b)
	}
	defer found.weigh(batch)
	paced := pacedRead{pace: &p.pace, batch: batch}
	defer paced.end()
	hold, largest, maximum := 0, 0, 0
	for _, r := range batch {
		hold, largest = hold+r.hold, max(largest, r.hold)
		if maximum = max(r.most, 1); len(batch) > 1 {
			maximum = sharedEntries
		}
	}
	hold = max(min(hold, sharedBytes), largest)
	count := min(usuallyRead, (maximum-1)/max(len(unread), 1)+1)
	for first := true; first || len(unread) > 0; first = false {
		var read piece
		err := paced.call(ctx, func(page int) (err error) {
			read, err = p.readPart(ctx, batch, found, unread, p.rangeable(len(unread), count, hold, page, first), hold, page)
			return err
		})
		if err != nil {
			return found, err
		}
		hold, unread, count = p.addPart(unread, read, hold), read.rest, p.limit+1
		left := maximum - found.entries()
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
		if err := p.readLists(ctx, epoch, &paced, all); err != nil {
			return found, err
		}
	}
	return found, nil
}

// A piece is the result of one call that reads backlogs: parts of all of them with XRANGE, or of
// the first ones with the script.
type piece struct {
	ranges []*goredis.XMessageSliceCmd
	lists  []any      // of ids and events, or errors
	rest   []*backlog // backlogs with more entries
}

// The number of entries of each backlog that are read at first, because few have more; and the
// minimum for XRANGE.
const (
	usuallyRead = 32
	fewRead     = 8
)

// rangeable returns how many entries of each backlog, at most count, can be read with XRANGE: it
// costs Redis less than a script, but is not bounded in bytes. The result is 0 if the entries may
// take much more than is held, or than a page; at first, when there are few, the read may be wasted.
func (p *partition) rangeable(backlogs, count, hold, page int, first bool) int {
	largest := p.sizes.largest(p.life)
	if largest == 0 || backlogs == 0 { // their size is unknown
		return 0
	}
	count = min(count, p.limit+1)
	bytes := 4 * max(hold, 0)
	if first {
		bytes = max(bytes, p.tried)
	}
	bytes = min(bytes, page)
	if fit := bytes / backlogs / largest; fit < count {
		if count = fit; fit < fewRead {
			count = 0
		}
	}
	return count
}

// readPart reads as much of rooms as fits in one call: count entries of each, or, if that is 0, as
// many as may be large and fit in a page. It notes the state of the histories, and the time, afterwards.
func (p *partition) readPart(ctx context.Context, batch []*backlogRequest, found *reading, unread []*backlog, count, hold, page int) (read piece, err error) {
	clocks := make(map[string]*goredis.IntCmd, 1)
	var script, role *goredis.Cmd
	var epoch *goredis.StringCmd
	var now *goredis.TimeCmd
	run := missedScript.EvalSha
	once := func(ctx context.Context, c goredis.Cmdable) error {
		// In this order, but not in a transaction: that would delay all other clients.
		read.ranges = read.ranges[:0]
		_, err := c.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
			switch {
			case len(unread) == 0:
			case count > 0:
				for _, b := range unread {
					read.ranges = append(read.ranges, pipe.XRangeN(ctx, b.key, "("+b.last, "+", int64(count)))
				}
			default:
				keys, args := p.scriptArgs(unread, hold, page)
				script = run(ctx, pipe, keys, args...)
			}
			role = p.askRole(ctx, pipe)
			epoch = pipe.Get(ctx, p.names.epoch())
			now = pipe.Time(ctx)
			for _, r := range batch {
				clocks[r.epoch] = pipe.Exists(ctx, p.names.clock(r.epoch))
			}
			return nil
		})
		if err != nil && !isReply(err) {
			return err
		}
		for _, cmd := range read.ranges {
			if err := cmd.Err(); err != nil && !isWrongType(err) { // it fails alone
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
		return now.Err()
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
	found.epoch, found.kept = epoch.Val(), now.Val().Add(-p.cursorTTL())
	for e, clock := range clocks {
		found.clocks[e] = clock.Val() > 0
	}
	return read, nil
}

// scriptArgs returns the keys and arguments of the script for a page of the rest of backlogs.
func (p *partition) scriptArgs(unread []*backlog, hold, page int) (keys []string, args []any) {
	largest := cmp.Or(p.sizes.largest(p.life), readBytes)
	keys, args = make([]string, 0, len(unread)), make([]any, 0, 4+2*len(unread))
	page = min(page, readBytes)
	args = append(args, page, max(hold, 0), max(1, min(usuallyRead, 4*page/largest)), maxListed)
	for _, b := range unread {
		keys = append(keys, b.key)
		args = append(args, p.limit+1-len(b.events)-len(b.broken), b.last)
	}
	return keys, args
}

// take processes the script's result.
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
		r.rest = unread[len(r.lists)-1:] // the last list continues
	}
	for _, list := range r.lists {
		if err, ok := list.(error); ok && !isWrongType(err) {
			return err
		}
	}
	return nil
}

// addPart adds the result of a read to the backlogs, and returns how much more may be held.
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

// entryBytes is the approximate size of a stream's entry on the wire without its event.
const entryBytes = 48
