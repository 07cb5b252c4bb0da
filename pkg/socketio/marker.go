package socketio

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A marker is an event to the rooms that a command names, published for its position. Once the feed
// has passed it in each of their partitions, every event published to these rooms before it has
// been delivered or is held. All sockets that executed the command on this node before the marker
// is published share it, so that their number does not multiply it: usually there is one for each
// command and node.
type marker struct {
	ns      *Namespace
	command *command
	rooms   []rooms.Room
	passed  chan struct{}         // closed when the feed has passed it
	at      []adapter.Position    // valid then
	cancel  context.CancelFunc    // called by the last user
	failed  atomic.Pointer[error] // of the last attempt to publish it that failed; nil if none

	// Guarded by the command's lock.
	users  int
	alike  map[likeness]*alike // packets of events that the users have read
	sealed bool                // further sockets must not use it: they would not be in the index in time
}

// mark returns the marker for a socket, which must be in the index of the rooms that it joins. The
// socket must release it. Its lock is held.
func (c *command) mark(n *Namespace) *marker {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.marker == nil || c.marker.sealed {
		names := slices.Compact(slices.Sorted(slices.Values(c.names)))
		m := &marker{ns: n, command: c, rooms: inNamed(n.name, names), passed: make(chan struct{})}
		var ctx context.Context
		ctx, m.cancel = context.WithCancel(n.srv.ctx)
		n.srv.spawn(func() { m.run(ctx) })
		c.marker = m
	}
	c.marker.users++
	return c.marker
}

// A likeness is an event with the cursor that its receivers are given.
type likeness struct {
	at     adapter.Position
	cursor adapter.Cursor
}

// share makes users of the marker that are given the same event with the same cursor share its packets.
func (m *marker) share(list []*delivery) {
	m.command.mu.Lock()
	defer m.command.mu.Unlock()
	for _, d := range list {
		k := likeness{d.ev.Position, d.cursor}
		if m.alike[k] == nil {
			put(&m.alike, k, new(alike))
		}
		d.alike = m.alike[k]
	}
}

// release undoes one mark.
func (m *marker) release() {
	m.command.mu.Lock()
	defer m.command.mu.Unlock()
	if m.users--; m.users == 0 {
		m.sealed, m.alike = true, nil
		m.cancel()
	}
}

// await waits until the feed has passed the marker, and returns its positions.
func (m *marker) await(ctx context.Context, s *Socket) ([]adapter.Position, error) {
	select {
	case <-m.passed:
		return m.at, nil
	case <-s.ctx.Done():
		return nil, ErrDisconnected
	case <-ctx.Done():
		err := context.Cause(ctx)
		if failed := m.failed.Load(); failed != nil {
			err = fmt.Errorf("%w: %w", err, *failed)
		}
		return nil, err
	}
}

// markerAgain is the interval between attempts to publish a marker, and how long one may take to
// arrive: it is not stored, so it is lost with a connection to Redis.
const markerAgain = time.Second

// run publishes the marker and waits for it, as long as it has users. Meanwhile the node is
// subscribed to the rooms, so that each user has time to subscribe.
func (m *marker) run(ctx context.Context) {
	a := m.ns.srv.adapter
	wait := func(reached <-chan struct{}) (arrived bool) {
		again := time.NewTimer(markerAgain)
		defer again.Stop()
		select {
		case <-reached:
			return true
		case <-again.C:
		case <-ctx.Done():
		}
		return false
	}
	try := func(f func() error) (done bool) {
		for err := f(); err != nil; err = f() {
			m.failed.Store(&err)
			if wait(nil); ctx.Err() != nil {
				return false
			}
		}
		return true
	}
	if !try(func() error { _, err := a.Subscribe(ctx, m.rooms...); return err }) {
		return
	}
	defer a.Unsubscribe(m.rooms...)
	m.seal()
	var r adapter.Receipt
	if !try(func() (err error) { r, err = m.publish(ctx); return err }) {
		return
	}
	m.at = []adapter.Position{r.Cursor.At}
	for _, c := range r.Copies {
		if c.At != r.Cursor.At {
			m.at = append(m.at, c.At)
		}
	}
	for _, at := range m.at {
		reached, done := m.ns.srv.feed.await(at)
		defer done()
		for !wait(reached) {
			if ctx.Err() != nil {
				return
			}
			_, _ = m.publish(ctx) // when it has arrived, the feed has passed the first one as well
		}
	}
	close(m.passed)
	<-ctx.Done()
}

func (m *marker) publish(ctx context.Context) (adapter.Receipt, error) {
	return m.ns.srv.adapter.Publish(ctx, adapter.Event{Kind: kindMarker, Target: rooms.Target{To: m.rooms}})
}

// seal prevents further sockets from using the marker, once the feed has handed the command to all
// of its members.
func (m *marker) seal() {
	f := &m.ns.srv.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	m.command.mu.Lock()
	defer m.command.mu.Unlock()
	m.sealed = true
}
