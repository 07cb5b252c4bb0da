package engineio

import (
	"context"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
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

	source source // used by Recv only
	ended  func() // returned by Admit; may be nil

	forgotten chan struct{} // closed when the id becomes unknown; nil unless awaited; guarded by the server's mu

	mu        sync.Mutex
	transport transport
	probing   *websocketTransport // a candidate to become the transport
	claimed   bool                // an upgrade is in progress or done
	closed    *CloseError         // nil while open

	// Invariant: if pending is not nil and the transport can write, writing is true. The writer
	// takes pending until it is nil.
	pending *batch
	writing bool
	taken   *batch    // by the writer
	queued  int       // bytes in pending and taken
	off     bool      // queued no longer counts
	moved   time.Time // when queued was 0, or bytes were last written
	copied  int       // bytes of a compressed response, which no other connection shares

	answer *http.ResponseController // of the GET that is the writer and is being answered; or nil

	room    chan struct{} // closed when queued shrinks; nil unless awaited
	resting chan struct{} // closed when writing ends; nil unless awaited

	timer  *time.Timer // nil until it is first set
	phase  phase
	due    time.Time
	pinged time.Time // when the last ping was queued
	alive  time.Time
	paused time.Time // since when it is not read; zero if it is

	resumed bool // after a pause, until the peer has answered a ping
}

// A transport carries a connection's packets. Its methods are called with the
// connection's mu held and do not block.
type transport interface {
	name() string
	// start starts a writer for what is queued. It returns false if the transport cannot write now.
	start() bool
	// end sends the close of the connection to the peer, once. It reports whether the peer has yet
	// to fetch it, so that the session must stay known until then.
	end(cause *CloseError, how ending) (unfetched bool)
	// cut ends pending operations immediately, and unblocks their callers.
	cut()
}

// A source supplies Recv with messages: the transport, or the previous one as long as that still
// has some.
type source interface {
	recv() (Message, error)
}

// An ending says what a connection's transport still has to send to the peer.
type ending uint8

const (
	endFlush ending = iota // what is queued, and a close
	endDrop                // a close only
	endCut                 // nothing: the peer has disconnected or does not read
)

func newConn(s *Server, id string, h *Handshake) *Conn {
	c := &Conn{server: s, id: id, handshake: h, alive: h.Time}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// run serves the connection on its own goroutine.
func (c *Conn) run() {
	defer c.served() // deferred, which saves a stack frame on each idle connection
	c.server.serve(c)
}

// served ends the connection after its serve function has returned or panicked. It is
// deferred.
func (c *Conn) served() {
	defer c.server.tasks.Done()
	if v := recover(); v != nil {
		c.server.o.panicked("serve", v, debug.Stack())
	}
	c.end(&CloseError{Reason: ForcedClose}, endFlush)
	c.server.tellEnded(c.ended) // here, because no lock is held

	c.mu.Lock()
	w, ok := c.transport.(*websocketTransport)
	var resting chan struct{}
	if ok && c.writing {
		resting = make(chan struct{})
		c.resting = resting
	}
	c.mu.Unlock()
	if !ok {
		return // polls fetch the rest, or do not
	}
	if resting != nil {
		<-resting // the timer cuts a writer that is stuck
	}
	w.hangUp()
	c.mu.Lock()
	c.disarm()
	c.mu.Unlock()
	c.server.finished(w)
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
	return c.transport.name()
}

// Context is done when the connection is closed; its cause is a *[CloseError].
func (c *Conn) Context() context.Context { return c.ctx }

// Alive returns when the client last answered a ping, or connected. While the
// connection is paused, and when it is resumed, the client counts as alive.
func (c *Conn) Alive() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.paused.IsZero() {
		return time.Now()
	}
	return c.alive
}

// Recv returns the client's next message, and waits for it. Only one goroutine at a time may call
// it, and it should be in Recv most of the time, because on a WebSocket Recv reads the wire on its
// caller's goroutine: this is how pings are answered and a disconnect is noticed. It follows an
// upgrade.
//
// Once the connection is closed, and the messages that a polling client had sent before are
// received, it returns the *[CloseError].
func (c *Conn) Recv() (Message, error) { return c.source.recv() }

