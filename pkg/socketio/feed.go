package socketio

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A feed receives the node's events from the adapter, in their order, and hands each to its
// members. All delivery starts here.
type feed struct {
	// mu is the feed's critical section: one event is handed to all its members before the cursor
	// covers it, and a socket leaves a room only between events.
	mu     sync.Mutex
	cursor adapter.Cursor
	waits  feedWaits
	clocks []clock      // of the partitions. Only the goroutine that calls Next uses it.
	behind atomic.Int64 // the maximum of clocks, in nanoseconds
}

// now returns the feed's cursor: all events up to it have been offered to the sockets.
func (f *feed) now() adapter.Cursor {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cursor
}

// reach calls hand and then moves the cursor, unless that is zero.
func (f *feed) reach(c adapter.Cursor, hand func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hand()
	if !c.IsZero() {
		f.cursor = c
		f.passed()
	}
}

// A clock is how much a partition's clock is behind this node's, at most, recently: how old a position
// was when it arrived. It counts for as long as positions of then matter, because the clock may have been set
// right since.
type clock struct {
	since          time.Time
	behind, before time.Duration // the maxima since then, and in the time before
}

// noteClocks notes the clocks of those positions that have advanced. Others do not change while nothing
// is published.
func (f *feed) noteClocks(c adapter.Cursor, memory time.Duration) {
	for i := range uint16(c.Partitions()) {
		if at := c.In(i); at != f.cursor.In(i) {
			f.noteClock(at, memory)
		}
	}
}

func (f *feed) noteClock(at adapter.Position, memory time.Duration) {
	if at.Ms == 0 { // nothing has been published there
		return
	}
	for len(f.clocks) <= int(at.Partition) {
		f.clocks = append(f.clocks, clock{})
	}
	now, c := time.Now(), &f.clocks[at.Partition]
	behind := now.Sub(at.Time())
	switch {
	case now.Sub(c.since) >= memory:
		c.behind, c.before, c.since = behind, c.behind, now
	case behind > c.behind:
		c.behind = behind
	default:
		return
	}
	for _, c := range f.clocks {
		behind = max(behind, c.behind, c.before)
	}
	f.behind.Store(int64(max(behind, 0)))
}

// commandWait bounds how long a command, or a Leave, waits for the feed of its own node.
const commandWait = time.Second

// awaitCommand waits until this node has reached a command, in the copies that it receives. The
// caller's next change of a socket of this node, such as Join or Leave, must take effect after
// the command. The wait is bounded, because the command has already been published.
func (n *Namespace) awaitCommand(ctx context.Context, copies []adapter.Copy) {
	ctx, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	for _, c := range copies {
		if n.hasMember(c.To) {
			n.srv.awaitFeed(ctx, c.At)
		}
	}
}

// awaitFeed waits until the feed has reached a position.
func (s *Server) awaitFeed(ctx context.Context, at adapter.Position) {
	reached, done := s.feed.await(at)
	defer done()
	select {
	case <-reached:
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
}

// hasMember reports whether a connected socket of this node is in one of the rooms, so that the feed
// receives the rooms' events.
func (n *Namespace) hasMember(list []rooms.Room) bool {
	for s := range n.index.Candidates(rooms.Target{To: list}) {
		s.mu.Lock()
		found := s.stage.served() && slices.ContainsFunc(list, func(r rooms.Room) bool { return s.rooms.inNow(r, s.id) })
		s.mu.Unlock()
		if found {
			return true
		}
	}
	return false
}

// runFeed hands out events until the adapter or the server closes.
func (s *Server) runFeed(ctx context.Context) {
	if a, ok := s.adapter.(adapter.ProgressReporter); ok {
		a.OnProgress(func(c adapter.Cursor) {
			s.feed.noteClocks(c, s.opts.memory())
			s.feed.reach(c, func() {})
		})
	}
	for {
		ev, err := s.adapter.Next(ctx)
		if lost := (*adapter.LostError)(nil); errors.As(err, &lost) {
			s.feed.reach(lost.Cursor, func() { s.lose(lost) })
			continue
		}
		if err != nil {
			if ctx.Err() == nil {
				s.log.Error("adapter feed ended; cutting all clients", zap.Error(err))
				s.cutAll()
			}
			return
		}
		s.feed.noteClock(ev.Position, s.opts.memory())
		s.feed.reach(ev.Cursor, func() { s.dispatch(&ev) })
	}
}

// lose cuts the clients that may have missed events. They get nothing more on these connections,
// because an offset after the missed events would hide them. So the feed's lock is held until its
// cursor covers the lost events.
func (s *Server) lose(lost *adapter.LostError) {
	list := lost.Rooms
	if len(list) > 0 {
		s.log.Warn("events lost; cutting the members of rooms", zap.String("reason", lost.Reason), zap.Int("rooms", len(list)))
	} else {
		s.log.Warn("events lost; cutting all clients", zap.String("reason", lost.Reason))
		s.mu.Lock()
		for name := range s.namespaces {
			list = append(list, rooms.InEveryone(name))
		}
		s.mu.Unlock()
		defer s.cutAll()
	}
	for _, r := range list {
		if n := s.lookup(r.Namespace); n != nil {
			n.lose(r, lost)
		}
	}
}

func (n *Namespace) lose(r rooms.Room, lost *adapter.LostError) {
	for s := range n.index.Members(r) {
		s.mu.Lock()
		held := s.gate.held
		switch s.gate.lose(); {
		case s.stage.catchingUp():
			s.unaskAll(held)
		case !s.stage.gone():
			s.cut(lost)
		}
		s.mu.Unlock()
	}
}

// dispatch hands one event to its members. It never waits for any of them.
func (s *Server) dispatch(ev *adapter.Event) {
	if len(ev.Target.To) == 0 || ev.Kind == kindMarker {
		return
	}
	if ev.Kind == kindServerSide {
		s.dispatchServerSide(ev)
		return
	}
	if ev.Target.To[0].Kind == rooms.Nodes { // a query
		header, _ := parseQueryHeader(ev.Ask)
		if ev.Target.To = header.To; len(header.To) == 0 {
			return
		}
	}
	if err := wellFormed(ev); err != nil {
		s.lose(&adapter.LostError{Reason: err.Error(), Rooms: ev.Target.To})
		return
	}
	n := s.lookup(ev.Target.To[0].Namespace)
	switch {
	case n == nil:
		s.answerNothing(ev)
	case ev.Kind == kindFetch:
		s.answerFetch(n, ev)
	case ev.Ask != "":
		n.deliverQuery(n.newDelivery(ev))
	default:
		n.deliver(n.newDelivery(ev))
	}
}

// deliver offers an event to every candidate.
func (n *Namespace) deliver(d *delivery) {
	if d.command != nil {
		d.command.before = n.srv.feed.cursor
	}
	for s := range n.index.Candidates(d.ev.Target) {
		s.offer(d)
	}
}

// deliverLocal delivers an event of this node to its own members, without a place in the order. The
// event carries the cursor of the events that they have been given so far.
func (n *Namespace) deliverLocal(ev adapter.Event) {
	f := &n.srv.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	ev.Cursor, ev.Position, ev.From = f.cursor, f.cursor.At, n.srv.adapter.Node()
	d := n.newDelivery(&ev)
	d.local = true
	if ev.Ask != "" {
		n.deliverQuery(d)
	} else {
		n.deliver(d)
	}
}
