package socketio

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
)

// What the ack of a join with history has at most.
const (
	ackEvents = 1000
	ackBytes  = 1 << 20
)

// concurrentPages is the number of rooms that a join with history reads at a time. The newest event of
// each may be larger than its share of the ack.
const concurrentPages = 8

// levelsInRewound are the arrays and objects around an event in a Rewound.
const levelsInRewound = 4

// A roomPage is what was read of a room.
type roomPage struct {
	past []Past
	more bool
	lost bool // some events since may be lost
	err  error
}

// histories reads the rooms' histories up to a join.
func (r *rewinding) histories(ctx context.Context, joined adapter.Cursor) (map[string]RoomHistory, error) {
	all := make(map[string]RoomHistory, len(r.rooms))
	if !r.since.SameHistory(joined) {
		r.since = adapter.Cursor{}
	}
	left := share{events: ackEvents, bytes: ackBytes, attachments: packet.MaxAttachments}
	for rest := r.rooms; len(rest) > 0; {
		names := rest[:min(len(rest), concurrentPages)]
		pages := make([]roomPage, len(names))
		each := left.each(len(rest))
		var reading sync.WaitGroup
		for i, name := range names {
			reading.Go(func() { pages[i] = r.page(ctx, name, joined, each) })
		}
		reading.Wait()
		for i, name := range names {
			page := &pages[i]
			if page.err != nil {
				return nil, page.err
			}
			events := left.take(page.past)
			cut := len(events) < len(page.past)
			h := RoomHistory{Events: events, More: page.more || cut}
			if r.Since != "" {
				complete := !h.More && !page.lost && !r.since.IsZero()
				h.Complete = &complete
			}
			all[name] = h
		}
		rest = rest[len(names):]
	}
	return all, nil
}

// page reads a room's history, at most a share.
func (r *rewinding) page(ctx context.Context, room string, joined adapter.Cursor, most share) (p roomPage) {
	if most.bytes <= 0 || most.events <= 0 {
		return roomPage{more: true}
	}
	page := adapter.Page{UpTo: joined, After: r.since, Events: min(r.Last, most.events), Bytes: min(most.bytes, HistoryBytes)}
	p.past, p.more, p.err = r.event.socket.ns.page(ctx, room, page)
	if errors.Is(p.err, adapter.ErrTrimmed) {
		p.lost, p.err = true, nil
	}
	return p
}

// A share is a part of what an ack may have.
type share struct{ events, bytes, attachments int }

// each returns the part of one of some rooms.
func (s share) each(rooms int) share { return share{events: s.events / rooms, bytes: s.bytes / rooms} }

// take takes as many of a room's newest events as are left, oldest first. The first event of an ack
// may have any size.
func (s *share) take(past []Past) (taken []Past) {
	taken = make([]Past, 0, len(past))
	for _, p := range slices.Backward(past) {
		fits := p.Size() <= s.bytes || s.bytes == ackBytes
		if s.events < 1 || !fits || p.Attachments() > s.attachments {
			break
		}
		s.events--
		s.bytes -= p.Size()
		s.attachments -= p.Attachments()
		taken = append(taken, p.Nested(levelsInRewound))
	}
	slices.Reverse(taken)
	return taken
}
