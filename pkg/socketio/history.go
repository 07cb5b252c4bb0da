package socketio

import (
	"context"
	"errors"
	"fmt"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// HistoryBytes is the maximum size, in bytes, of the events that one call of [Namespace.History]
// returns: 256 KiB. A single event may be larger.
const HistoryBytes = 256 << 10

// Limits of the entries that one call of History reads, because a backlog may have many entries
// that are not events. After a read without any event the next one is larger, so that a room with
// some thousand commands in front of its events has a history, too.
const (
	historyReads   = 5
	historyEntries = 1000 // of one read
)

// History returns a page of the newest events that a named room keeps, oldest first, and whether
// there are older ones. The page has at most limit events and [HistoryBytes] of their data, but at
// least one event if there is one, so more can be true of a page with fewer than limit. With an
// offset before, it returns the events before that offset; it returns [ErrOffset] if before is not
// an offset. Commands to the room's members are not events. If there are thousands of them in front
// of the first event, or 256 KiB, the page is empty and more is true.
//
// The bytes that it reads are reported to the function of [adapter.OnRead].
func (n *Namespace) History(ctx context.Context, room, before string, limit int) (past []Past, more bool, err error) {
	return n.HistoryUntil(ctx, room, "", before, limit)
}

// HistoryUntil is History for the events up to the offset until, including the one there. With
// [Rewound].Joined, which is not the offset of an event, the pages continue what a client gets from its
// join on, without a gap or a repeat. An empty until is the newest event.
func (n *Namespace) HistoryUntil(ctx context.Context, room, until, before string, limit int) (past []Past, more bool, err error) {
	page := adapter.Page{Events: limit, Bytes: HistoryBytes}
	for _, end := range []struct {
		offset string
		cursor *adapter.Cursor
	}{{until, &page.UpTo}, {before, &page.Before}} {
		if end.offset == "" {
			continue
		}
		if *end.cursor, _, err = n.srv.offsets.parse(end.offset); err != nil {
			return nil, false, fmt.Errorf("%w: %w", ErrOffset, err)
		}
	}
	if past, more, err = n.page(ctx, room, page); err != nil {
		return nil, false, fmt.Errorf("socketio: history: %w", err)
	}
	return past, more, nil
}

// page is History for a page of the adapter. Its errors are the adapter's.
func (n *Namespace) page(ctx context.Context, room string, page adapter.Page) (past []Past, more bool, err error) {
	limit := page.Events
	for range historyReads {
		if len(past) > 0 {
			page.Events = limit - len(past)
		}
		var events []adapter.Event
		events, more, err = n.srv.adapter.History(ctx, rooms.InNamed(n.name, room), page)
		if err != nil && !errors.Is(err, adapter.ErrTrimmed) { // with which it returns what is kept
			return nil, false, err
		}
		older, read := n.pastOf(events)
		adapter.CountRead(ctx, read+pastBytes*len(events))
		page.Bytes -= read
		if past = append(older, past...); len(past) > limit {
			past, more = past[len(past)-limit:], true
		}
		full := len(events) < page.Events // more were too large in total
		if !more || err != nil || len(past) == limit || len(events) == 0 || page.Bytes <= 0 || full && len(past) > 0 {
			break
		}
		page.Before, page.Events = events[0].Cursor, min(10*page.Events, historyEntries)
	}
	return past, more, err
}

// pastOf returns the events among the entries of a backlog, and the size of all of them.
func (n *Namespace) pastOf(entries []adapter.Event) (past []Past, bytes int) {
	for i := range entries {
		ev := &entries[i]
		bytes += payloadSize(ev)
		if ev.Kind != kindEmit {
			continue
		}
		name, raw, err := packet.SplitEvent(ev.Data)
		if err != nil {
			continue // not written by a node
		}
		args := Args{raw, ev.Attachments}
		past = append(past, Past{Offset: n.srv.offsets.format(ev.Cursor), Event: name, Args: args, At: ev.Position.Time()})
	}
	return past, bytes
}
