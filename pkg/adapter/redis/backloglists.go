package redis

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A listing holds the lists of an event that are stored separately.
type listing struct {
	except  []rooms.Room
	earlier []adapter.Copy
	err     error
	size    int // as sent by Redis, for each of the copies; 0 once it is charged
}

// listings are lists that have been read for one replay or catch-up, which reads each once. The
// requester and the reader of its request use them in turns.
type listings map[adapter.Position]*listing

// maxLists bounds the lists that are read for one replay, in all partitions, and for several in one
// read, in bytes.
const maxLists = 8 << 20

// readLists completes the events of backlogs whose lists are stored separately. Lists can be much
// larger than the events, so each call reads a few, or more if they are small. If they are too
// large, a catch-up skips the lists of the rooms with the most of them, and other reads fail.
func (p *partition) readLists(ctx context.Context, epoch string, paced *pacedRead, all []*backlog) error {
	batch := paced.batch
	maximum, had, waits := p.replay, new(atomic.Int64), false
	if one := batch[0]; one.lists != nil {
		maximum = min(maximum, maxLists)
		if len(batch) == 1 {
			had = one.lists
			if waits = !one.alone; waits {
				maximum = min(maximum, maxLists/4)
			}
		}
	}
	found := batch[0].kept
	if len(batch) > 1 || found == nil {
		found = make(listings)
		for _, r := range batch {
			if r.epoch == epoch {
				maps.Copy(found, r.kept)
			}
		}
	}
	copies := make(map[adapter.Position]int)
	var order []adapter.Position
	slices.SortFunc(all, func(a, b *backlog) int { return cmp.Compare(len(a.listed), len(b.listed)) })
	for _, b := range all {
		for _, e := range b.listed {
			if copies[e.Position]++; copies[e.Position] == 1 && found[e.Position] == nil {
				order = append(order, e.Position)
			}
		}
	}
	defer func() { // also if not all could be read
		for _, b := range all {
			for _, e := range b.listed {
				if l := found[e.Position]; l != nil {
					b.bytes += l.size
				}
			}
			b.listed = nil
		}
		for _, l := range found {
			l.size = 0
		}
	}()
	for size := 0; len(order) > 0; {
		if waits { // for its turn, rather than read slowly beside others
			maximum = min(maximum, paced.page())
		}
		if had.Load() > int64(maximum) {
			if batch[0].lists == nil {
				break
			}
			return errManyEntries
		}
		var chunk []adapter.Position
		read, calls := 0, 0
		err := paced.call(ctx, func(page int) (err error) {
			n := fewRead
			switch {
			case size > 0:
				n = min(readRooms, min(page, readBytes)/size)
			case page < sharedBytes: // one may be larger than a page
				n = 1
			}
			n = max(1, n>>(3*calls)) // other lists may be larger than those that were read
			chunk, calls = order[:min(len(order), n)], calls+1
			read, err = p.readListings(ctx, epoch, chunk, found, copies)
			return err
		})
		if err != nil {
			return err
		}
		order = order[len(chunk):]
		had.Add(int64(read))
		size = max(1, read/len(chunk))
	}
	for _, b := range all {
		for _, e := range b.listed {
			l := found[e.Position]
			if l == nil {
				b.broken = append(b.broken, broken{e.Position, tooMuch(p.replay)})
				continue
			}
			e.Target.Except, e.Earlier = l.except, l.earlier
			if l.err != nil {
				b.broken = append(b.broken, broken{e.Position, l.err})
			}
		}
	}
	return nil
}

// readListings reads the lists of some events, and returns their size.
func (p *partition) readListings(ctx context.Context, epoch string, list []adapter.Position, found listings, copies map[adapter.Position]int) (bytes int, err error) {
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
			l.err = fmt.Errorf("%w: lists of the event at %s", adapter.ErrTrimmed, formatPosition(at))
		default:
			s, _ := read[0].Values["e"].(string)
			var e adapter.Event
			l.err = decodeLists(s, &e)
			l.except, l.earlier = e.Target.Except, e.Earlier
			bytes += len(s)
			l.size = len(s) / copies[at]
		}
	}
	return bytes, nil
}
