package socketio

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// Limits, in bytes, of the missed events that recoveries hold until they are queued to their
// clients.
const (
	// replayPage bounds the payloads that one recovery holds. The missed events of most clients
	// fit and are read once. Other events are read again, in parts, as their client receives them.
	replayPage = 256 << 10
	// replayBudget bounds all recoveries together, and so does half of the queue budget. Beyond half
	// of it a page has a quarter of a smallReplay, because payloads that do not fit were read for
	// nothing. Beyond three quarters none holds payloads. Beyond all of it, a replay that holds much more than a recovery would, and
	// whose client takes it slowly, gives way; without one, recoveries that would hold more than a
	// smallReplay are postponed.
	replayBudget = 64 << 20
	smallReplay  = 16 << 10
)

// Memory of a missed event beside its payload, and of its place if it is not held.
const (
	missedOverhead = 256
	laterOverhead  = 160
)

// fetchEvents is the maximum number of events that are read again in one call.
const fetchEvents = 256

// replays counts the bytes that recoveries hold.
type replays struct {
	held                atomic.Int64
	page, budget, small int
	patience            time.Duration

	mu   sync.Mutex
	sent map[*missedEvents]*recovery // those that are being sent; their reservations change with mu held
}

// muchMore is how many times as much as a recovery would hold a replay must hold to give way to it. So
// the recoveries of many clients that missed about as much do not push each other out.
const muchMore = 4

// begin notes that a replay is being sent, until end is called.
func (r *replays) begin(m *missedEvents, by *recovery) (end func()) {
	by.moved.Store(time.Now().UnixNano())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent == nil {
		r.sent = make(map[*missedEvents]*recovery)
	}
	r.sent[m] = by
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.sent, m)
	}
}

// giveWay closes the client of a replay that holds much more than some bytes, and frees what it holds: the
// one for which the most has been held for the longest since its client has taken a part of it. It reports
// whether there is one.
func (r *replays) giveWay(bytes int) bool {
	r.mu.Lock()
	var slowest *missedEvents
	now, highest := time.Now().UnixNano(), 0.0
	for m, by := range r.sent {
		if cost := float64(m.held) * float64(now-by.moved.Load()); m.held >= muchMore*bytes && cost > highest {
			slowest, highest = m, cost
		}
	}
	if slowest == nil {
		r.mu.Unlock()
		return false
	}
	s := r.sent[slowest].socket
	delete(r.sent, slowest)
	slowest.release()
	r.mu.Unlock()
	s.client.limited(limitReplayBudget, r.budget, "bytes")
	s.cut(errReplayBudget)
	return true
}

// A reservation is a part of the bytes that recoveries may hold. The zero value reserves
// none.
type reservation struct {
	of   *replays
	held int
}

// release returns the reservation.
func (r *reservation) release() {
	if r.held > 0 {
		r.of.held.Add(-int64(r.held))
		r.held = 0
	}
}

// reserve returns a page for a recovery that is about to read, or a small one if no page is free,
// if there is either.
func (r *replays) reserve() (page reservation) {
	for _, p := range [...]struct{ bytes, highest int }{{r.page, r.budget / 2}, {r.small / 4, r.budget / 4 * 3}} {
		if r.held.Add(int64(p.bytes)) <= int64(p.highest) {
			return reservation{r, p.bytes}
		}
		r.held.Add(-int64(p.bytes))
	}
	return page
}

// keep counts the bytes that a recovery holds. It fails if they are not small and there is
// no space.
func (r *replays) keep(bytes int) (kept reservation, ok bool) {
	if r.held.Add(int64(bytes)) > int64(r.budget) && bytes > r.small {
		r.held.Add(-int64(bytes))
		return kept, false
	}
	return reservation{r, bytes}, true
}

// missedEvents are what a client is to receive in a replay, in order and up to an end: the events that
// fit in a page, followed by the places of the others.
type missedEvents struct {
	reservation
	end    adapter.Cursor
	events []*adapter.Event
	later  []unread
	leaves []leaving // begin when it has been sent
}

// An unread is a missed event that is to be read again.
type unread struct {
	place  adapter.Place
	cursor adapter.Cursor // the replay's cursor after it
	size   int
}

// errReplayBudget postpones a recovery.
var errReplayBudget = errors.New("socketio: too many recoveries with many missed events")

// found returns the result of the replay.
func (r *replay) found(end adapter.Cursor) (*missedEvents, error) {
	srv := r.socket.ns.srv
	held, bytes := 0, 0 // of those in front of the first one that arrived without its payload
	for held < len(r.missed) && r.missed[held].Omitted == 0 {
		bytes += missedOverhead + payloadSize(r.missed[held])
		held++
	}
	kept, ok := srv.replays.keep(bytes + laterOverhead*(len(r.missed)-held))
	if !ok && held < len(r.missed) { // there may be space for less
		held = 0
		kept, ok = srv.replays.keep(laterOverhead * len(r.missed))
	}
	for !ok && srv.replays.giveWay(laterOverhead*len(r.missed)) {
		held = 0
		kept, ok = srv.replays.keep(laterOverhead * len(r.missed))
	}
	if !ok {
		r.socket.client.limited(limitReplayBudget, srv.replays.budget, "bytes")
		return nil, errReplayBudget
	}
	m := &missedEvents{reservation: kept, end: end}
	m.events = append(m.events, r.missed[:held]...) // a slice of r.missed would keep the other events
	m.later = make([]unread, 0, len(r.missed)-held)
	for _, ev := range r.missed[held:] {
		m.later = append(m.later, unread{r.place(ev), ev.Cursor, payloadSize(ev)})
	}
	return m, nil
}

