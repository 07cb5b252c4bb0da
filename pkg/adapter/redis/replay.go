package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// readRooms is the number of rooms that are read at a time.
const readRooms = 256

// smallLists is the size, in bytes, up to which an event's lists count for each of its copies. The
// copies share them, but remembering which events have been counted costs more.
const smallLists = 4 * roomSize

// missed is the result of reading rooms: their events, room by room, and the errors of rooms
// whose events cannot be returned.
type missed struct {
	events [][]*adapter.Event
	broken map[string]error // by the room's name
}

// gaps returns the reason if some events are missing, or nil.
func (m *missed) gaps() error {
	for name, err := range m.broken {
		return fmt.Errorf("%w in %s", err, name)
	}
	return nil
}

// breaks records the error of a room whose events cannot be returned.
func (m *missed) breaks(name string, err error) {
	if m.broken == nil {
		m.broken = make(map[string]error)
	}
	m.broken[name] = err
}

// lose records that the events of some rooms are too large.
func (m *missed) lose(names []string, maximum int) {
	for _, name := range names {
		m.breaks(name, tooMuch(maximum))
	}
}

// missed returns the events of rooms after a position each and up to a common one. A room may be
// broken: its error wraps adapter.ErrTrimmed if it has lost some, and adapter.ErrUndecodable if one
// cannot be decoded. The error of the whole call wraps adapter.ErrHistoryLost if the history is not
// the current one.
//
// A read requests one more event than can be replayed, and does not stop at the end. Backlogs are
// trimmed by their length only, and kept longer than the limit. So at most limit events after a
// position prove that none after it is lost.
//
// payload is the maximum total size of the payloads, in bytes. Events beyond it come without
// theirs; 0 means no maximum. If there are many events it waits for its turn.
func (p *partition) missed(ctx context.Context, epoch string, after map[string]adapter.Position, upTo adapter.Position, payload int, turn *turn) (all missed, err error) {
	names := make([]string, 0, len(after))
	for name, at := range after {
		if at.Compare(upTo) < 0 {
			if p.limit <= 0 {
				return all, fmt.Errorf("%w: no backlogs are kept", adapter.ErrTrimmed)
			}
			names = append(names, name)
		}
	}
	all.events = make([][]*adapter.Event, 0, len(names))
	hold := payload
	if payload == 0 {
		hold = p.replay
	}
	bytes, held, entries := 0, 0, 0
	var kept map[adapter.Position]bool // events whose payload is held, as that of one copy
	if payload > 0 && len(names) > 1 {
		kept = make(map[adapter.Position]bool)
	}
	read := reread{most: hold}           // of a catch-up
	var listed map[adapter.Position]bool // nil in most cases
	lists := make(listings)
	for first := true; first || len(names) > 0; first = false { // even without rooms to read, the history must exist
		chunk := names[:min(len(names), readRooms)]
		names = names[len(chunk):]
		left := hold
		if payload > 0 {
			left -= held
		} else {
			left = max(hold-read.bytes, hold/4) // rooms are given up down to three quarters
		}
		found, err := p.inTurn(ctx, turn, entries, backlogRequest{epoch: epoch, names: chunk, after: after, hold: left, kept: lists})
		if err != nil {
			return all, err
		}
		for _, name := range chunk {
			events, known, err := found[backlogID{epoch, name}].missedBy(after[name], upTo, p.limit)
			if !known {
				events, err = p.missedAlone(ctx, epoch, name, after, upTo, left, lists, turn == nil)
			}
			if turn == nil && err == nil && slices.ContainsFunc(events, omitted) { // omitted because other rooms have taken the space
				if events, err = p.missedAlone(ctx, epoch, name, after, upTo, hold, lists, true); err == nil && slices.ContainsFunc(events, omitted) {
					err = tooMuch(hold)
				}
			}
			switch {
			case errors.Is(err, adapter.ErrTrimmed), errors.Is(err, adapter.ErrUndecodable):
				all.breaks(name, err)
				continue
			case err != nil:
				return all, err
			}
			if turn == nil {
				all.lose(read.add(name, events), hold)
				continue
			}
			shared := true
			for i, e := range events {
				if size := payloadSize(e); kept[e.Position] || e.Omitted == 0 && held+size <= hold {
					if !kept[e.Position] {
						held += size
					}
					if kept != nil {
						kept[e.Position] = true
					}
				} else if payload == 0 {
					return all, tooMuch(p.replay)
				} else if e.Omitted == 0 {
					if shared {
						events, shared = slices.Clone(events), false
					}
					e = found[backlogID{epoch, name}].omit(e)
					events[i] = e
				}
				if size := listsSize(e); size <= smallLists {
					bytes += size
				} else if !listed[e.Position] {
					if listed == nil {
						listed = make(map[adapter.Position]bool)
					}
					listed[e.Position] = true
					bytes += size
					if lists[e.Position] == nil { // read for others as well
						lists[e.Position] = &listing{except: e.Target.Except, earlier: e.Earlier}
					}
				}
				if bytes += eventSize(e); bytes > p.replay {
					return all, tooMuch(p.replay)
				}
			}
			all.events = append(all.events, events)
			entries += len(events)
			if turn.count(len(events)) > p.entries {
				return all, p.tooMany()
			}
		}
		if turn == nil { // those of rooms that were given up are not held
			maps.DeleteFunc(lists, func(at adapter.Position, _ *listing) bool { return read.shared[at] == nil })
		}
		if bytes > manyEntries*eventOverhead {
			if err := turn.take(ctx, p.ctx); err != nil {
				return all, err
			}
		}
	}
	if turn == nil {
		all.events = read.events()
	}
	return all, nil
}

