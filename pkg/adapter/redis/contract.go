package redis

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/rejoin-io/rejoin/internal/queue"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// The methods below implement package adapter: each call is distributed over the partitions, and
// their results are combined.

// enter returns an error if a call can't be made.
func (a *Adapter) enter(ctx context.Context) error {
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("adapter/redis: %w", context.Cause(ctx))
	}
	return nil
}

// await returns the result of f, or an error if ctx or the adapter ends first: Redis may keep f
// waiting until its own deadline.
func await[T any](ctx context.Context, a *Adapter, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	p := a.partitions[0]
	p.mu.Lock() // Close takes the lock before it waits
	if a.ctx.Err() == nil {
		p.running.Go(func() {
			v, err := f()
			done <- result{v, err}
		})
	}
	p.mu.Unlock()
	var none T
	select {
	case r := <-done:
		if r.err != nil && a.ctx.Err() != nil {
			return none, context.Cause(a.ctx)
		}
		return r.value, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))
	case <-a.ctx.Done():
		return none, context.Cause(a.ctx)
	}
}

// Publish implements [adapter.Adapter]. An event whose rooms are in several partitions is published
// in one after another; if that fails in the middle, the error wraps [adapter.ErrUnavailable].
func (a *Adapter) Publish(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
	if err := a.enter(ctx); err != nil {
		return adapter.Receipt{}, err
	}
	if len(e.Target.To) == 0 {
		return adapter.Receipt{}, nil
	}
	if err := e.CheckSize(); err != nil {
		return adapter.Receipt{}, err
	}
	e.From, e.Earlier = a.node, nil
	var places []place
	var receipt adapter.Receipt
	for _, part := range a.split(e.Target.To) {
		c := content{rooms: unique(part.names), stored: e.Stored}
		c.payload, c.lists = encodeEvent(&e, len(c.rooms))
		part.p.sizes.saw(len(c.payload))
		o := part.p.send(ctx, c)
		switch {
		case o.err != nil && len(e.Earlier) > 0:
			return adapter.Receipt{}, fmt.Errorf("%w: published in %d partitions, then: %v", adapter.ErrUnavailable, len(e.Earlier), o.err)
		case o.err != nil:
			return adapter.Receipt{}, o.err
		}
		if len(a.partitions) == 1 {
			return adapter.Receipt{Cursor: cursor(0, []place{o.place}), Receivers: o.receivers, NewRooms: o.newRooms}, nil
		}
		if places == nil {
			places = a.seen()
		}
		places[part.p.number] = o.place
		e.Earlier = append(e.Earlier, adapter.Copy{At: o.at, To: part.rooms})
		receipt = adapter.Receipt{
			Cursor: cursor(part.p.number, places), Receivers: receipt.Receivers + o.receivers, NewRooms: receipt.NewRooms + o.newRooms,
		}
	}
	if len(e.Earlier) > 1 {
		receipt.Copies = e.Earlier
	}
	return receipt, nil
}

