package socketio

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// leaveTimeout bounds how long closing a connection waits for handlers and the sessions' last
// write, and then for its client to receive its queued packets and the close.
const leaveTimeout = storeTimeout

// minTaking is the minimum time for a client to receive the close. The next poll of a polling
// client may be in flight.
const minTaking = 250 * time.Millisecond

// Drain disconnects the clients before a Close without loss for any of them. From now on it refuses
// new clients, so that stock clients retry, and closes each connection at a random moment within
// over, so that they do not reconnect elsewhere in one burst.
//
// Events that are in the mailboxes of a connection at that moment are handled and acked before
// it is closed. Its sessions are stored before that and last for the whole recovery window from
// then on, and its sockets' handlers receive the reason "server shutting down". Events that
// arrive later, or that have not been read because a mailbox is full, are dropped, and the
// client gets no ack for them.
//
// To receive its queued packets and the close, a client has the time over, but at least a
// quarter of a second and at most 5 seconds. Drain returns when all connections have ended.
// When ctx ends it cuts the connections that it has closed and whose clients have not received
// everything, leaves the others to Close, and returns the cause of ctx.
func (s *Server) Drain(ctx context.Context, over time.Duration) error {
	s.engine.Refuse()
	s.mu.Lock()
	clients := make([]*client, 0, len(s.clients))
	for _, c := range s.clients { // in no order
		clients = append(clients, c)
	}
	s.mu.Unlock()

	var leaving sync.WaitGroup
	defer leaving.Wait()
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, moment := range spread(len(clients), over) {
		c := clients[i]
		timer.Reset(time.Until(start.Add(moment)))
		select {
		case <-timer.C:
			leaving.Go(func() { c.leave(ctx, min(max(over, minTaking), leaveTimeout)) })
		case <-c.conn.Context().Done(): // ended without Drain
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// SendAway closes the connection with this id, that of an [engineio.Conn], as Drain does: for a
// route that shuts down while the server stays. The client reconnects over another route. SendAway
// returns when the client has received the close or its time has expired, and immediately if there
// is no such connection. When ctx ends it stops waiting for handlers. It serves the node of this
// module; other programs do not need it.
func (s *Server) SendAway(ctx context.Context, id string) {
	s.mu.Lock()
	c := s.clients[id]
	s.mu.Unlock()
	if c != nil {
		c.leave(ctx, leaveTimeout)
	}
}

// spread returns n moments within a duration, in order: a random one in each of n equal parts.
func spread(n int, over time.Duration) []time.Duration {
	moments := make([]time.Duration, n)
	for i := range moments {
		moments[i] = time.Duration((float64(i) + rand.Float64()) / float64(n) * float64(over))
	}
	return moments
}

// leave ends the sockets after the events that have arrived for them, and then the connection. It
// cuts the connection if its client has not taken the close in time.
func (c *client) leave(ctx context.Context, within time.Duration) {
	c.leaving.Store(true)
	handling, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	sockets := c.all()
	for _, s := range sockets {
		s.mail.putLast(&c.srv.tasks, func() { s.afterAcks(func() { s.end(ServerShutdown) }) })
	}
	for _, s := range sockets {
		if s.awaitEnd(handling) != nil { // a handler, or the store, takes too long
			s.end(ServerShutdown)
			s.cancel(&DisconnectError{Reason: ServerShutdown})
		}
	}
	if c.conn.Close(engineio.ForcedClose) == nil {
		c.srv.stats.drained.Add(1)
	}
	taking, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_ = c.conn.Finish(taking) // the next node serves the client even if it did not receive the close
}
