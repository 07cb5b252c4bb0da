package socketio

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// unconnected are the connections that have not had a connected socket yet, and are not connecting
// one. Each could stay for ConnectTimeout at the cost of one handshake, so their number is
// bounded: one more than the bound closes the oldest.
type unconnected struct {
	mu    sync.Mutex
	order list.List // of *client, the oldest first
}

// add adds a connection, and returns the oldest if there are too many.
func (u *unconnected) add(c *client, maximum int) (oldest *client) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c.unconnected != nil || c.settled {
		return nil
	}
	c.unconnected = u.order.PushBack(c)
	if u.order.Len() > maximum {
		oldest = u.order.Front().Value.(*client)
		u.take(oldest)
	}
	return oldest
}

// remove removes a connection, permanently if it has had a connected socket or has ended.
func (u *unconnected) remove(c *client, forGood bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c.settled = c.settled || forGood
	u.take(c)
}

// take removes a connection if it is in the list. u.mu is held.
func (u *unconnected) take(c *client) {
	if c.unconnected != nil {
		u.order.Remove(c.unconnected)
		c.unconnected = nil
	}
}

// startConnectTimer closes the connection unless its client connects to a namespace within
// ConnectTimeout: the first socket stops the timer.
func (c *client) startConnectTimer() {
	c.connectTimer = time.AfterFunc(c.srv.opts.ConnectTimeout, func() { c.conn.Close(engineio.ForcedClose) })
}

// waitForConnect records that the connection has no socket.
func (c *client) waitForConnect() {
	maximum := c.srv.opts.UnconnectedSessions
	if oldest := c.srv.unconnected.add(c, maximum); oldest != nil {
		oldest.limited(limitUnconnected, maximum, "sessions")
		oldest.cut()
	}
}

// ended is a context that has ended.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
