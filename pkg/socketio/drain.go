package socketio

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// leaveTimeout bounds how long the close of a connection waits for handlers and the
// sessions' last write, and then for its client to take what is queued and the close.
const leaveTimeout = storeTimeout

// leastTaking is the time that a client has at least to take the close. A client that
// polls has the next poll on its way.
const leastTaking = 250 * time.Millisecond

// Drain sends the clients away before a Close, so that none of them loses
// anything: new ones are refused from now on, which makes stock clients try
// again, and each connection is closed at a random moment of the given time, so
// that they don't come back elsewhere all at once.
//
// What has been taken into the mailboxes of a connection by then is handled and acked
// before it is closed, its sessions have been stored and last for the whole window from
// then on, and its sockets' handlers hear "server shutting down". What arrives later, or
// has not been read because a mailbox is full, is dropped, as if it had not left the
// client, which gets no ack for it.
//
// A client has at least a quarter of a second, and then as long as the given time, at
// most 5 seconds, to take what is queued for it and the close. Drain returns when all
// have gone. When ctx ends it cuts what clients have not taken
// of the connections that it has closed, leaves the others to Close, and returns the
// cause of ctx.
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
			leaving.Go(func() { c.leave(ctx, min(max(over, leastTaking), leaveTimeout)) })
		case <-c.conn.Context().Done(): // gone by itself
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// SendAway closes one connection as Drain does, whose id is that of an
// [engineio.Conn]: where what it runs through goes away, and the server stays. Its
// client reconnects over another route. SendAway returns when the client has the close or
// its time is up, immediately if there is no connection with that id. When ctx ends it does not wait
// for handlers any longer.
func (s *Server) SendAway(ctx context.Context, id string) {
	s.mu.Lock()
	c := s.clients[id]
	s.mu.Unlock()
	if c != nil {
		c.leave(ctx, leaveTimeout)
	}
}

// spread returns n moments of a time, in order: a random one in each of n equal
// parts of it.
func spread(n int, over time.Duration) []time.Duration {
	moments := make([]time.Duration, n)
	for i := range moments {
		moments[i] = time.Duration((float64(i) + rand.Float64()) / float64(n) * float64(over))
	}
	return moments
}

// leave ends the sockets behind what has arrived for them, and then the
// connection, which it cuts when its client has not taken the close in time.
func (c *client) leave(ctx context.Context, within time.Duration) {
	c.leaving.Store(true)
	handling, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	sockets := c.all()
	for _, s := range sockets {
		s.mail.putLast(c.srv.spawn, func() { s.afterAcks(func() { s.end(ServerShutdown) }) })
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
	_ = c.conn.Finish(taking) // the next node serves the client, whether or not it came to know why
}
