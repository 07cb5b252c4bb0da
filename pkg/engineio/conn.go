package engineio

import (
	"context"
	"runtime/debug"
	"sync"
)

// A Message is a message from a client.
type Message struct {
	Binary bool
	Data   []byte // the receiver may keep and change it
}

// A Conn is one client connection, on either transport. Its methods are safe for concurrent use,
// except Recv.
//
// A Conn is done when its context is, and stays the same through an upgrade.
type Conn struct {
	server    *Server
	id        string
	handshake *Handshake

	ctx    context.Context
	cancel context.CancelCauseFunc

	ended     func()        // returned by Admit; may be nil
	forgotten chan struct{} // closed when the server forgets the connection

	mu     sync.Mutex
	closed *CloseError // nil while open

	// ws is the transport if it is set, otherwise polling is. After an upgrade polling stays until
	// Recv has its last message. Only Recv removes it, and so reads both without the lock.
	polling *pollingTransport
	ws      *websocketTransport

	// Invariant: if something is pending and the transport can write, writing is true. The writer
	// takes pending packets until there are none.
	queue   queue
	writing bool
	change  chan struct{} // closed when less is queued or writing ends; nil unless awaited

	heart heartbeat
}

// A closeMode says what the client of a closed connection still receives.
type closeMode uint8

const (
	closeFlush   closeMode = iota // the queued packets, and a close
	closeDiscard                  // a close only
	closeCut                      // nothing: the peer has disconnected or does not read
)

func newConn(s *Server, id string, h *Handshake) *Conn {
	c := &Conn{server: s, id: id, handshake: h, forgotten: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.queue.counts = &s.counts
	c.heart.o, c.heart.opened, c.heart.alive = &s.o, h.Time, h.Time
	return c
}

// run serves the connection on its own goroutine.
func (c *Conn) run() {
	defer c.served() // deferred, which saves a stack frame on each idle connection
	c.server.serve(c)
}

// served closes the connection after its serve function has returned or panicked, delivers the close,
// and waits until the server has forgotten the connection: Admit's count must include it while its
// memory is held. served is deferred.
func (c *Conn) served() {
	defer c.server.tasks.Done()
	if v := recover(); v != nil {
		c.server.o.panicked("serve", v, debug.Stack())
	}
	c.close(&CloseError{Reason: ForcedClose}, closeFlush)
	if c.polling != nil { // Recv is not called any more
		c.polling.drop()
	}
	c.hangUp()
	<-c.forgotten               // polls fetch the rest, or the timer cuts the connection
	c.server.callEnded(c.ended) // here, because no lock is held
}

// hangUp delivers the close of a connection on its WebSocket, if it has one.
func (c *Conn) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ws == nil {
		return
	}
	for c.writing { // the timer cuts a writer that is stuck
		change := c.nextChange()
		c.mu.Unlock()
		<-change
		c.mu.Lock()
	}
	c.mu.Unlock()
	c.ws.hangUp()
	c.mu.Lock()
	c.ws.ended = true
	c.settle()
}

// ID returns the session id. It is a secret between the client and this server: on long-polling,
// any peer that knows it can act as the client.
func (c *Conn) ID() string { return c.id }

// Handshake returns the data of the first request. It is shared; do not change it.
func (c *Conn) Handshake() *Handshake { return c.handshake }

// Transport returns the name of the current transport, "polling" or "websocket".
func (c *Conn) Transport() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.transport()
}

// transport is Transport with c.mu held.
func (c *Conn) transport() string {
	if c.ws != nil {
		return WebSocket
	}
	return Polling
}

// Context is done when the connection is closed; its cause is a *[CloseError].
func (c *Conn) Context() context.Context { return c.ctx }

// Recv returns the client's next message, and waits for it. Only one goroutine at a time may call
// it. It should be in Recv most of the time, because on a WebSocket Recv reads the wire on its
// caller's goroutine. Only then are pings answered and a disconnect is detected. It follows an
// upgrade.
//
// Once the connection is closed, and the messages that a polling client had sent before are
// received, it returns the *[CloseError].
func (c *Conn) Recv() (Message, error) {
	if c.polling != nil {
		return c.polling.recv()
	}
	return c.ws.recv()
}

