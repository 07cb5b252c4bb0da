package adapter

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A Composition says what [Partitions] consist of.
type Composition struct {
	Node       NodeID
	Partitions []Partition // 1 to MaxPartitions, each at the index that its positions name
	// Key returns a string that identifies a room. It determines the room's partition, see [Home], so
	// it must be the same on all nodes.
	Key func(rooms.Room) string
	// Next returns the next item of the feeds of all partitions. The items of each are in order. It
	// is called as Adapter.Next is, and returns when ctx or the adapter ends.
	Next func(ctx context.Context) (Item, error)
}

// Partitions are the part of an [Adapter] that concerns the order of events: everything but the
// nodes and their messages. They distribute each call over the partitions of its rooms, and combine
// the results. They are for implementations, which embed them.
type Partitions struct {
	of Composition

	// Used by Next only.
	onProgress func(Cursor)
	progress   *Progress
	epochs     []string
}

// Compose composes partitions, whose feeds begin at what Seen returns.
func Compose(ctx context.Context, c Composition) (*Partitions, error) {
	ps := &Partitions{of: c}
	begin := make([]Cursor, len(c.Partitions))
	err := ps.each(func(i int, p Partition) (err error) {
		begin[i], err = p.Seen(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	ps.progress = NewProgress(combine(0, begin))
	for _, at := range begin {
		ps.epochs = append(ps.epochs, at.Epoch)
	}
	return ps, nil
}

// each calls f concurrently for every partition, and returns when all calls have.
func (ps *Partitions) each(f func(i int, p Partition) error) error {
	list := ps.of.Partitions
	if len(list) == 1 {
		return f(0, list[0])
	}
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, p := range list {
		all.Go(func() { errs[i] = f(i, p) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// home returns the partition of a room.
func (ps *Partitions) home(r rooms.Room) uint16 {
	if len(ps.of.Partitions) == 1 {
		return 0
	}
	return Home(ps.of.Key(r), len(ps.of.Partitions))
}

// Home returns the partition of the room with a key, from 0 to partitions-1. partitions must be at
// least 1. The adapters of this module share it; other programs do not need it.
func Home(key string, partitions int) uint16 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return uint16(h.Sum32() % uint32(partitions))
}

// split returns the rooms of each partition. Their order is unchanged, and duplicates are kept.
func (ps *Partitions) split(list []rooms.Room) [][]rooms.Room {
	if len(ps.of.Partitions) == 1 {
		return [][]rooms.Room{list}
	}
	parts := make([][]rooms.Room, len(ps.of.Partitions))
	for _, r := range list {
		i := ps.home(r)
		parts[i] = append(parts[i], r)
	}
	return parts
}

// distinct returns rooms without duplicates.
func distinct(list []rooms.Room) []rooms.Room {
	if len(list) < 2 {
		return list
	}
	seen := make(roomSet, len(list))
	return slices.DeleteFunc(slices.Clone(list), func(r rooms.Room) bool {
		_, duplicate := seen[r]
		seen[r] = struct{}{}
		return duplicate
	})
}

// seen returns what each partition has seen.
func (ps *Partitions) seen(ctx context.Context) ([]Cursor, error) {
	at := make([]Cursor, len(ps.of.Partitions))
	for i, p := range ps.of.Partitions {
		var err error
		if at[i], err = p.Seen(ctx); err != nil {
			return nil, err
		}
	}
	return at, nil
}

// combine returns the union of a cursor of each partition. Its At is that of a partition.
func combine(at uint16, of []Cursor) Cursor {
	if len(of) == 1 {
		return of[0]
	}
	epochs, positions := make([]string, len(of)), make([]Position, len(of))
	for i, c := range of {
		epochs[i], positions[i] = c.Epoch, c.At
	}
	return NewCursor(CombineEpochs(epochs), at, positions)
}

// newest is combine for the newest of the positions.
func newest(of []Cursor) Cursor {
	at := 0
	for i, c := range of {
		if c.At.Compare(of[at].At) > 0 {
			at = i
		}
	}
	return combine(uint16(at), of)
}

// CombineEpochs combines the epochs of all partitions into one: when one of them loses its history,
// the cluster has a new one.
func CombineEpochs(epochs []string) string {
	if len(epochs) == 1 {
		return epochs[0]
	}
	sum := sha256.Sum256([]byte(strings.Join(epochs, ",")))
	return base32.StdEncoding.EncodeToString(sum[:5])
}

func sameHistory(c, current Cursor) error {
	if !c.SameHistory(current) {
		return fmt.Errorf("%w: cursor %s is not of the history %s", ErrHistoryLost, c, current.Epoch)
	}
	return nil
}

// Node implements [Adapter].
func (ps *Partitions) Node() NodeID { return ps.of.Node }

// Publish implements [Adapter]. An event whose rooms are in several partitions is published in one
// after another; if that fails in the middle, the error wraps [ErrUnavailable].
func (ps *Partitions) Publish(ctx context.Context, e Event) (Receipt, error) {
	if err := e.CheckSize(); err != nil {
		return Receipt{}, err
	}
	e.From, e.Earlier, e.Target.To = ps.of.Node, nil, distinct(e.Target.To)
	if len(ps.of.Partitions) == 1 && len(e.Target.To) > 0 {
		return ps.of.Partitions[0].Publish(ctx, e)
	}
	at, err := ps.seen(ctx)
	if err != nil {
		return Receipt{}, err
	}
	c := completion{window: e.Once.window()}
	r, err := ps.publishCopies(ctx, e, at, &c)
	for errors.Is(err, ErrIncomplete) && c.again() {
		r, err = ps.publishCopies(ctx, e, at, &c)
	}
	return r, err
}

// publishCopies publishes an event in one partition after the other.
func (ps *Partitions) publishCopies(ctx context.Context, e Event, at []Cursor, c *completion) (Receipt, error) {
	var all Receipt
	var late error
	for i, part := range ps.split(e.Target.To) {
		if len(part) == 0 {
			continue
		}
		e.Target.To, e.Once = part, c.limit(i, e.Once)
		r, err := ps.of.Partitions[i].Publish(ctx, e)
		switch {
		case c.lacks(i, r, err):
			late = err // the partitions after it say whether they lack a copy as well
			continue
		case err != nil && len(e.Earlier) > 0:
			return Receipt{}, incomplete(e.Earlier, err)
		case err != nil:
			return Receipt{}, err
		}
		c.published(r)
		at[i] = r.Cursor
		e.Earlier = append(e.Earlier, Copy{At: r.Cursor.At, To: part})
		all = Receipt{
			Cursor: combine(uint16(i), at), Receivers: all.Receivers + r.Receivers, NewRooms: all.NewRooms + r.NewRooms,
			Repeated: !c.fresh,
		}
	}
	switch {
	case late != nil:
		return Receipt{}, incomplete(e.Earlier, late)
	case len(e.Earlier) == 0:
		return Receipt{}, nil
	case len(e.Earlier) > 1:
		all.Copies = e.Earlier
	}
	return all, nil
}

// incomplete returns the error of an event of which some copies were published before one failed.
func incomplete(published []Copy, err error) error {
	for _, kind := range []error{ErrReused, ErrIncomplete} {
		if errors.Is(err, kind) {
			return fmt.Errorf("%w in %d partitions: %w", ErrUnavailable, len(published), err)
		}
	}
	// Not wrapped: it may say that nothing was published.
	return fmt.Errorf("%w: published in %d partitions, then: %v", ErrUnavailable, len(published), err)
}

// Subscribe implements [Adapter].
func (ps *Partitions) Subscribe(ctx context.Context, list ...rooms.Room) (Cursor, error) {
	parts := ps.split(list)
	at := make([]Cursor, len(parts))
	// The position in the other partitions counts as well: an event there may spare the rooms.
	err := ps.each(func(i int, p Partition) (err error) {
		if len(parts[i]) > 0 {
			at[i], err = p.Subscribe(ctx, parts[i]...)
		} else {
			at[i], err = p.Head(ctx)
		}
		return err
	})
	if err != nil {
		for i, p := range ps.of.Partitions {
			if !at[i].IsZero() { // it has not failed
				p.Unsubscribe(parts[i]...)
			}
		}
		return Cursor{}, err
	}
	return newest(at), nil
}

// Unsubscribe implements [Adapter].
func (ps *Partitions) Unsubscribe(list ...rooms.Room) {
	for i, part := range ps.split(list) {
		ps.of.Partitions[i].Unsubscribe(part...)
	}
}

// OnProgress implements [ProgressReporter].
func (ps *Partitions) OnProgress(f func(Cursor)) { ps.onProgress = f }

// Next implements [Adapter].
func (ps *Partitions) Next(ctx context.Context) (Event, error) {
	for {
		it, err := ps.of.Next(ctx)
		switch {
		case err != nil:
			return Event{}, err
		case it.Lost != nil:
			ps.epochs[it.At.Partition] = it.Epoch
			ps.progress.Reset(CombineEpochs(ps.epochs), it.At)
			it.Lost.Cursor = ps.progress.To(it.At)
			return Event{}, it.Lost
		case it.Event == nil:
			if c := ps.progress.To(it.At); ps.onProgress != nil {
				ps.onProgress(c)
			}
			continue
		}
		e := *it.Event
		e.Cursor = ps.progress.To(e.Position)
		return e, nil
	}
}

// Head implements [Adapter].
func (ps *Partitions) Head(ctx context.Context, seen ...Cursor) (Cursor, error) {
	seen = slices.DeleteFunc(slices.Clone(seen), Cursor.IsZero) // they have seen no event that could be lost
	at := make([]Cursor, len(ps.of.Partitions))
	err := ps.each(func(i int, p Partition) (err error) {
		var positions []Position
		for _, c := range seen {
			if q := c.In(uint16(i)); q.Ms > 0 {
				positions = append(positions, q)
			}
		}
		at[i], err = p.Head(ctx, positions...)
		return err
	})
	if err != nil {
		return Cursor{}, err
	}
	head := newest(at)
	for _, c := range seen {
		if err := sameHistory(c, head); err != nil {
			return Cursor{}, err
		}
	}
	return head, nil
}

// Condemn implements [Fallible].
func (ps *Partitions) Condemn(ctx context.Context, seen Cursor) error {
	at, err := ps.seen(ctx)
	if err != nil || !seen.SameHistory(combine(0, at)) { // it is in the past
		return err
	}
	return ps.each(func(i int, p Partition) error {
		if at := seen.In(uint16(i)); at.Ms > 0 {
			return p.Condemn(ctx, at)
		}
		return nil
	})
}
