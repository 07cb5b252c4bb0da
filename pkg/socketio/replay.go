package socketio

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// usuallyMissed is for how many events there is space from the start: an Event is large,
// and growing from one copies it again and again.
const usuallyMissed = 8

// A replay works out what a client has missed, from the backlogs of its rooms: it
// goes through the events in the order of the replay and executes the commands among
// them.
//
// Where there are several partitions, a room that a command has joined counts from
// the command on, as for a client that was connected: what came to the room before
// that in the order of the replay, and after the join position, is sent with the
// command. So an offset that does not cover a command says that nothing of the rooms
// that it joined has been received.
type replay struct {
	socket *Socket
	seen   adapter.Cursor // what the client has received; zero for nothing
	stays  memberships    // as they are at the place to which the replay has come
	// prior bounds the events that the client has received and that are read, because
	// they may be other copies of what a command gives it. Zero for none.
	prior adapter.Cursor

	missed []adapter.Event
	joined map[string]stay // rooms that were not read
	again  bool            // rooms are to be read that were not, or not far enough back

	several bool
	at      *adapter.Progress         // what the client has once it has received missed
	now     adapter.Cursor            // at as a cursor
	waiting []adapter.Event           // that are not for the client, unless a command joins their rooms
	taken   map[adapter.Position]bool // copies of events that the client has received as others
	entered []string                  // rooms that this replay has joined
}

// read reads the backlogs up to end. Afterwards the stays are those at the end, and
// missed is what the client is to receive, unless again is set.
func (r *replay) read(ctx context.Context, end adapter.Cursor) error {
	s := r.socket
	r.missed, r.joined, r.again, r.waiting, r.taken = nil, nil, false, nil, nil
	r.several = end.Partitions() > 1
	if r.now = r.seen; r.now.IsZero() {
		r.now = r.stays.born
	}
	r.at = adapter.NewProgress(r.now)
	from := r.stays.since(s.nsName, s.id, r.seen, r.prior)
	r.stays.suspend(r.seen)
	var rest [][]adapter.Event // by partition, where there are several
	for ev, err := range s.ns.srv.adapter.Replay(ctx, from, end) {
		if err != nil {
			return refuseLost(err)
		}
		switch {
		case !r.seen.IsZero() && r.seen.Covers(ev.Position):
			r.received(ev)
		case r.several:
			rest = queue(rest, ev)
		default:
			if err := r.pass(ev); err != nil {
				return err
			}
		}
	}
	for len(rest) > 0 {
		i := first(rest)
		ev := rest[i][0]
		if rest[i] = rest[i][1:]; len(rest[i]) == 0 {
			rest = slices.Delete(rest, i, i+1)
		}
		if err := r.pass(ev); err != nil {
			return err
		}
	}
	// Of commands that are in none of the client's rooms any more.
	return r.resume(adapter.Position{}, r.now, r.now)
}

// queue adds an event to the queue of its partition.
func queue(queues [][]adapter.Event, ev adapter.Event) [][]adapter.Event {
	for i, q := range queues {
		if q[0].Position.Partition == ev.Position.Partition {
			queues[i] = append(q, ev)
			return queues
		}
	}
	return append(queues, []adapter.Event{ev})
}

// first returns the queue whose first event is next: a command if what was published
// before it has passed, and otherwise the oldest one.
func first(queues [][]adapter.Event) int {
	oldest := 0
	for i, q := range queues {
		if q[0].Position.Compare(queues[oldest][0].Position) < 0 {
			oldest = i
		}
		c := newCommand(&q[0])
		if c != nil && c.spread() && !slices.ContainsFunc(queues, func(o []adapter.Event) bool {
			return c.head.Covers(o[0].Position) && o[0].Position != q[0].Position
		}) {
			return i
		}
	}
	return oldest
}

// received takes an event that the client has received if it was for it then.
func (r *replay) received(ev adapter.Event) {
	if r.stays.takes(&ev, r.socket.id) {
		r.note(&ev)
	} else if r.several {
		r.waiting = append(r.waiting, ev)
	}
}

