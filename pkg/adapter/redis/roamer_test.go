package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

var silent = zap.NewNop()

// A station is a node with its members: it passes the feed's events to them.
type station struct {
	*Adapter
	relay *relay

	mu      sync.Mutex
	cursor  adapter.Cursor
	members map[*roamer]struct{}
}

func (s *station) read(ctx context.Context, t *testing.T) {
	for {
		e, err := s.Next(ctx)
		var lost *adapter.LostError
		s.mu.Lock()
		switch {
		case errors.As(err, &lost):
			for m := range s.members {
				m.told = err
			}
		case err != nil:
			s.mu.Unlock()
			if ctx.Err() == nil {
				t.Errorf("%s: Next: %v", s.Node(), err)
			}
			return
		default:
			s.cursor = e.Cursor
			for m := range s.members {
				if m.holding {
					m.held = append(m.held, e)
				} else {
					m.hear(e)
				}
			}
		}
		s.mu.Unlock()
	}
}

// A stint holds the events that one member gets between two losses, as a client sees them.
type stint struct {
	joined map[rooms.Room]span
	got    []adapter.Event
	seen   adapter.Cursor
	began  uint64 // in milliseconds
	lost   error
	log    []byte
}

// A span is a membership: after one position, and up to another if that is set.
type span struct{ from, to adapter.Cursor }

func (s *stint) wants(t rooms.Target, p adapter.Position) bool {
	return t.Match(func(r rooms.Room) bool {
		m, in := s.joined[r]
		return in && !m.from.Covers(p) && (m.to.IsZero() || m.to.Covers(p))
	})
}

// A roamer is a member that moves between nodes.
type roamer struct {
	world  *world
	rng    *rand.Rand
	stints []*stint

	// Guarded by the mu of the station that it is on.
	*stint
	told    error // a loss
	holding bool
	held    []adapter.Event
	end     adapter.Cursor // of its replay; the node's feed may lag behind
}

// hear takes the events of its node's feed, except those of the replay.
func (m *roamer) hear(e adapter.Event) {
	if m.end.IsZero() || m.end.SameHistory(e.Cursor) && !m.end.Covers(e.Position) {
		m.take(e)
	}
}

func (m *roamer) take(e adapter.Event) {
	if m.wants(e.Target, e.Position) {
		m.got = append(m.got, e)
		m.world.heard.Add(1)
	}
	m.seen = m.seen.Max(e.Cursor)
}

// live is one connection of the member: it recovers, joins and leaves rooms, and is cut.
func (m *roamer) live(ctx context.Context) {
	s := m.world.stations[m.rng.IntN(len(m.world.stations))]
	if m.stint == nil || m.rng.IntN(20) == 0 {
		m.end, m.stint = adapter.Cursor{}, &stint{joined: make(map[rooms.Room]span), began: uint64(time.Now().Add(-time.Second).UnixMilli())}
		m.stints = append(m.stints, m.stint)
	}
	heard, err := m.recover(ctx, s)
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.members, m)
		s.Unsubscribe(heard...)
		m.held = nil
		if err == nil || m.told != nil {
			err = m.told
		}
		if m.told = nil; errors.As(err, new(*adapter.LostError)) || errors.Is(err, adapter.ErrHistoryLost) || errors.Is(err, adapter.ErrTrimmed) {
			m.lost, m.stint = err, nil
		}
	}()
	for end := m.rng.IntN(6); err == nil && end > 0 && ctx.Err() == nil; end-- {
		pause(ctx, time.Duration(m.rng.IntN(25))*time.Millisecond)
		r := m.world.rooms[m.rng.IntN(len(m.world.rooms))]
		s.mu.Lock()
		in, was := m.joined[r]
		switch {
		case m.told != nil:
			end = 1
		case was && in.to.IsZero() && m.rng.IntN(4) == 0:
			in.to = in.from.Max(s.cursor).Max(m.seen)
			m.joined[r] = in
		case !was:
			m.holding = true
			s.mu.Unlock()
			var joined adapter.Cursor
			joined, err = s.Subscribe(ctx, r)
			s.mu.Lock()
			if err == nil {
				heard = append(heard, r)
				if len(m.joined) > 0 && !joined.SameHistory(m.seen) { // the loss will be reported
					s.mu.Unlock()
					return
				}
				m.joined[r] = span{from: joined}
				m.log = fmt.Appendf(m.log, "%s: joined %s at %v, the cursor is %v\n", s.Node(), r.Name, joined, s.cursor)
				if m.seen.IsZero() {
					m.seen = joined
				}
			}
			m.release()
		}
		s.mu.Unlock()
	}
}

// recover gets the missed events from the backlogs, and then those that the feed has
// delivered meanwhile.
func (m *roamer) recover(ctx context.Context, s *station) (heard []rooms.Room, err error) {
	after := make(map[rooms.Room]adapter.Cursor)
	for r, in := range m.joined {
		if in.to.IsZero() {
			heard = append(heard, r)
		}
		after[r] = in.from.Max(m.seen)
	}
	s.mu.Lock()
	m.holding = true
	s.members[m] = struct{}{}
	s.mu.Unlock()
	var end adapter.Cursor
	if len(after) > 0 {
		if _, err := s.Subscribe(ctx, heard...); err != nil {
			return nil, err
		}
		if end, err = s.Head(ctx, m.seen); err != nil {
			return heard, err
		}
		for e, err := range s.Replay(ctx, after, end, 0) {
			if err != nil {
				return heard, err
			}
			m.take(e)
		}
		m.world.recoveries.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.log = fmt.Appendf(m.log, "%s: recovered from %v to %v, the cursor is %v, %d held\n", s.Node(), m.seen, end, s.cursor, len(m.held))
	m.seen = m.seen.Max(end)
	m.end = end
	m.release()
	return heard, nil
}

func (m *roamer) release() {
	for _, e := range m.held {
		m.hear(e)
	}
	m.held, m.holding = nil, false
}

// finish recovers once more, so that all events have arrived.
func (m *roamer) finish(ctx context.Context) {
	for m.stint != nil {
		s := m.world.stations[m.rng.IntN(len(m.world.stations))]
		heard, err := m.recover(ctx, s)
		s.mu.Lock()
		delete(s.members, m)
		told := m.told
		s.mu.Unlock()
		s.Unsubscribe(heard...)
		if told == nil {
			told = err
		}
		if told == nil || errors.As(told, new(*adapter.LostError)) || errors.Is(told, adapter.ErrHistoryLost) {
			m.lost, m.stint = told, nil
		} else if ctx.Err() != nil {
			m.world.t.Errorf("the last recovery: %v", told)
			return
		}
	}
}
