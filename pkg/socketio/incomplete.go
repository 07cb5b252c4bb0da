package socketio

import (
	"context"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// incomplete holds a few events of a replay. The first is a command that arrived without its payload.
// The payload decides which events are missed, so the events wait until it has been read, together
// with the payloads of later commands.
type incomplete struct {
	events []adapter.Event
	bytes  int // of the payloads to be read
}

// add adds an event, unless nothing is waiting and the event need not wait, and reports whether
// there are enough.
func (a *incomplete) add(ev *adapter.Event) (full bool) {
	lacks := ev.Omitted > 0 && ev.Kind != kindEmit
	if len(a.events) == 0 && !lacks {
		return false
	}
	a.events = append(a.events, *ev)
	if lacks {
		a.bytes += int(ev.Omitted)
	}
	return len(a.events) == fetchEvents || a.bytes > replayPage
}

// complete reads the payloads that commands lack, and forwards the events.
func (r *replay) complete(ctx context.Context, end adapter.Cursor, ahead *incomplete) error {
	var lacking []*adapter.Event
	var places []adapter.Place
	for i := range ahead.events {
		if ev := &ahead.events[i]; ev.Omitted > 0 && ev.Kind != kindEmit {
			lacking, places = append(lacking, ev), append(places, r.place(ev))
		}
	}
	if len(places) == 0 {
		return nil
	}
	fetched, err := r.socket.ns.srv.adapter.Fetch(ctx, end, places)
	if err != nil {
		return refuseLost(err)
	}
	for i, ev := range lacking {
		ev.Data, ev.Attachments, ev.Omitted = fetched[i].Data, fetched[i].Attachments, 0
		if err := wellFormed(ev); err != nil {
			return refuseLost(err)
		}
	}
	for i := range ahead.events {
		if err := r.look(&ahead.events[i]); err != nil {
			return err
		}
	}
	*ahead = incomplete{events: ahead.events[:0]}
	return nil
}
