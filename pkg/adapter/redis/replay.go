package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// What one replay may hold, and how many rooms are read at a time.
const (
	replayBytes = 256 << 20
	readRooms   = 256
)

// smallLists is how long an event's lists may be, in bytes, to count for each of its
// copies. The copies share them, but to remember for which events they have been
// counted costs more.
const smallLists = 4 * roomSize

// missed is what was read of rooms: their events, room by room, and why those of
// some can't be had.
type missed struct {
	events [][]*adapter.Event
	broken map[string]error // by the room's name
}

// gaps returns why some events are missing, or nil.
func (m *missed) gaps() error {
	for name, err := range m.broken {
		return fmt.Errorf("%w in %s", err, name)
	}
	return nil
}

// missed returns the events of rooms after a position each and up to a common
// one. A room may be broken: the error wraps adapter.ErrTrimmed where it has lost
// some, and adapter.ErrUndecodable where one can't be decoded. That of all wraps
// adapter.ErrHistoryLost where the history is not the current one.
//
// A read asks for one more than can be replayed, and not only up to the end:
// backlogs are trimmed by their length only, and kept longer than the limit, so
// no more than the limit after a position proves that none after it is gone.
func (p *partition) missed(ctx context.Context, epoch string, after map[string]adapter.Position, upTo adapter.Position) (all missed, err error) {
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
	bytes := 0
	var listed map[adapter.Position]bool                        // nil in most cases
	for first := true; first || len(names) > 0; first = false { // with no room to read, too, the history must be there
		chunk := names[:min(len(names), readRooms)]
		names = names[len(chunk):]
		found, err := p.ask(ctx, epoch, chunk, after)
		if err != nil {
			return all, err
		}
		for _, name := range chunk {
			key := p.names.room(epoch, name)
			events, known, err := found[key].missedBy(after[name], upTo, p.limit)
			if !known {
				events, err = p.missedAlone(ctx, epoch, name, after, upTo)
			}
			switch {
			case errors.Is(err, adapter.ErrTrimmed), errors.Is(err, adapter.ErrUndecodable):
				if all.broken == nil {
					all.broken = make(map[string]error)
				}
				all.broken[name] = err
				continue
			case err != nil:
				return all, err
			}
			for _, e := range events {
				if size := listsSize(e); size <= smallLists {
					bytes += size
				} else if !listed[e.Position] {
					if listed == nil {
						listed = make(map[adapter.Position]bool)
					}
					listed[e.Position] = true
					bytes += size
				}
				if bytes += eventSize(e); bytes > replayBytes {
					return all, fmt.Errorf("%w: more than %d bytes", adapter.ErrTrimmed, replayBytes)
				}
			}
			all.events = append(all.events, events)
		}
	}
	return all, nil
}

// missedAlone reads one room for one reader.
func (p *partition) missedAlone(ctx context.Context, epoch, name string, after map[string]adapter.Position, upTo adapter.Position) ([]*adapter.Event, error) {
	key := p.names.room(epoch, name)
	found, err := p.readBacklogs(ctx, []*backlogRequest{{epoch: epoch}}, map[string]wanted{key: {epoch, name, after[name]}})
	if err == nil {
		err = found.stillThere(epoch)
	}
	if err != nil {
		return nil, err
	}
	events, _, err := found.rooms[key].missedBy(after[name], upTo, p.limit)
	return events, err
}

func eventSize(e *adapter.Event) int {
	size := eventOverhead + len(e.Data)
	for _, a := range e.Attachments {
		size += len(a)
	}
	return size
}

// listsSize is what the lists of an event cost in memory, about.
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

//go:embed page.lua
var pageSource string

var pageScript = goredis.NewScript(pageSource)

// recent returns a page of the newest events that are kept of a room, before a
// position unless that is the first, oldest first, and whether there are older ones.
// Redis sends what is returned and nothing more.
func (p *partition) recent(ctx context.Context, epoch, name string, before adapter.Position, page adapter.Page) (events []*adapter.Event, more bool, err error) {
	end := "+"
	if before.Ms > 0 {
		end = "(" + formatPosition(before)
	}
	var reply []string
	err = p.read(ctx, func(ctx context.Context, c goredis.Cmdable) (err error) {
		reply, err = pageScript.Run(ctx, c, []string{p.names.in(epoch) + name}, end, max(page.Events, 0), max(page.Bytes, 0)).StringSlice()
		return err
	})
	if isWrongType(err) {
		err = fmt.Errorf("%w: %w", adapter.ErrUndecodable, atKey(p.names.room(epoch, name), err))
	}
	if err != nil {
		return nil, false, err
	}
	if len(reply)%2 == 0 {
		return nil, false, errMalformed
	}
	read := make([]goredis.XMessage, 0, len(reply)/2)
	for pair := range slices.Chunk(reply[1:], 2) {
		read = append(read, goredis.XMessage{ID: pair[0], Values: map[string]any{"e": pair[1]}})
	}
	slices.Reverse(read)
	b := p.parseBacklog(name, read, before)
	if len(b.broken) > 0 {
		return nil, false, b.broken[0].err
	}
	return b.events, reply[0] != "", nil
}
