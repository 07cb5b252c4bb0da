package engineio

import (
	"context"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// A Message is what a client sent.
type Message struct {
	Binary bool
	Data   []byte // the receiver's to keep and to change
}

// A Conn is one client, whatever transport it is on. Its methods may be called
// by any number of goroutines at once, except Recv.
//
// A Conn is done when its context is, and stays the same through an upgrade.
type Conn struct {
	server    *Server
	id        string
	handshake *Handshake

	ctx    context.Context
	cancel context.CancelCauseFunc

	source source // belongs to Recv
	ended  func() // what Admit returned; nil if that is nothing

	forgotten chan struct{} // closed when the id becomes unknown; nil if nobody waits; guarded by the server's mu

	mu        sync.Mutex
	transport transport
	probing   *websocketTransport // asks to become the transport
	claimed   bool                // an upgrade is being made, or was
	closed    *CloseError         // nil while open

	// Invariant: if pending is not nil and the transport has somebody to write
	// for, writing is true. The writer takes pending until there is none.
	pending *batch
	writing bool
	taken   *batch // by the writer
	queued  int    // what pending and taken hold, in bytes
	off     bool   // queued is not counted any more
	moved   int32  // the tick of the wheel at which queued was 0, or bytes were last written
	copied  int32  // bytes of a compressed response, which no other connection shares

	answer *http.ResponseController // of the GET that is the writer and is being answered; or nil

	room    chan struct{} // closed when queued shrinks; nil if nobody waits
	resting chan struct{} // closed when writing ends; nil if nobody waits

	timer  timer
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
	// start sets a writer to work on what is queued. It returns false if there is
	// nobody to write for.
	start() bool
	// end brings the close of the connection to the peer, once. It reports whether
	// the peer has yet to fetch it, and must find the session until then.
	end(cause *CloseError, how ending) (unfetched bool)
	// cut ends at once what is still under way, and unblocks who waits for it.
	cut()
}

// A source is where Recv gets messages from: the transport, or the one before it
// for as long as that has some.
type source interface {
	recv() (Message, error)
}

// An ending says what a connection's transport still has to bring to the peer.
type ending uint8

const (
	endFlush ending = iota // what is queued, and a close
	endDrop                // a close only
	endCut                 // nothing: the peer is gone or does not read
)

func newConn(s *Server, id string, h *Handshake) *Conn {
	c := &Conn{server: s, id: id, handshake: h, alive: h.Time}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.timer.fire = c.expire
	return c
}

// run serves the connection on a goroutine of its own.
func (c *Conn) run() {
	defer c.served() // deferred rather than a frame more on each idle connection's stack
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
	c.server.tellEnded(c.ended) // here, where no lock is held

	c.mu.Lock()
	w, ok := c.transport.(*websocketTransport)
	var resting chan struct{}
	if ok && c.writing {
		resting = make(chan struct{})
		c.resting = resting
	}
	c.mu.Unlock()
	if !ok {
		return // the rest is fetched by polls, or is not
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

// ID returns the session id. It is a secret between the client and this server:
// on long-polling, whoever knows it is the client.
func (c *Conn) ID() string { return c.id }

// Handshake returns what the first request said. It is shared; do not change it.
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

// Recv returns the client's next message, and waits for it. One goroutine at a
// time may call it, and should be in it most of the time: pings are answered and
// a client's leaving is noticed by it, because on a WebSocket it reads the wire
// on the goroutine of its caller. It follows an upgrade by itself.
//
// Once the connection is closed, and what a polling client had sent before is
// received, it returns the *[CloseError].
func (c *Conn) Recv() (Message, error) { return c.source.recv() }

// Send queues packets for the client, adjacent and in order. It never waits.
// If [Options.SendQueueBytes] or more are queued already, as [Conn.Queued] counts them, the
// client is too slow: the connection is closed instead, with [TransportError] wrapping
// [ErrSlowClient].
// So a queue is never longer than that and what one call adds, and no message is
// too large for a client that keeps up. If [Options.QueueBudget] is exceeded now,
// connections may be closed soon, wrapping [ErrQueueBudget]; this one may be among
// them. The error is the *[CloseError] of a
// connection that is closed.
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

// TrySend queues packets like Send, unless the connection is behind: frames of 64 KiB or
// more wait or are being written, or [Options.SendQueueBytes] are queued. On
// long-polling the same limit holds between two polls. TrySend never closes the
// connection because of its own queue. It reports whether it queued the packets.
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

// Queued returns how many bytes of memory are held for what waits to be written, or is
// being written: the frames and 144 bytes for each packet.
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

// Stalled reports whether something is queued of which nothing was written for at least d:
// the client takes nothing.
func (c *Conn) Stalled(d time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stalled(d)
}

// Close ends the connection. It does not wait: what is queued and the close
// itself follow on the transport for a bounded time, 5 seconds on a WebSocket and
// 30 for a polling client to come and fetch it. Only the first end of a connection
// counts: if there was one before, Close does nothing and returns that.
func (c *Conn) Close(reason Reason) error {
	mine := &CloseError{Reason: reason}
	c.end(mine, endFlush)
	if first := c.cause(); first != mine {
		return first
	}
	return nil
}

// Finish waits until a closed connection's client has what was queued and the close,
// or its time to take them is up. When ctx ends first, Finish cuts the connection and
// returns the cause of ctx. An open connection is not waited for.
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

// cause returns why the connection is closed, nil if it is open.
func (c *Conn) cause() *CloseError {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// poll serves a request of the connection's client by polling.
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