// Unread returns the memory, in bytes, of polling requests whose messages Recv has not all
// returned. It must not be called concurrently with Recv. During a pause, further requests of more
// than 8 KiB together are answered when it ends, except during an upgrade.
func (c *Conn) Unread() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.polling; p != nil && len(p.inbox) > 0 {
		return p.held
	}
	return 0
}

// Close closes the connection. It does not wait: queued packets and the close itself are still
// sent for a bounded time, 5 seconds on a WebSocket and 30 seconds for a polling client to fetch
// them. Close returns nil if it has closed the connection. If the connection was closed before, Close
// has no effect and returns the [*CloseError] of that close.
func (c *Conn) Close(reason Reason) error {
	requested := &CloseError{Reason: reason}
	c.close(requested, closeFlush)
	if first := c.cause(); first != requested {
		return first
	}
	return nil
}

// Finish waits until a closed connection's client has received the queue and the close, or its time
// to take them has expired. When ctx ends first, Finish cuts the connection and returns the cause
// of ctx. It does not wait for an open connection.
func (c *Conn) Finish(ctx context.Context) error {
	if c.cause() == nil {
		return nil
	}
	select {
	case <-c.forgotten:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut()
	return context.Cause(ctx)
}

// cause returns why the connection is closed, or nil if it is open.
func (c *Conn) cause() *CloseError {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// err is cause as an error, with c.mu held.
func (c *Conn) err() error {
	if c.closed == nil {
		return nil
	}
	return c.closed
}

// close closes the connection if it is open.
func (c *Conn) close(cause *CloseError, how closeMode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked(cause, how)
}

// closeLocked is close with c.mu held.
func (c *Conn) closeLocked(cause *CloseError, how closeMode) {
	if c.closed != nil {
		return
	}
	c.closed = cause
	c.heart.stop()
	if how != closeFlush {
		c.discard()
	}
	switch {
	case c.ws == nil:
		c.polling.close(how)
	case how == closeCut:
		c.interrupt()
	default:
		c.ws.close()
	}
	c.cancel(cause)
	c.server.countClosed(c.transport(), cause.Reason)
	c.settle()
}

// shutDown closes the connection because the server closes. A polling client gets nothing more,
// unless its GET waits.
func (c *Conn) shutDown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked(&CloseError{Reason: ForcedClose, Err: ErrServerClosed}, closeFlush)
	if c.ws == nil && c.polling.state == pollingClosing { // it was closed before
		c.cut()
	}
}

// cut gives up a closed connection: its client receives nothing more. c.mu is held.
func (c *Conn) cut() {
	if c.ws == nil {
		c.polling.state.next(pollingGone)
	}
	c.interrupt()
}

// interrupt discards queued packets and makes pending writes of a closed connection fail. c.mu is
// held.
func (c *Conn) interrupt() {
	c.discard()
	if c.ws != nil {
		c.ws.cut()
		c.ws.ended = true
	} else {
		c.polling.wake(getCloses)
	}
	if b := c.queue.taken; b != nil && b.response != nil { // also one from before an upgrade
		_ = b.response.SetWriteDeadline(past) // has no effect if no deadline can be set
	}
	c.settle()
}

// finished reports whether the client can receive nothing more than the batch that is being written.
// c.mu is held.
func (c *Conn) finished() bool {
	return c.closed != nil && (c.ws != nil || c.polling.state == pollingGone)
}

// serving returns the transport that serves polling requests of the connection, nil if it has a
// WebSocket. known is false if the client can get nothing more.
func (c *Conn) serving() (p *pollingTransport, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ws == nil {
		p = c.polling
	}
	return p, !c.finished()
}

// settle makes the server forget the connection when nothing is left to write. c.mu is held.
func (c *Conn) settle() {
	if c.finished() && c.queue.bytes == 0 && (c.ws == nil || c.ws.ended) {
		c.heart.stop()
		c.server.forget(c)
	}
}
