package adapter

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Replay implements [Adapter].
func (ps *Partitions) Replay(ctx context.Context, after map[rooms.Room]Cursor, upTo Cursor, payload int) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		missed, from, err := ps.missed(ctx, after, upTo, payload)
		if err != nil {
			yield(Event{}, fmt.Errorf("adapter: replay: %w", err))
			return
		}
		progress, held := NewProgress(from), 0
		for shared := range Merge(missed) {
			e := *shared
			e.Cursor, e.copies = progress.To(e.Position), 0
			if size := e.payload(); payload > 0 && held+size > payload { // each partition has held that much
				e.Data, e.Attachments, e.Omitted = nil, nil, uint32(size)
			} else {
				held += size
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// missed returns the events of a replay, room by room, and where it begins: in each partition where
// the first of its rooms begins, or at the end if it has none.
func (ps *Partitions) missed(ctx context.Context, after map[rooms.Room]Cursor, upTo Cursor, payload int) (events [][]*Event, from Cursor, err error) {
	begin, err := ps.in(ctx, upTo)
	if err != nil {
		return nil, from, err
	}
	end := slices.Clone(begin)
	asked := make([][]Place, len(end))
	for r, c := range after {
		if err := sameHistory(c, upTo); err != nil {
			return nil, from, err
		}
		i := ps.home(r)
		if asked[i] == nil {
			asked[i] = make([]Place, 0, len(after)/len(end)+1)
		}
		asked[i] = append(asked[i], Place{Room: r, At: c.In(i)})
		if c.In(i).Compare(begin[i].At) < 0 {
			begin[i].At = c.In(i)
		}
	}
	read := make([][][]*Event, len(end))
	err = ps.each(func(i int, p Partition) (err error) {
		hold := payload
		if payload > 0 { // a partition may hold its rooms' share
			hold = max(payload*len(asked[i])/max(len(after), 1), 1)
		}
		read[i], err = p.Missed(ctx, asked[i], end[i], hold)
		return err
	})
	return slices.Concat(read...), combine(0, begin), err
}

// in returns a cursor's part in each partition, whose current history it must be of.
func (ps *Partitions) in(ctx context.Context, c Cursor) ([]Cursor, error) {
	parts, err := ps.seen(ctx)
	if err == nil {
		err = sameHistory(c, combine(0, parts))
	}
	if err != nil {
		return nil, err
	}
	for i := range parts {
		parts[i].At = c.In(uint16(i))
	}
	return parts, nil
}

// Fetch implements [Adapter].
func (ps *Partitions) Fetch(ctx context.Context, history Cursor, places []Place) (events []Event, err error) {
	defer locate("fetch", &err)
	in, err := ps.in(ctx, history)
	if err != nil {
		return nil, err
	}
	asked, fetched := make([][]Place, len(in)), make([][]*Event, len(in))
	for _, place := range places {
		i := ps.home(place.Room)
		asked[i] = append(asked[i], place)
	}
	err = ps.each(func(i int, p Partition) (err error) {
		if len(asked[i]) > 0 {
			fetched[i], err = p.Fetch(ctx, in[i], asked[i])
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	events = make([]Event, len(places))
	for j, place := range places {
		i := ps.home(place.Room)
		events[j] = *fetched[i][0]
		events[j].copies = 0
		fetched[i] = fetched[i][1:]
	}
	return events, nil
}

// History implements [Adapter].
func (ps *Partitions) History(ctx context.Context, room rooms.Room, page Page) (events []Event, more bool, err error) {
	defer locate("history", &err)
	now := page.UpTo // with which the partition compares its history
	if now.IsZero() {
		if now, err = ps.Head(ctx); err != nil {
			return nil, false, err
		}
	}
	in, err := ps.in(ctx, now)
	if err != nil {
		return nil, false, err
	}
	i := ps.home(room)
	for _, c := range []*Cursor{&page.Before, &page.UpTo, &page.After} {
		if c.IsZero() {
			continue
		}
		if err := sameHistory(*c, now); err != nil {
			return nil, false, err
		}
		*c = Cursor{Epoch: in[i].Epoch, At: c.In(i)}
	}
	kept, more, err := ps.of.Partitions[i].History(ctx, room, page)
	positions := make([]Position, len(ps.of.Partitions)) // it says nothing about other partitions
	for _, shared := range kept {
		e := *shared
		positions[i] = e.Position
		e.Cursor, e.copies = NewCursor(now.Epoch, i, positions), 0
		events = append(events, e)
	}
	return events, more, err
}

// locate adds to an error where it occurred.
func locate(where string, err *error) {
	if *err != nil {
		*err = fmt.Errorf("adapter: %s: %w", where, *err)
	}
}
