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
	for len(names) > 0 {
		n := min(len(names), readRooms)
		rooms, err := p.readRooms(ctx, epoch, names[:n], after)
		if err != nil {
			return nil, err
		}
		for i, read := range rooms {
			if len(read) > p.limit {
				return nil, fmt.Errorf("%w: more than %d events in %s", adapter.ErrTrimmed, p.limit, names[i])
			}
			var events []*adapter.Event
			for _, m := range read {
				e, size, err := p.parseStored(m)
				if err != nil {
					return nil, err
				}
				if upTo.Compare(e.Position) < 0 {
					break
				}
				if bytes += size; bytes > replayBytes {
					return nil, fmt.Errorf("%w: more than %d bytes", adapter.ErrTrimmed, replayBytes)
				}
				events = append(events, e)
			}
			all = append(all, events)
		}
		names = names[n:]
	}
	return all, p.stillThere(ctx, epoch)
}

func (p *partition) readRooms(ctx context.Context, epoch string, names []string, after map[string]adapter.Position) (rooms [][]goredis.XMessage, err error) {
	err = p.read(ctx, func(ctx context.Context, c goredis.Cmdable) error {
		reads := make([]*goredis.XMessageSliceCmd, len(names))
		_, err := c.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
			for i, name := range names {
				reads[i] = pipe.XRangeN(ctx, p.names.in(epoch)+name, "("+formatPosition(after[name]), "+", int64(p.limit)+1)
			}
			return nil
		})
		rooms = rooms[:0]
		for _, r := range reads {
			rooms = append(rooms, r.Val())
		}
		return err
	})
	return rooms, err
}

// stillThere makes sure, after a read, that what was not found is not missing
// because everything is.
func (p *partition) stillThere(ctx context.Context, epoch string) error {
	var current *goredis.StringCmd
	var clock *goredis.IntCmd
	err := p.read(ctx, func(ctx context.Context, c goredis.Cmdable) error {
		return atPrimary(ctx, c, func(tx goredis.Pipeliner) {
			current = tx.Get(ctx, p.names.epoch())
			clock = tx.Exists(ctx, p.names.clock(epoch))
		})
	})
	if err != nil {
		return err
	}
	if current.Val() != epoch || clock.Val() == 0 {
		return fmt.Errorf("%w: %s is not the current history", adapter.ErrHistoryLost, epoch)
	}
	return nil
}

// parseStored reads an entry of a backlog.
func (p *partition) parseStored(m goredis.XMessage) (*adapter.Event, int, error) {
	at, err := p.parsePosition(m.ID)
	payload, _ := m.Values["e"].(string)
	var e *adapter.Event
	if err == nil {
		e, err = decodeEvent(payload)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%w: the entry %s of a backlog", err, m.ID)
	}
	e.Position = at
	return e, eventOverhead + len(payload), nil
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
		e, _, err := p.parseStored(m)
		if err != nil {
			return nil, false, err
		}
		events = append(events, e)
	}
	return events, more, nil
}
