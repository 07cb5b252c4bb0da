package socketio

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// leaveTimeout bounds how long the close of a connection waits for handlers, for
// the sessions' last write, and for a polling client to take notice.
const leaveTimeout = storeTimeout

// Drain sends the clients away before a Close, so that none of them loses
// anything: new ones are refused from now on, which makes stock clients try
// again, and each connection is closed at a random moment of the given time, so
// that they don't come back elsewhere all at once.
//
// What has arrived on a connection by then is handled and acked before it is
// closed, its sessions have been stored and last for the whole window from then
// on, and its sockets' handlers hear "server shutting down". What arrives later is
// dropped, as if it had not left the client, which gets no ack for it.
//
// Drain returns when all have gone, or with the cause of ctx when that ends.
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
			leaving.Go(func() { c.leave(ctx) })
		case <-c.conn.Context().Done(): // gone by itself
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// SendAway closes one connection as Drain does, whose id is that of an
// [engineio.Conn]: where what it runs through goes away, and the server stays. Its
// client comes back, by another way. SendAway returns when the connection is
// closed, at once if there is none with that id. When ctx ends it does not wait
// for handlers any longer.
func (s *Server) SendAway(ctx context.Context, id string) {
	s.mu.Lock()
	c := s.clients[id]
	s.mu.Unlock()
	if c != nil {
		c.leave(ctx)
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
// connection.
func (c *client) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	c.leaving.Store(true)
	sockets := c.all()
	for _, s := range sockets {
		s.mail.putLast(c.srv.spawn, func() { s.afterAcks(func() { s.end(ServerShutdown) }) })
	}
	for _, s := range sockets {
		if s.awaitEnd(ctx) != nil { // a handler, or the store, takes too long
			s.end(ServerShutdown)
			s.cancel(&DisconnectError{Reason: ServerShutdown})
		}
	}
	if c.conn.Close(engineio.ForcedClose) == nil {
		c.srv.stats.drained.Add(1)
	}
	_ = c.conn.WaitFetched(ctx) // the next node serves the client, whether or not it came to know why
}
