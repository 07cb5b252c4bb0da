package socketio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
)

// Limits of [Event.AckJoin].
const (
	RewindEvents = 200 // of one room
	RewindRooms  = 100 // in one call
)

const (
	// concurrentRewinds is the maximum number of joins with history that a node works on. Each takes up
	// to a few MiB, and usually some milliseconds.
	concurrentRewinds = 32
	// rewindWait is the maximum wait of a join for its turn.
	rewindWait = 3 * time.Second
)

// A Rewind says which events of the rooms [Event.AckJoin] returns: the newest ones, or those after an
// offset.
type Rewind struct {
	// Last is the maximum number of events of each room: 0 to [RewindEvents]. With Since, 0 means
	// RewindEvents.
	Last int
	// Since is the offset of an event, as Past.Offset or as the client got it with an event, or
	// [Rewound].Joined. Only later events are returned.
	Since string
	// Answer returns the arguments of the ack. It must not change the socket's rooms. If it panics,
	// AckJoin fails. By default the ack has one argument, the Rewound.
	Answer func(*Rewound) []any
}

// A Rewound is what a joining client has missed. As an argument of an ack it is an object with the
// fields joined and history.
type Rewound struct {
	// Joined is the offset of the join: History has events up to there, and the client gets the later
	// ones as they come.
	Joined string `json:"joined"`
	// History is by room.
	History map[string]RoomHistory `json:"history"`
}

// A RoomHistory is a part of a room's history, without a gap, up to the join.
type RoomHistory struct {
	Events []Past `json:"events"` // oldest first; never nil
	// More means that the room keeps older events (with Rewind.Since: older ones after it), or may keep
	// some. [Namespace.History] returns them.
	More bool `json:"more"`
	// Complete is nil without Rewind.Since. It says whether Events has every event after it. False may
	// mean that there are more than the ack has, that the room no longer keeps them, or that its whole
	// history was lost.
	Complete *bool `json:"complete,omitempty"`
}

// AckJoin puts the event's socket into rooms, as [Socket.Join] does, and acks the event with recent
// events of these rooms. The ack and the events that follow it have no gap and no repeat: the history
// in the ack ends at the position at which the membership begins, and the client receives the ack
// before any later event. So the client has all events that the room stores, from the first one in
// the ack on. The history is the room's: it also has events that were not sent to every member.
//
// Events may come twice if they were published to other rooms of the client as well, or if the client
// was already in the room, which is not an error: then it had got the latest ones before the ack. A
// client that gets no ack, because its connection is lost, may be in the rooms after a recovery. It
// should join again.
//
// The ack has at most 1,000 events, 1 MiB of their data, and as many binary parts as a packet may have.
// The rooms share this, and RoomHistory.More is true of those that have more.
//
// If AckJoin returns an error the event has not been acked, and the socket is in none of the new rooms,
// as after an error of Join. Errors are those of Join; [ErrNoAck] if the event requests no ack;
// [ErrOffset] if Since is not an offset; [ErrBusy]; and those of [Namespace.History]. The socket gets no
// events while AckJoin runs, so the context should have a deadline of some seconds. Before that, AckJoin
// may wait for the client as [Event.Ack] does, and for at most a second until the client has been given
// the events that the handler has published. The bytes that it reads are reported to the function of
// [adapter.OnRead].
func (e *Event) AckJoin(ctx context.Context, r Rewind, rooms ...string) error {
	if !e.HasAck() || e.acked.Load() || e.socket == nil {
		return ErrNoAck
	}
	if len(rooms) > RewindRooms {
		return fmt.Errorf("%w: at most %d with their history", ErrTooManyRooms, RewindRooms)
	}
	back := &rewinding{Rewind: r, event: e, rooms: slices.Compact(slices.Sorted(slices.Values(rooms)))}
	s := e.socket
	if err := back.find(ctx); err != nil {
		return fmt.Errorf("socketio: join: %w", err)
	}
	s.awaitPublished(ctx, false)
	if err := s.awaitAnswers(ctx); err != nil {
		return fmt.Errorf("socketio: join: %w", err)
	}
	ended, err := s.takeRewind(ctx)
	if err != nil {
		return fmt.Errorf("socketio: join: %w", err)
	}
	defer ended()
	return s.join(ctx, rooms, back)
}

