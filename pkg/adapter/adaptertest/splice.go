package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// The purpose of the whole contract: members are repeatedly cut while others publish without
// pause, and splice the missed events from a replay and the feed. Each member must get every
// event that is for it, once and in order.
func replayAndFeedMeet(t *testing.T, newCluster Maker) {
	const publishers, members, cuts = 3, 3, 25
	c := newCluster(t, Options{BacklogLimit: 1_000_000})
	rng := newRand(t)
	var all []rooms.Room
	for i := range 5 {
		all = append(all, room(fmt.Sprint("r", i)))
	}

	ctx := deadline(t)
	var publishing sync.WaitGroup
	var over atomic.Bool
	stop := func() { // not in the middle of a call: a member may already have received its event
		over.Store(true)
		publishing.Wait()
	}
	defer stop()
	published := make([][]adapter.Event, publishers)
	for p := range publishers {
		n := join(t, c, adapter.NodeID(fmt.Sprint("publisher", p)))[0]
		rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
		publishing.Go(func() {
			for i := 0; !over.Load(); i++ {
				e := event(fmt.Sprint(p, " ", i), some(rng, all)...)
				receipt, err := n.Publish(ctx, e)
				if err != nil {
					t.Errorf("Publish: %v", err)
					return
				}
				e.Cursor = receipt.Cursor
				published[p] = append(published[p], e)
			}
		})
	}

	got := make([]*member, members)
	var running sync.WaitGroup
	for i := range members {
		n := join(t, c, adapter.NodeID(fmt.Sprint("member", i)))[0]
		m := &member{Adapter: n, rng: rand.New(rand.NewPCG(rng.Uint64(), 0)), joined: make(map[rooms.Room]adapter.Cursor)}
		got[i] = m
		running.Go(func() {
			for cut := range cuts {
				if err := m.live(ctx, all); err != nil {
					t.Errorf("%s, after %d cuts: %v", m.Node(), cut, err)
					return
				}
			}
		})
	}
	running.Wait()
	stop()
	if t.Failed() {
		return
	}

	order := slices.Concat(published...)
	slices.SortFunc(order, func(e, f adapter.Event) int { return e.Cursor.At.Compare(f.Cursor.At) })
	for _, m := range got {
		var want []string
		for _, e := range order {
			if m.seen.Covers(e.Cursor.At) && m.wants(e.Target, e.Cursor.At) {
				want = append(want, string(e.Data))
			}
		}
		if !slices.Equal(m.got, want) {
			at := 0
			for at < min(len(m.got), len(want)) && m.got[at] == want[at] {
				at++
			}
			t.Errorf("%s: got %d events, want %d; the first difference is at %d: got %q, want %q\njoined %v, cuts at\n%s",
				m.Node(), len(m.got), len(want), at, m.got[at:min(at+3, len(m.got))], want[at:min(at+3, len(want))], m.joined, m.log)
		}
	}
}

// A member is the only one on its node, in some rooms, and sees events as a client does.
type member struct {
	adapter.Adapter
	rng    *rand.Rand
	joined map[rooms.Room]adapter.Cursor
	seen   adapter.Cursor // the client's offset
	got    []string
	log    []byte
}

// live is one connection of the member: it recovers the missed events, joins one more room if
// there is one, gets some events, and is cut. Its node continues to read, and drops the events.
func (m *member) live(ctx context.Context, all []rooms.Room) error {
	var in []rooms.Room
	for r := range m.joined {
		in = append(in, r)
	}
	var end adapter.Cursor
	if len(in) > 0 {
		if _, err := m.Subscribe(ctx, in...); err != nil {
			return err
		}
		var err error
		if end, err = m.Head(ctx, m.seen); err != nil {
			return err
		}
		if err := m.replay(ctx, end); err != nil {
			return err
		}
	}
	if r := all[m.rng.IntN(len(all))]; m.joined[r].IsZero() {
		c, err := m.Subscribe(ctx, r)
		if err != nil {
			return err
		}
		in = append(in, r)
		m.joined[r] = c
		if m.seen.IsZero() {
			m.seen = c
		}
	}
	for range 1 + m.rng.IntN(30) {
		e, err := m.Next(ctx)
		if err != nil {
			return err
		}
		if !end.Covers(e.Position) && m.wants(e.Target, e.Position) {
			m.take(e)
		}
	}
	m.log = fmt.Appendf(m.log, "end of replay %v, last seen %v\n", end, m.seen)
	m.Unsubscribe(in...)
	return m.drain(ctx)
}

// drain reads the feed up to now.
func (m *member) drain(ctx context.Context) error {
	now, err := m.Publish(ctx, adapter.Event{Target: rooms.Target{To: []rooms.Room{rooms.InNodes()}}})
	if err != nil {
		return err
	}
	for {
		e, err := m.Next(ctx)
		if err != nil || now.Cursor.At == e.Position {
			return err
		}
	}
}

func (m *member) replay(ctx context.Context, end adapter.Cursor) error {
	after := make(map[rooms.Room]adapter.Cursor)
	for r, joined := range m.joined {
		after[r] = joined.Max(m.seen)
	}
	for e, err := range m.Replay(ctx, after, end, 0) {
		if err != nil {
			return err
		}
		if !m.wants(e.Target, e.Position) {
			return errors.New("replay holds an event from before the joins")
		}
		m.take(e)
	}
	return nil
}

func (m *member) wants(t rooms.Target, p adapter.Position) bool {
	return t.Match(func(r rooms.Room) bool {
		joined, in := m.joined[r]
		return in && !joined.Covers(p)
	})
}

func (m *member) take(e adapter.Event) {
	m.got = append(m.got, string(e.Data))
	m.seen = e.Cursor
}
