package redis

import (
	"context"
	"fmt"
	"slices"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// What one replay may hold, and how many rooms are read at a time.
const (
	replayBytes = 256 << 20
	readRooms   = 256
)

// missed returns the events of rooms after a position each and up to a common
// one, room by room. The error wraps adapter.ErrTrimmed where a room has lost
// some, and adapter.ErrHistoryLost where the history is not the current one.
//
// A read asks for one more than can be replayed, and not only up to the end:
// backlogs are trimmed by their length only, and kept longer than the limit, so
// no more than the limit after a position proves that none after it is gone.
func (p *partition) missed(ctx context.Context, epoch string, after map[string]adapter.Position, upTo adapter.Position) ([][]*adapter.Event, error) {
	var names []string
	for name, at := range after {
		if at.Compare(upTo) < 0 {
			if p.limit <= 0 {
				return nil, fmt.Errorf("%w: no backlogs are kept", adapter.ErrTrimmed)
			}
			names = append(names, name)
		}
	}
	var all [][]*adapter.Event
	bytes := 0
	for first := true; first || len(names) > 0; first = false { // with no room to read, too, the history must be there
		chunk := names[:min(len(names), readRooms)]
		names = names[len(chunk):]
		found, err := p.ask(ctx, epoch, chunk, after)
		if err != nil {
			return nil, err
		}
		for _, name := range chunk {
			key := p.names.room(epoch, name)
			events, known, err := found[key].missedBy(after[name], upTo, p.limit)
			if !known {
				events, err = p.missedAlone(ctx, epoch, name, after, upTo)
			}
			if err != nil {
				return nil, fmt.Errorf("%w in %s", err, name)
			}
			for _, e := range events {
				if bytes += eventSize(e); bytes > replayBytes {
					return nil, fmt.Errorf("%w: more than %d bytes", adapter.ErrTrimmed, replayBytes)
				}
			}
			all = append(all, events)
		}
	}
	return all, nil
}

// missedAlone reads one room for one reader.
func (p *partition) missedAlone(ctx context.Context, epoch, name string, after map[string]adapter.Position, upTo adapter.Position) ([]*adapter.Event, error) {
	key := p.names.room(epoch, name)
	found, err := p.readBacklogs(ctx, []*backlogRequest{{epoch: epoch}}, map[string]adapter.Position{key: after[name]})
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

// parseStored reads an entry of a backlog.
func (p *partition) parseStored(m goredis.XMessage) (*adapter.Event, error) {
	at, err := p.parsePosition(m.ID)
	payload, _ := m.Values["e"].(string)
	var e *adapter.Event
	if err == nil {
		e, err = decodeEvent(payload)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the entry %s of a backlog", err, m.ID)
	}
	e.Position = at
	return e, nil
}

// recent returns up to limit of a room's newest events before a position, and
// whether older ones are kept. The zero position is after all.
func (p *partition) recent(ctx context.Context, epoch, name string, before adapter.Position, limit int) (events []*adapter.Event, more bool, err error) {
	end := "+"
	if before.Ms > 0 {
		end = "(" + formatPosition(before)
	}
	limit = max(limit, 0)
	var read []goredis.XMessage
	err = p.read(ctx, func(ctx context.Context, c goredis.Cmdable) (err error) {
		read, err = c.XRevRangeN(ctx, p.names.in(epoch)+name, end, "-", int64(limit)+1).Result()
		return err
	})
	if err != nil {
		return nil, false, err
	}
	if len(read) > limit {
		read, more = read[:limit], true
	}
	for _, m := range slices.Backward(read) {
		e, err := p.parseStored(m)
		if err != nil {
			return nil, false, err
		}
		events = append(events, e)
	}
	return events, more, nil
}
