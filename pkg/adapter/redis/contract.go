package redis

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// enter returns an error if a call cannot be made.
func (p *partition) enter(ctx context.Context) error {
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("adapter/redis: %w", context.Cause(ctx))
	}
	return nil
}

// await returns the result of f, or an error if ctx or the adapter ends first: Redis may keep f
// waiting until its own deadline.
func await[T any](ctx context.Context, p *partition, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if err := p.enter(ctx); err != nil {
		return none, err
	}
	done := make(chan result, 1)
	p.mu.Lock() // Close takes the lock before it waits
	if p.ctx.Err() == nil {
		p.running.Go(func() {
			v, err := f()
			done <- result{v, err}
		})
	}
	p.mu.Unlock()
	select {
	case r := <-done:
		if r.err != nil && p.ctx.Err() != nil {
			return none, context.Cause(p.ctx)
		}
		return r.value, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))
	case <-p.ctx.Done():
		return none, context.Cause(p.ctx)
	}
}

// Seen returns the position up to which the feed is complete.
func (p *partition) Seen(ctx context.Context) (adapter.Cursor, error) {
	if err := p.enter(ctx); err != nil {
		return adapter.Cursor{}, err
	}
	if _, _, err := p.where(ctx); err != nil {
		return adapter.Cursor{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return adapter.Cursor{Epoch: p.feed.Epoch(), At: p.feed.Tail()}, nil
}

func (p *partition) Publish(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
	if err := p.enter(ctx); err != nil {
		return adapter.Receipt{}, err
	}
	c := content{rooms: namesOf(e.Target.To), stored: e.Stored, once: e.Once}
	c.payload, c.lists = encodeEvent(&e, len(c.rooms))
	p.sizes.saw(len(c.payload))
	o := p.send(ctx, c)
	return adapter.Receipt{Cursor: o.cursor, Receivers: o.receivers, NewRooms: o.newRooms, Repeated: o.repeated, Age: o.age}, o.err
}

func (p *partition) Condemn(ctx context.Context, seen adapter.Position) error {
	current, err := p.Head(ctx, seen)
	if !errors.Is(err, adapter.ErrHistoryLost) {
		return err
	}
	return p.forked(ctx, current.Epoch, err.Error())
}

// Replay implements [adapter.Adapter].
func (a *Adapter) Replay(ctx context.Context, after map[rooms.Room]adapter.Cursor, upTo adapter.Cursor, payload int) iter.Seq2[adapter.Event, error] {
	return func(yield func(adapter.Event, error) bool) {
		turn := &turn{of: a.large}
		defer turn.end() // nothing is held any longer
		a.composed.Replay(turn.in(ctx), after, upTo, payload)(yield)
	}
}

func (p *partition) Missed(ctx context.Context, after []adapter.Place, upTo adapter.Cursor, payload int) ([][]*adapter.Event, error) {
	return await(ctx, p, func() ([][]*adapter.Event, error) {
		asked := make(map[string]adapter.Position, len(after))
		for _, place := range after {
			asked[name(place.Room)] = place.At
		}
		missed, err := p.missed(ctx, upTo.Epoch, asked, upTo.At, payload, turnOf(ctx))
		if err == nil {
			err = missed.gaps()
		}
		return missed.events, err
	})
}

// Send implements [adapter.Adapter].
func (a *Adapter) Send(ctx context.Context, to adapter.NodeID, m adapter.Message) error {
	p := a.partitions[0]
	if err := p.enter(ctx); err != nil {
		return err
	}
	m.From = p.node
	return p.send(ctx, content{inbox: p.names.inbox(to), payload: encodeMessage(m)}).err
}

// OnMessagesLost implements [adapter.LossReporter].
func (a *Adapter) OnMessagesLost(f func()) { a.onLost.Store(&f) }

func (a *Adapter) messagesLost() {
	if f := a.onLost.Load(); f != nil {
		(*f)()
	}
}

// Receive implements [adapter.Adapter].
func (a *Adapter) Receive(ctx context.Context) (adapter.Message, error) {
	return a.inbox.Take(ctx, a.ctx)
}