// Send queues packets for the client, adjacent and in order. It never waits. If
// [Options.SendQueueBytes] or more are queued already, as [Conn.Queued] counts them, the client is
// too slow: the connection is closed instead, with [TransportError] wrapping [ErrSlowClient]. So a
// queue never exceeds that limit by more than one call adds, and no message is too large for a
// client that keeps up.
//
// If [Options.QueueBudget] is now exceeded, connections may soon be closed, wrapping
// [ErrQueueBudget]; this one may be among them. If the connection is closed, the error is its
// *[CloseError].
func (c *Conn) Send(ps ...*Packet) error {
	c.mu.Lock()
	err := c.offer(ps...)
	c.mu.Unlock()
	return err
}

// offer queues packets, or closes the connection because it is too slow. c.mu is
// held.
func (c *Conn) offer(ps ...*Packet) error {
	switch {
	case c.closed != nil:
		return c.closed
	case len(ps) == 0:
		return nil
	}
	if c.queued >= c.server.o.SendQueueBytes {
		c.server.counts.slowClients.Add(1)
		c.endLocked(&CloseError{Reason: TransportError, Err: ErrSlowClient}, endCut)
		return c.closed
	}
	if c.queue(ps); c.closed != nil {
		return c.closed
	}
	return nil
}

// TrySend queues packets like Send, unless the connection is behind: frames of 64 KiB or more are
// queued or being written, or [Options.SendQueueBytes] are queued. On long-polling the same limit
// holds between two polls. TrySend never closes the connection because of its own queue. It reports
// whether it queued the packets.
func (c *Conn) TrySend(ps ...*Packet) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil || len(ps) == 0 || c.queued >= c.server.o.SendQueueBytes || c.unsent() >= volatileQueueBytes {
		return false
	}
	c.queue(ps)
	return c.closed == nil
}

// unsent returns how many bytes are pending or being written. c.mu is held.
func (c *Conn) unsent() int {
	n := 0
	if c.pending != nil {
		n = c.pending.bytes
	}
	if c.taken != nil {
		n += c.taken.bytes
	}
	return n
}

// Queued returns the memory, in bytes, that is held for packets that are queued or being written:
// the frames and 144 bytes for each packet.
func (c *Conn) Queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queued
}

// WaitQueue waits until at most max bytes are queued, as Queued counts them. It returns early with the
// cause of ctx if that ends, or with the *[CloseError] if the connection does.
func (c *Conn) WaitQueue(ctx context.Context, max int) error {
	for {
		c.mu.Lock()
		if c.closed != nil || c.queued <= max {
			err := c.closed
			c.mu.Unlock()
			if err != nil {
				return err
			}
			return nil
		}
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Stalled reports whether something is queued and nothing was written for at least d: the client is
// not reading.
func (c *Conn) Stalled(d time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stalled(d)
}

// Close ends the connection. It does not wait: what is queued and the close itself follow on the
// transport for a bounded time, 5 seconds on a WebSocket and 30 for a polling client to fetch it.
// Only the first end of a connection counts: if there was one before, Close does nothing and
// returns that one's error.
func (c *Conn) Close(reason Reason) error {
	mine := &CloseError{Reason: reason}
	c.end(mine, endFlush)
	if first := c.cause(); first != mine {
		return first
	}
	return nil
}

// Finish waits until a closed connection's client has received the queue and the close, or its time
// to take them has expired. When ctx ends first, Finish cuts the connection and returns the cause
// of ctx. It does not wait for an open connection.
func (c *Conn) Finish(ctx context.Context) error {
	finished := c.server.finishing(c)
	if finished == nil {
		return nil
	}
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
		c.drop()
		return context.Cause(ctx)
	}
}

// cause returns why the connection is closed, or nil if it is open.
func (c *Conn) cause() *CloseError {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// poll serves a polling request of the connection's client.
func (c *Conn) poll(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	p, ok := c.transport.(*pollingTransport)
	c.mu.Unlock()
	if !ok {
		badRequest.answer(w, false)
		return
	}
	p.serve(w, r)
}

// drop cuts a closed connection's transport and removes its session.
func (c *Conn) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.transport.cut()
	c.server.forget(c)
}

// end closes the connection if it is open.
func (c *Conn) end(cause *CloseError, how ending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(cause, how)
}

// endLocked is end with c.mu held.
func (c *Conn) endLocked(cause *CloseError, how ending) {
	if c.closed != nil {
		return
	}
	c.closed = cause
	c.disarm()
	if c.probing != nil {
		c.probing.interrupt()
	}
	if how != endFlush {
		c.discard()
	}
	unfetched := c.transport.end(cause, how)
	c.cancel(cause)
	c.server.ended(c.transport.name(), cause.Reason)
	if !unfetched {
		c.server.forget(c)
	}
}
