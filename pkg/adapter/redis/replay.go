package redis

import (
	"context"
	"errors"
	"fmt"
	"iter"

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
				e, size, err := parseStored(epoch, m)
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
		_, err := c.TxPipelined(ctx, func(tx goredis.Pipeliner) error {
			current = tx.Get(ctx, p.names.epoch())
			clock = tx.Exists(ctx, p.names.clock(epoch))
			return nil
		})
		if errors.Is(err, goredis.Nil) {
			err = nil
		}
		return err
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
func parseStored(epoch string, m goredis.XMessage) (*adapter.Event, int, error) {
	at, err := parsePosition(m.ID)
	payload, _ := m.Values["e"].(string)
	var e *adapter.Event
	if err == nil {
		e, err = decodeEvent(payload)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%w: the entry %s of a backlog", err, m.ID)
	}
	e.Position, e.Cursor = at, adapter.Cursor{Epoch: epoch, At: at}
	return e, eventOverhead + len(payload), nil
}

func (p *partition) replay(ctx context.Context, after map[string]adapter.Cursor, upTo adapter.Cursor) iter.Seq2[adapter.Event, error] {
	return func(yield func(adapter.Event, error) bool) {
		missed, err := p.replayed(ctx, after, upTo)
		if err != nil {
			yield(adapter.Event{}, fmt.Errorf("adapter/redis: replay: %w", err))
			return
		}
		for e := range adapter.Merge(missed) {
			if !yield(*e, nil) {
				return
			}
		}
	}
}

func (p *partition) replayed(ctx context.Context, after map[string]adapter.Cursor, upTo adapter.Cursor) ([][]*adapter.Event, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	epoch, _, err := p.where(ctx)
	if err != nil {
		return nil, err
	}
	if upTo.Epoch != epoch {
		return nil, fmt.Errorf("%w: cursor %s is not of the history %s", adapter.ErrHistoryLost, upTo, epoch)
	}
	positions := make(map[string]adapter.Position, len(after))
	for name, c := range after {
		if c.Epoch != epoch {
			return nil, fmt.Errorf("%w: cursor %s is not of the history %s", adapter.ErrHistoryLost, c, epoch)
		}
		positions[name] = c.At
	}
	return p.missed(ctx, epoch, positions, upTo.At)
}

func (p *partition) recent(ctx context.Context, name string, before adapter.Cursor, limit int) (events []adapter.Event, more bool, err error) {
	seen, err := p.head(ctx)
	if err != nil {
		return nil, false, err
	}
	end := "+"
	if !before.IsZero() {
		if before.Epoch != seen.Epoch {
			return nil, false, fmt.Errorf("%w: cursor %s is not of the history %s", adapter.ErrHistoryLost, before, seen.Epoch)
		}
		end = "(" + formatPosition(before.At)
	}
	var read []goredis.XMessage
	err = p.read(ctx, func(ctx context.Context, c goredis.Cmdable) (err error) {
		read, err = c.XRevRangeN(ctx, p.names.in(seen.Epoch)+name, end, "-", int64(max(limit, 0))+1).Result()
		return err
	})
	if err != nil {
		return nil, false, err
	}
	if limit = max(limit, 0); len(read) > limit {
		read, more = read[:limit], true
	}
	events = make([]adapter.Event, len(read))
	for i, m := range read {
		e, _, err := parseStored(seen.Epoch, m)
		if err != nil {
			return nil, false, err
		}
		events[len(read)-1-i] = *e
	}
	return events, more, nil
}
