package redis

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A listing holds the lists of an event that are stored separately.
type listing struct {
	adapter.Event
	err  error
	size int // as sent by Redis, for each of the copies
}

// mostLists bounds the lists that are read for one replay, in all partitions, and for several in one
// read, in bytes.
const mostLists = 8 << 20

// readLists completes the events of backlogs whose lists are stored separately. Lists can be much
// larger than the events, so each call reads a few, or more if they are small. If they are too
// large, a catch-up skips the lists of the rooms with the most of them, and other reads fail.
func (p *partition) readLists(ctx context.Context, epoch string, batch []*backlogRequest, all []*backlog) error {
	most, had := p.replay, new(atomic.Int64)
	if one := batch[0]; one.lists != nil {
		most = min(most, mostLists)
		if len(batch) == 1 {
			had = one.lists
			if !one.alone {
				most = min(most, mostLists/4)
			}
		}
	}
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
	for step, bytes := fewRead, 0; len(order) > 0; {
		tooMany := had.Load() > int64(most)
		switch {
		case !awaited(batch):
			return context.Canceled
		case tooMany && batch[0].lists != nil:
			if !batch[0].alone { // it will be read again
				had.Add(-int64(bytes))
			}
			return errManyEntries
		}
		if tooMany {
			break
		}
		chunk := order[:min(len(order), step)]
		order = order[len(chunk):]
		read, err := p.readListings(ctx, epoch, chunk, found, copies)
		if err != nil {
			return err
		}
		bytes += read
		had.Add(int64(read))
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
		if isWrongType(err) { // each event reports it
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
