package socketio

import (
	"context"
	"fmt"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A Past is an event of a room's backlog.
type Past struct {
	Offset string
	Event  string
	Args
	At time.Time
}

// Size returns the event's approximate size in its backlog, in bytes.
func (p *Past) Size() int {
	n := pastBytes + len(p.Event)
	for _, arg := range p.raw {
		n += len(arg)
	}
	for _, a := range p.attachments {
		n += len(a)
	}
	return n
}

// pastBytes is an event's size beside its name and arguments: position, publisher, time and target.
const pastBytes = 100

// HistoryBytes is the maximum size of the events that one call of [Namespace.History]
// returns. A single event may be larger.
const HistoryBytes = 256 << 10

// History returns a page of the newest events that a named room keeps, oldest first, and whether
// there are older ones. The page has at most limit events and [HistoryBytes] of their data, but at
// least one event if there is one, so more can be true of a page with fewer than limit. With an
// offset before, it returns the events before that offset; it returns [ErrOffset] if before is not
// an offset. Commands to the room's members are not events.
func (n *Namespace) History(ctx context.Context, room, before string, limit int) (past []Past, more bool, err error) {
	var cursor adapter.Cursor
	if before != "" {
		if cursor, _, err = n.srv.offsets.parse(before); err != nil {
			return nil, false, fmt.Errorf("%w: %w", ErrOffset, err)
		}
	}
	bytes := HistoryBytes
	for {
		asked := adapter.Page{Before: cursor, Events: limit - len(past), Bytes: max(bytes, 1)}
		events, more, err := n.srv.adapter.History(ctx, rooms.InNamed(n.name, room), asked)
		if err != nil {
			return nil, false, fmt.Errorf("socketio: history: %w", err)
		}
		var page []Past
		for i := range events {
			ev := &events[i]
			bytes -= len(ev.Data)
			for _, a := range ev.Attachments {
				bytes -= len(a)
			}
			if ev.Kind != kindEmit {
				continue
			}
			name, raw, err := packet.SplitEvent(ev.Data)
			if err != nil {
				continue // not written by a node
			}
			args := Args{raw, ev.Attachments}
			page = append(page, Past{Offset: n.srv.offsets.format(ev.Cursor), Event: name, Args: args, At: ev.Position.Time()})
		}
		past = append(page, past...)
		full := len(events) < asked.Events // more were too large in total
		if !more || len(past) >= limit || len(events) == 0 || full && len(past) > 0 {
			return past, more, nil
		}
		cursor = events[0].Cursor
	}
}