// inTurn executes a request of a replay that has read some entries in this partition. If there are
// many it waits for the replay's turn.
func (p *partition) inTurn(ctx context.Context, turn *turn, entries int, r backlogRequest) (map[backlogID]*backlog, error) {
	if turn == nil { // a catch-up
		r.most, r.alone, r.catchUp = math.MaxInt, true, true
		return p.ask(ctx, &r)
	}
	r.lists, r.alone = &turn.lists, turn.taken()
	if r.most = p.entries - turn.entries(); !r.alone {
		r.most = min(r.most, manyEntries-entries)
	}
	found, err := p.ask(ctx, &r)
	if errors.Is(err, errManyEntries) && !r.alone {
		if err = turn.take(ctx, p.ctx); err == nil {
			r.most, r.alone = p.entries-turn.entries(), true
			found, err = p.ask(ctx, &r)
		}
	}
	if errors.Is(err, errManyEntries) {
		err = p.tooMany()
	}
	return found, err
}

// tooMany returns the error of a replay that exceeds the limits of its reads.
func (p *partition) tooMany() error {
	return fmt.Errorf("%w: more than %d entries, or lists of more than %d bytes", adapter.ErrTooMany, p.entries, min(maxLists, p.replay))
}

func omitted(e *adapter.Event) bool { return e.Omitted > 0 }

func tooMuch(maximum int) error {
	return fmt.Errorf("%w: more than %d bytes", adapter.ErrTrimmed, maximum)
}

// omit returns an event without its payload.
func omit(e *adapter.Event) *adapter.Event {
	bare := *e
	bare.From, bare.Ask = adapter.NodeID(strings.Clone(string(e.From))), strings.Clone(e.Ask)
	bare.Data, bare.Attachments, bare.Omitted = nil, nil, uint32(payloadSize(e))
	return &bare
}

// missedAlone reads one room for one request.
func (p *partition) missedAlone(ctx context.Context, epoch, name string, after map[string]adapter.Position, upTo adapter.Position, hold int, lists listings, catchUp bool) ([]*adapter.Event, error) {
	found, err := p.readAlone(ctx, &backlogRequest{ctx: ctx, epoch: epoch, names: []string{name}, after: after, hold: hold, most: math.MaxInt, kept: lists, catchUp: catchUp})
	if err != nil {
		return nil, err
	}
	events, _, err := found[backlogID{epoch, name}].missedBy(after[name], upTo, p.limit)
	return events, err
}

func eventSize(e *adapter.Event) int { return eventOverhead + payloadSize(e) }

func payloadSize(e *adapter.Event) int {
	size := len(e.Data)
	for _, a := range e.Attachments {
		size += len(a)
	}
	return size
}

// listsSize is the approximate memory of an event's lists.
func listsSize(e *adapter.Event) int {
	n := roomsSize(e.Target.Except)
	for _, c := range e.Earlier {
		n += roomsSize(c.To)
	}
	return n
}

func roomsSize(list []rooms.Room) int {
	n := roomSize * len(list)
	for i := range list {
		n += len(list[i].Name)
	}
	return n
}

// Fetch reads single events.
func (p *partition) Fetch(ctx context.Context, history adapter.Cursor, places []adapter.Place) ([]*adapter.Event, error) {
	return await(ctx, p, func() ([]*adapter.Event, error) { return p.fetch(ctx, history.Epoch, places) })
}

func (p *partition) fetch(ctx context.Context, epoch string, places []adapter.Place) ([]*adapter.Event, error) {
	key := func(i int) string { return p.names.room(epoch, name(places[i].Room)) }
	reads := make([]*goredis.XMessageSliceCmd, len(places))
	err := p.read(ctx, func(ctx context.Context, c goredis.Cmdable) error {
		var role *goredis.Cmd
		var current *goredis.StringCmd
		_, err := c.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
			for i, place := range places {
				id := formatPosition(place.At)
				reads[i] = pipe.XRangeN(ctx, key(i), id, id, 1)
			}
			role = p.askRole(ctx, pipe)
			current = pipe.Get(ctx, p.names.epoch())
			return nil
		})
		if err != nil && !isReply(err) {
			return err
		}
		for i, read := range reads {
			if err := read.Err(); err != nil {
				return atKey(key(i), err)
			}
		}
		if err := isPrimary(role); err != nil {
			return err
		}
		if current.Val() != epoch {
			return fmt.Errorf("%w: %s is not the current history", adapter.ErrHistoryLost, epoch)
		}
		return nil
	})
	if isWrongType(err) {
		err = fmt.Errorf("%w: %w", adapter.ErrUndecodable, err)
	}
	if err != nil {
		return nil, err
	}
	bytes := 0
	defer func() { adapter.CountRead(ctx, bytes) }()
	events := make([]*adapter.Event, len(places))
	for i, place := range places {
		read := reads[i].Val()
		if len(read) == 0 {
			return nil, fmt.Errorf("%w: event at %s in %s", adapter.ErrTrimmed, formatPosition(place.At), name(place.Room))
		}
		payload, _ := read[0].Values["e"].(string)
		bytes += len(payload) + entryBytes
		found, _, err := decodeEvent(payload, []rooms.Room{place.Room}, math.MaxInt)
		if err != nil {
			p.stats.malformed.Add(1)
			return nil, fmt.Errorf("%w: event at %s in %s", err, formatPosition(place.At), name(place.Room))
		}
		found.Position = place.At
		events[i] = found
	}
	return events, nil
}
