package socketio

import (
	"context"
	"slices"
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

	turn      chan struct{} // holds a token while a socket publishes it
	sent      time.Time     // when it was last published; set by the holder of the turn
	published chan struct{} // closed when it has been published
	at        []adapter.Position
	came      []<-chan struct{} // each closed when the feed has reached one of the positions
	done      []func()          // end these waits

	// Guarded by the command's lock.
	users  int
	sealed bool // further sockets must not use it: they would not be in the index in time
	heard  bool // the node is subscribed to the rooms for it, so that each user has time to subscribe
}

// mark returns the marker for a socket, which must be in the index of the rooms that it joins. The
// socket must release it. Its lock is held.
func (c *command) mark(n *Namespace) *marker {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.marker == nil || c.marker.sealed {
		names := slices.Compact(slices.Sorted(slices.Values(c.names)))
		c.marker = &marker{
			ns: n, command: c, rooms: inNamed(n.name, names), turn: make(chan struct{}, 1),
			published: make(chan struct{}),
		}
	}
	c.marker.users++
	return c.marker
}

// release undoes one mark.
func (m *marker) release() {
	m.command.mu.Lock()
	m.users--
	unheard := m.users == 0 && m.heard
	m.command.mu.Unlock()
	if unheard { // it has no more users
		for _, done := range m.done {
			done()
		}
		m.ns.srv.adapter.Unsubscribe(m.rooms...)
	}
}

// await waits until the feed has passed the marker, which the first socket publishes, and returns
// its positions. If one socket fails to publish, the next one tries.
func (m *marker) await(ctx context.Context, s *Socket) ([]adapter.Position, error) {
	select {
	case <-m.published:
	case m.turn <- struct{}{}:
		err := m.publish(ctx)
		<-m.turn
		if err != nil {
			return nil, err
		}
	case <-s.ctx.Done():
		return nil, ErrDisconnected
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	again := time.NewTicker(markerAgain)
	defer again.Stop()
	for i := 0; i < len(m.came); {
		select {
		case <-m.came[i]:
			i++
		case <-again.C:
			m.repeat(ctx)
		case <-s.ctx.Done():
			return nil, ErrDisconnected
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return m.at, nil
}

// markerAgain is how long a marker may take to arrive before it is published again: it is not
// stored, so it is lost with a connection to Redis.
const markerAgain = time.Second

// repeat publishes a marker again: once the new one has arrived, the feed has passed the first one
// as well. One socket does that for all. If it fails, the first one may still arrive, and the next
// tick retries.
func (m *marker) repeat(ctx context.Context) {
	select {
	case m.turn <- struct{}{}:
	default:
		return
	}
	defer func() { <-m.turn }()
	if time.Since(m.sent) >= markerAgain {
		_, _ = m.send(ctx)
	}
}

// send publishes the event. The caller holds the turn.
func (m *marker) send(ctx context.Context) (adapter.Receipt, error) {
	m.sent = time.Now()
	return m.ns.srv.adapter.Publish(ctx, adapter.Event{Kind: kindMarker, Target: rooms.Target{To: m.rooms}})
}

// publish publishes the marker once.
func (m *marker) publish(ctx context.Context) error {
	select {
	case <-m.published:
		return nil
	default:
	}
	if err := m.hear(ctx); err != nil {
		return err
	}
	m.seal()
	r, err := m.send(ctx)
	if err != nil {
		return err
	}
	m.at = append(m.at, r.Cursor.At)
	for _, c := range r.Copies {
		if c.At != r.Cursor.At {
			m.at = append(m.at, c.At)
		}
	}
	for _, at := range m.at {
		came, done := m.ns.srv.feed.await(at)
		m.came, m.done = append(m.came, came), append(m.done, done)
	}
	close(m.published)
	return nil
}

// hear subscribes the node to the rooms until the last user has released the marker.
func (m *marker) hear(ctx context.Context) error {
	if m.heard { // this goroutine holds the turn
		return nil
	}
	if _, err := m.ns.srv.adapter.Subscribe(ctx, m.rooms...); err != nil {
		return err
	}
	m.command.mu.Lock()
	defer m.command.mu.Unlock()
	m.heard = true
	return nil
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
