package adapter

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A memoryPartition is a memoryLog as one node sees it.
type memoryPartition struct {
	node *memoryNode
	log  *memoryLog

	// Guarded by node.memory.mu.
	subscriptions map[rooms.Room]int
	receives      uint64   // the last of log.publishes that this node was a receiver in
	passed        Position // the newest position of the log that the feed has reported
}

func (p *memoryPartition) Seen(ctx context.Context) (Cursor, error) { return p.Head(ctx) }

func (p *memoryPartition) Publish(ctx context.Context, e Event) (Receipt, error) {
	for {
		receipt, space, err := p.tryPublish(ctx, &e)
		if space == nil {
			return receipt, err
		}
		select {
		case <-space:
		case <-p.node.ctx.Done():
		case <-ctx.Done():
			return Receipt{}, fmt.Errorf("adapter: publish: a receiver's feed is full: %w", context.Cause(ctx))
		}
	}
}

func (p *memoryPartition) tryPublish(ctx context.Context, e *Event) (Receipt, <-chan struct{}, error) {
	if err := p.node.enter(ctx); err != nil {
		return Receipt{}, nil, err
	}
	defer p.node.memory.mu.Unlock()
	return p.log.publish(e)
}

func (p *memoryPartition) Subscribe(ctx context.Context, rooms ...rooms.Room) (Cursor, error) {
	if err := p.node.enter(ctx); err != nil {
		return Cursor{}, err
	}
	defer p.node.memory.mu.Unlock()
	for _, room := range rooms {
		p.subscribe(room)
	}
	return p.newest(), nil
}

// subscribe counts a subscription. memory.mu is held.
func (p *memoryPartition) subscribe(room rooms.Room) {
	if p.subscriptions[room]++; p.subscriptions[room] == 1 {
		p.log.subscribers[room] = append(p.log.subscribers[room], p)
		p.log.backlogs.await(room)
	}
}

// newest returns the log's newest position, which the feed will report. memory.mu is held.
func (p *memoryPartition) newest() Cursor {
	if p.node.feed.Full() == nil { // otherwise an event follows
		p.node.report()
	}
	return p.log.head()
}

func (p *memoryPartition) Unsubscribe(rooms ...rooms.Room) {
	if p.node.enter(context.Background()) != nil {
		return
	}
	defer p.node.memory.mu.Unlock()
	for _, room := range rooms {
		if n := p.subscriptions[room]; n > 1 {
			p.subscriptions[room]--
		} else if n == 1 {
			p.log.silence(p, room)
		}
	}
}

func (p *memoryPartition) Head(ctx context.Context, seen ...Position) (Cursor, error) {
	if err := p.node.enter(ctx); err != nil {
		return Cursor{}, err
	}
	defer p.node.memory.mu.Unlock()
	if err := p.log.check(p.log.epoch, seen...); err != nil {
		return Cursor{}, err
	}
	return p.newest(), nil
}

// deliver puts an event of the log into the feed. memory.mu is held.
func (p *memoryPartition) deliver(e *Event) {
	p.passed = e.Position
	p.node.report()
	p.node.feed.Put(Item{Event: e}, e.size())
}

// Condemn does nothing: the memory loses no part of a history.
func (p *memoryPartition) Condemn(context.Context, Position) error { return nil }

func (p *memoryPartition) Missed(ctx context.Context, after []Place, upTo Cursor, _ int) ([][]*Event, error) {
	if err := p.node.enter(ctx); err != nil {
		return nil, err
	}
	defer p.node.memory.mu.Unlock()
	l := p.log
	if err := l.check(upTo.Epoch, upTo.At); err != nil {
		return nil, err
	}
	l.backlogs.sweep(time.Now())
	missed := make([][]*Event, len(after))
	for i, place := range after {
		var err error
		if missed[i], err = l.backlogs.between(place.Room, place.At, upTo.At); err != nil {
			return nil, err
		}
	}
	return missed, nil
}

func (p *memoryPartition) Fetch(ctx context.Context, history Cursor, places []Place) ([]*Event, error) {
	if err := p.node.enter(ctx); err != nil {
		return nil, err
	}
	defer p.node.memory.mu.Unlock()
	if err := p.log.check(history.Epoch); err != nil {
		return nil, err
	}
	events := make([]*Event, len(places))
	for i, place := range places {
		kept, _ := p.log.backlogs.kept(place.Room)
		at, found := slices.BinarySearchFunc(kept, place.At, compareToPosition)
		if !found {
			return nil, fmt.Errorf("%w: room %q has lost an event", ErrTrimmed, place.Room.Name)
		}
		events[i] = kept[at]
	}
	return events, nil
}

func (p *memoryPartition) History(ctx context.Context, room rooms.Room, page Page) ([]*Event, bool, error) {
	if err := p.node.enter(ctx); err != nil {
		return nil, false, err
	}
	defer p.node.memory.mu.Unlock()
	if !page.UpTo.IsZero() {
		if err := p.log.check(page.UpTo.Epoch); err != nil {
			return nil, false, err
		}
	}
	p.log.backlogs.sweep(time.Now())
	return p.log.backlogs.page(room, page)
}