// payloadSize returns the size of an event's payload, also if that was left out.
func payloadSize(ev *adapter.Event) int {
	return int(ev.Omitted) + len(ev.Data) + totalSize(ev.Attachments)
}

// replay sends the missed events, each stamped with the cursor of the replay so that a cut in the
// middle resumes in the middle, and then opens the gate. It waits for the client, so a large replay
// is never queued whole. If the gate has held more than it may meanwhile, the replay continues from
// the end that it has reached.
func (r *recovery) replay(m *missedEvents) error {
	s := r.socket
	for range replayTries {
		if err := r.resend(m); err != nil {
			return err
		}
		m.release()
		if done, err := r.finish(m.end); done || err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(s.client.conn.Context(), recoverTimeout)
		more, err := r.read(ctx, m.end, m.end)
		cancel()
		if err != nil {
			return err
		}
		more.leaves = append(m.leaves, more.leaves...)
		*m = *more
	}
	return errQueueFull
}

// finish opens the gate after a replay up to end, unless the gate has held more than it may: then
// the gate begins to hold again. The held events are queued in addition to those that the client
// has yet to receive.
func (r *recovery) finish(end adapter.Cursor) (done bool, err error) {
	s := r.socket
	s.client.filling.Lock()
	defer s.client.filling.Unlock()
	if err := s.awaitQueue(s.ahead()); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate.spilled {
		s.gate.restart()
		return false, nil
	}
	s.stage.become(stageLive)
	s.gate.discard(end)
	s.openGate()
	return true, nil
}

// resend queues the missed events as the client receives them. Events that are not held are read
// when the client has received most of the earlier ones. They are queued immediately and count as
// a part of the client's queue.
func (r *recovery) resend(m *missedEvents) error {
	s := r.socket
	defer s.ns.srv.replays.begin(m, r)()
	ahead := s.ahead()
	for _, ev := range m.events {
		if err := r.send(ahead, ev); err != nil {
			return err
		}
		*ev = adapter.Event{} // others of its slab are still to come
	}
	for len(m.later) > 0 {
		if err := s.awaitQueue(ahead); err != nil {
			return err
		}
		if err := r.wait(); err != nil {
			return err
		}
		events, err := r.fetch(m, min(ahead, s.ns.srv.replays.page))
		if err != nil {
			return err
		}
		for i := range events {
			if err := r.send(ahead, &events[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// ahead is the number of bytes of a replay that are queued for its client: enough to keep the
// connection busy.
func (s *Socket) ahead() int { return min(s.ns.srv.opts.Engine.SendQueueBytes/4, 64<<10) }

// aheadAnswers is how many bytes of answers are queued before the client has taken them: half as many,
// so that replays go on meanwhile.
func (s *Server) aheadAnswers() int { return min(s.opts.Engine.SendQueueBytes/8, 32<<10) }

// fetch takes the next events of a replay, at least one and as many as fit in some bytes. If one no
// longer exists, or is malformed, the client is cut: its next recovery is refused.
func (r *recovery) fetch(m *missedEvents, bytes int) ([]adapter.Event, error) {
	var places []adapter.Place
	for _, l := range m.later[:min(len(m.later), fetchEvents)] {
		if bytes -= l.size; bytes < 0 && len(places) > 0 {
			break
		}
		places = append(places, l.place)
	}
	ctx, cancel := context.WithTimeout(r.socket.client.conn.Context(), recoverTimeout)
	defer cancel()
	events, err := r.socket.ns.srv.adapter.Fetch(r.count(ctx), m.end, places)
	if err != nil {
		return nil, err
	}
	for i := range events {
		if err := wellFormed(&events[i]); err != nil {
			return nil, err
		}
		events[i].Cursor = m.later[i].cursor
	}
	m.later = m.later[len(events):]
	return events, nil
}

// send queues a missed event as soon as at most limit bytes are queued.
func (r *recovery) send(limit int, ev *adapter.Event) error {
	s, srv := r.socket, r.socket.ns.srv
	s.client.filling.Lock()
	defer s.client.filling.Unlock()
	if err := s.awaitQueue(limit); err != nil {
		return err
	}
	d := delivery{ns: s.ns, ev: ev} // it stays on the stack
	ps := encodeEvent(&d, ev.Cursor, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage.gone() { // a later connection of its client may have them already
		return ErrDisconnected
	}
	if err := s.client.conn.Send(ps...); err != nil {
		return err
	}
	srv.stats.deliveries.Add(1)
	srv.stats.replayed.Add(1)
	r.moved.Store(time.Now().UnixNano())
	return nil
}

// awaitQueue waits until at most limit bytes are queued.
func (s *Socket) awaitQueue(limit int) error {
	conn := s.client.conn
	if conn.Queued() <= limit { // mostly; it costs neither a context nor a timer
		s.client.prolong()
		return nil
	}
	return s.client.whileTaking(conn.Context(), func(ctx context.Context) error { return conn.WaitQueue(ctx, limit) })
}