// pass takes an event that the client has not received.
func (r *replay) pass(ev adapter.Event) error {
	takes, before := r.stays.takes(&ev, r.socket.id), r.now
	r.now = r.at.To(ev.Position)
	switch {
	case takes && r.taken[ev.Position]:
		r.stays.had(ev.Position)
	case takes:
		return r.take(ev, before, r.now)
	case r.several:
		r.waiting = append(r.waiting, ev)
	}
	return nil
}

// note notes that the client has received an event, of which there are other copies.
func (r *replay) note(ev *adapter.Event) {
	for _, c := range ev.Earlier {
		if r.taken == nil {
			r.taken = make(map[adapter.Position]bool)
		}
		r.taken[c.At] = true
	}
}

// take executes what an event asks for, or adds it to what the client is to receive.
// The cursors are those before and after it.
func (r *replay) take(ev adapter.Event, before, after adapter.Cursor) error {
	ev.Cursor = after
	switch ev.Kind {
	case kindEmit:
		r.note(&ev)
		if r.missed == nil {
			r.missed = make([]adapter.Event, 0, usuallyMissed)
		}
		r.missed = append(r.missed, ev)
		if limit := r.socket.ns.srv.opts.ReplayLimit; len(r.missed) > limit {
			return &refusal{refusedLimit, fmt.Errorf("more than %d missed events", limit)}
		}
	case kindDisconnect:
		return &refusal{refusedRemoved, errors.New("disconnected by the server")}
	case kindJoin:
		return r.join(&ev, before, after)
	case kindLeave:
		c := newCommand(&ev)
		for _, name := range c.names {
			r.stays.leaveAt(name, ev.Position, c.ends(after))
		}
	}
	return nil
}

// join executes a command that joins rooms.
func (r *replay) join(ev *adapter.Event, before, after adapter.Cursor) error {
	c := newCommand(ev)
	for _, name := range c.names {
		if r.stays.enterAt(name, c.begins(ev)) {
			r.stays.defers(name, c.spread())
			if r.joined == nil {
				r.joined = make(map[string]stay)
			}
			r.joined[name] = *r.stays.current(name)
			r.entered, r.again = append(r.entered, name), true
		}
	}
	if c.spread() && !r.seen.IsZero() && !c.prior.Includes(r.seen) && (r.prior.IsZero() || !c.prior.Includes(r.prior)) {
		// What the client has may be the same as what it is to receive now.
		r.again = true
		if r.prior.IsZero() {
			r.prior = c.prior
		} else {
			r.prior = r.prior.Min(c.prior)
		}
	}
	return r.resume(ev.Position, before, after)
}

// resume makes the rooms count that the command at a position has joined, or all that
// do not count yet if the position is zero, and takes what has come to them.
func (r *replay) resume(command adapter.Position, before, after adapter.Cursor) error {
	names := r.stays.resume(command)
	if len(names) == 0 {
		return nil
	}
	first, past := len(r.missed), true
	for i := 0; i < len(r.waiting); i++ {
		ev := r.waiting[i]
		if !r.stays.takes(&ev, r.socket.id) {
			continue
		}
		if r.taken[ev.Position] {
			r.stays.had(ev.Position)
			continue
		}
		r.waiting = slices.Delete(r.waiting, i, i+1)
		if i--; ev.Kind != kindEmit {
			i = -1 // it may change for whom the others are
		}
		past = past && r.seen.Covers(ev.Position)
		if err := r.take(ev, before, before); err != nil {
			return err
		}
	}
	late := r.missed[first:]
	if len(late) == 0 {
		return nil
	}
	late[len(late)-1].Cursor = after
	restored := slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(r.entered, name) })
	if len(late) > 1 && past && restored && !r.seen.IsZero() {
		return &refusal{refusedJoin, errors.New("the connection ended while the client was given what a command that joined rooms gave it")}
	}
	return nil
}