// Subscribe implements [adapter.Adapter].
func (a *Adapter) Subscribe(ctx context.Context, list ...rooms.Room) (adapter.Cursor, error) {
	if err := a.enter(ctx); err != nil {
		return adapter.Cursor{}, err
	}
	parts := a.split(list)
	named := make([][]string, len(a.partitions))
	at := uint16(0)
	for _, part := range parts {
		at = part.p.number
		named[at] = part.names
	}
	places, errs := make([]place, len(a.partitions)), make([]error, len(a.partitions))
	// The position in the other partitions counts as well: an event there may spare the rooms.
	_ = a.each(func(i int, p *partition) error {
		if len(named[i]) > 0 {
			places[i], errs[i] = p.subscribe(ctx, named[i])
		} else {
			places[i], errs[i] = p.head(ctx)
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		for i, p := range a.partitions {
			if errs[i] == nil && len(named[i]) > 0 {
				p.unsubscribe(named[i])
			}
		}
		return adapter.Cursor{}, err
	}
	return cursor(at, places), nil
}

// Unsubscribe implements [adapter.Adapter].
func (a *Adapter) Unsubscribe(list ...rooms.Room) {
	for _, part := range a.split(list) {
		part.p.unsubscribe(part.names)
	}
}

// OnProgress implements [adapter.ProgressReporter].
func (a *Adapter) OnProgress(f func(adapter.Cursor)) { a.onProgress = f }

// OnMessagesLost implements [adapter.LossReporter].
func (a *Adapter) OnMessagesLost(f func()) { a.onLost.Store(&f) }

func (a *Adapter) messagesLost() {
	if f := a.onLost.Load(); f != nil {
		(*f)()
	}
}

// Next implements [adapter.Adapter].
func (a *Adapter) Next(ctx context.Context) (adapter.Event, error) {
	for {
		f, err := take(ctx, a, a.queue)
		switch {
		case err != nil:
			return adapter.Event{}, err
		case f.Lost != nil:
			a.epochs[f.At.Partition] = f.Epoch
			a.progress.Reset(combine(a.epochs), f.At)
			f.Lost.Cursor = a.progress.To(f.At)
			return adapter.Event{}, f.Lost
		case f.Event == nil:
			if c := a.progress.To(f.At); a.onProgress != nil {
				a.onProgress(c)
			}
			continue
		}
		e := *f.Event // which others may share
		e.Cursor = a.progress.To(e.Position)
		return e, nil
	}
}

// take returns the next item of one of a's queues.
func take[T any](ctx context.Context, a *Adapter, q *queue.Queue[T]) (T, error) {
	v, err := q.Take(ctx, a.ctx.Done())
	if errors.Is(err, queue.ErrDone) {
		err = context.Cause(a.ctx)
	}
	return v, err
}

// Head implements [adapter.Adapter].
func (a *Adapter) Head(ctx context.Context, seen ...adapter.Cursor) (adapter.Cursor, error) {
	if err := a.enter(ctx); err != nil {
		return adapter.Cursor{}, err
	}
	seen = slices.DeleteFunc(slices.Clone(seen), adapter.Cursor.IsZero)
	places := make([]place, len(a.partitions))
	err := a.each(func(i int, p *partition) (err error) {
		var at []adapter.Position
		for _, c := range seen {
			if q := c.In(uint16(i)); q.Ms > 0 {
				at = append(at, q)
			}
		}
		places[i], err = p.head(ctx, at...)
		return err
	})
	if err != nil {
		return adapter.Cursor{}, err
	}
	head := newest(places)
	for _, c := range seen {
		if err := sameHistory(c, head); err != nil {
			return adapter.Cursor{}, err
		}
	}
	return head, nil
}

// Condemn implements [adapter.Fallible].
func (a *Adapter) Condemn(ctx context.Context, seen adapter.Cursor) error {
	if err := a.enter(ctx); err != nil {
		return err
	}
	if !seen.SameHistory(cursor(0, a.seen())) {
		return nil // it is in the past
	}
	return a.each(func(i int, p *partition) error {
		at := seen.In(uint16(i))
		if at.Ms == 0 {
			return nil
		}
		current, err := p.head(ctx, at)
		if !errors.Is(err, adapter.ErrHistoryLost) {
			return err
		}
		return p.forked(ctx, current.epoch, err.Error())
	})
}

func sameHistory(c, current adapter.Cursor) error {
	if !c.SameHistory(current) {
		return fmt.Errorf("%w: cursor %s is not of the history %s", adapter.ErrHistoryLost, c, current.Epoch)
	}
	return nil
}

// Replay implements [adapter.Adapter].
func (a *Adapter) Replay(ctx context.Context, after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor, payload int) iter.Seq2[adapter.Event, error] {
	return func(yield func(adapter.Event, error) bool) {
		turn := &turn{of: a.large}
		defer turn.end() // nothing is held any longer
		r, err := await(ctx, a, func() (r replay, err error) {
			r.events, r.from, err = a.missed(ctx, after, upTo, payload, turn)
			return r, err
		})
		if err != nil {
			yield(adapter.Event{}, fmt.Errorf("adapter/redis: replay: %w", err))
			return
		}
		progress, held := adapter.NewProgress(r.from), 0
		for shared := range adapter.Merge(r.events) {
			e := *shared
			e.Cursor = progress.To(e.Position)
			if size := payloadSize(&e); payload > 0 && held+size > payload { // each partition has held that much
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

type replay struct {
	events [][]*adapter.Event
	from   adapter.Cursor
}

// missed reads the events of a replay, and returns where it begins: in each partition where the
// first of its rooms begins, or at the end if it has none.
func (a *Adapter) missed(ctx context.Context, after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor, payload int, turn *turn) (events [][]*adapter.Event, from adapter.Cursor, err error) {
	if err := a.enter(ctx); err != nil {
		return nil, from, err
	}
	current := a.seen()
	if err := sameHistory(upTo, cursor(0, current)); err != nil {
		return nil, from, err
	}
	asked := make([]map[string]adapter.Position, len(a.partitions))
	places := make([]place, len(a.partitions))
	for i := range places {
		asked[i] = make(map[string]adapter.Position, len(after)/len(places))
		places[i] = place{current[i].epoch, upTo.In(uint16(i))}
	}
	for r, c := range after {
		if err := sameHistory(c, upTo); err != nil {
			return nil, from, err
		}
		n := name(r)
		i := a.home(n, len(a.partitions))
		asked[i][n] = c.In(i)
		if c.In(i).Compare(places[i].at) < 0 {
			places[i].at = c.In(i)
		}
	}
	read := make([][][]*adapter.Event, len(a.partitions))
	err = a.each(func(i int, p *partition) error {
		hold := payload
		if payload > 0 { // a partition may hold its rooms' share
			hold = max(payload*len(asked[i])/max(len(after), 1), 1)
		}
		missed, err := p.missed(ctx, current[i].epoch, asked[i], upTo.In(uint16(i)), hold, turn)
		if err == nil {
			err = missed.gaps()
		}
		read[i] = missed.events
		return err
	})
	return slices.Concat(read...), newest(places), err
}

// Fetch implements [adapter.Adapter].
func (a *Adapter) Fetch(ctx context.Context, history adapter.Cursor, places []adapter.Place) ([]adapter.Event, error) {
	events, err := await(ctx, a, func() ([]adapter.Event, error) { return a.fetch(ctx, history, places) })
	if err != nil {
		return nil, fmt.Errorf("adapter/redis: fetch: %w", err)
	}
	return events, nil
}

func (a *Adapter) fetch(ctx context.Context, history adapter.Cursor, places []adapter.Place) ([]adapter.Event, error) {
	if err := a.enter(ctx); err != nil {
		return nil, err
	}
	current := a.seen()
	if err := sameHistory(history, cursor(0, current)); err != nil {
		return nil, err
	}
	lists := make([][]placed, len(a.partitions))
	for i, place := range places {
		n := name(place.Room)
		home := a.home(n, len(a.partitions))
		lists[home] = append(lists[home], placed{n, place.At, i})
	}
	events := make([]adapter.Event, len(places))
	err := a.each(func(i int, p *partition) error {
		if len(lists[i]) == 0 {
			return nil
		}
		return p.fetch(ctx, current[i].epoch, lists[i], events)
	})
	return events, err
}

// History implements [adapter.Adapter].
func (a *Adapter) History(ctx context.Context, room rooms.Room, page adapter.Page) ([]adapter.Event, bool, error) {
	head, err := a.Head(ctx)
	if err != nil {
		return nil, false, err
	}
	if !page.Before.IsZero() {
		if err := sameHistory(page.Before, head); err != nil {
			return nil, false, err
		}
	}
	n := name(room)
	i := a.home(n, len(a.partitions))
	more := false
	read, err := await(ctx, a, func() (read []*adapter.Event, err error) {
		read, more, err = a.partitions[i].recent(ctx, a.partitions[i].history(), n, page.Before.In(i), page)
		return read, err
	})
	if err != nil {
		return nil, false, fmt.Errorf("adapter/redis: history: %w", err)
	}
	events := make([]adapter.Event, len(read))
	places := make([]place, len(a.partitions)) // it says nothing about other partitions
	for j, e := range read {
		places[i].at = e.Position
		e.Cursor = cursor(i, places)
		e.Cursor.Epoch = head.Epoch
		events[j] = *e
	}
	return events, more, nil
}

// Send implements [adapter.Adapter].
func (a *Adapter) Send(ctx context.Context, to adapter.NodeID, m adapter.Message) error {
	if err := a.enter(ctx); err != nil {
		return err
	}
	m.From = a.node
	p := a.partitions[0]
	return p.send(ctx, content{inbox: p.names.inbox(to), payload: encodeMessage(m)}).err
}

// Receive implements [adapter.Adapter].
func (a *Adapter) Receive(ctx context.Context) (adapter.Message, error) {
	return take(ctx, a, a.inbox)
}