// awaitAnswers waits until the client has taken its replay and most of its answers, so that another
// answer can be queued without a wait. No turn is kept: the answers of the connection's other
// namespaces may come between.
func (s *Socket) awaitAnswers(ctx context.Context) error {
	c, ahead := s.client, s.client.srv.aheadAnswers()
	err := c.whileTaking(ctx, func(ctx context.Context) error { return c.conn.WaitAnswered(ctx, ahead) })
	if err != nil {
		return err
	}
	calm, cancel := context.WithTimeout(ctx, rewindWait)
	defer cancel()
	c.awaitCalm(calm, c.srv.opts.Engine.SendQueueBytes/2)
	done, err := s.changeLive(ctx)
	if err == nil {
		done()
	}
	return err
}

// takeRewind waits until one more join with history may run. The caller must not wait for its client
// from here on: some slow clients would keep all others out.
func (s *Socket) takeRewind(ctx context.Context) (ended func(), err error) {
	rewinds := s.client.srv.rewinds
	ended = func() { <-rewinds }
	select {
	case rewinds <- struct{}{}:
		return ended, nil
	default:
	}
	timer := time.NewTimer(rewindWait)
	defer timer.Stop()
	select {
	case rewinds <- struct{}{}:
		return ended, nil
	case <-timer.C:
		s.client.limited(limitRewinds, cap(rewinds), "joins")
		return nil, ErrBusy
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// A rewinding is one call of AckJoin.
type rewinding struct {
	Rewind
	event   *Event
	rooms   []string       // each once
	since   adapter.Cursor // of Since; zero if there is none, or it is not part of the current history
	packets []*engineio.Packet
}

// find looks for Since in the history.
func (r *rewinding) find(ctx context.Context) error {
	r.Last = min(max(r.Last, 0), RewindEvents)
	if r.Since == "" {
		return nil
	}
	if r.Last == 0 {
		r.Last = RewindEvents
	}
	srv := r.event.socket.client.srv
	since, _, err := srv.offsets.parse(r.Since)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOffset, err)
	}
	switch _, err = srv.adapter.Head(ctx, since); {
	case err == nil:
		r.since = since
	case !errors.Is(err, adapter.ErrHistoryLost):
		return err
	}
	return nil
}

// read reads the history up to the join, and makes the ack.
func (r *rewinding) read(ctx context.Context, joined adapter.Cursor) error {
	s := r.event.socket
	found := &Rewound{Joined: s.client.srv.offsets.format(joined)}
	var err error
	if found.History, err = r.histories(ctx, joined); err != nil {
		return fmt.Errorf("reading the history: %w", err)
	}
	args := []any{found}
	if r.Answer != nil {
		failed := s.client.srv.guard("Rewind.Answer", func() { args = r.Answer(found) }, func(p *PanicError) {
			s.reportError(p)
			if errors.Is(p, errGoexit) { // nothing below runs
				s.cut(p)
				s.unsubscribePending(r.rooms)
			}
		})
		if failed != nil {
			return failed
		}
	}
	data, attachments, err := encodeArray(args)
	if err != nil {
		return err
	}
	r.packets = enginePackets(&packet.Packet{
		Type: packet.Ack, Namespace: s.nsName, ID: r.event.ackID, Data: data, Attachments: attachments,
	}, false)
	return nil
}

// unsubscribePending unsubscribes rooms whose join will not be completed: the end of the socket does so
// for those that it is in only.
func (s *Socket) unsubscribePending(names []string) {
	s.mu.Lock()
	pending := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		st := s.rooms.current(name)
		return st == nil || !st.pending
	})
	s.mu.Unlock()
	s.ns.srv.adapter.Unsubscribe(inNamed(s.nsName, pending)...)
}

// answer queues the ack. The socket's lock is held.
func (r *rewinding) answer() {
	if !r.event.acked.Swap(true) {
		_ = r.event.socket.client.conn.SendPaced(r.packets...) // a closed connection needs no ack
	}
}
