package engineio

import "time"

// A phase is the purpose of a connection's only timer.
type phase uint8

const (
	phaseIdle     phase = iota // the next ping
	phaseWaiting               // the answer to a ping
	phaseExtended              // the same, put off once because the peer sent something else
	phaseClosing               // the end of a closed connection
)

// How long a closed connection may take to deliver the queue and the close itself. A polling client
// may be between two polls; a WebSocket is either connected or not. The peer has the last of these
// times to close its side, too.
const (
	pollingCloseTimeout   = 30 * time.Second
	websocketCloseTimeout = 5 * time.Second
	hangUpTimeout         = time.Second
)

// arm sets the timer for a phase. c.mu is held.
func (c *Conn) arm(p phase, d time.Duration) {
	c.phase = p
	now := time.Now()
	c.due = now.Add(d)
	if c.late() { // the peer must get a ping before that
		d = min(d, c.nextPing().Sub(now))
	}
	if d = untilTick(now, d); c.timer == nil {
		c.timer = time.AfterFunc(d, c.expire)
		return
	}
	c.timer.Reset(d)
}

// untilTick returns a duration of at least d after which a timer is to fire. It ends with a tenth of a
// second, or less if d is short, so that the timers of many connections fire together: to wake an idle
// processor for each costs several times as much as the ping.
func untilTick(now time.Time, d time.Duration) time.Duration {
	tick := min(max(d/100, time.Millisecond), 100*time.Millisecond)
	return now.Add(d + tick - 1).Truncate(tick).Sub(now)
}

// late reports whether a ping's answer is awaited although it may take longer than the ping
// timeout. Pings continue then, because a client that gets none for the ping interval and timeout
// closes the connection. c.mu is held.
func (c *Conn) late() bool {
	return c.phase == phaseExtended || c.phase == phaseWaiting && (c.resumed || !c.paused.IsZero())
}

func (c *Conn) nextPing() time.Time { return c.pinged.Add(c.server.o.PingInterval) }

// disarm stops the timer. c.mu is held.
func (c *Conn) disarm() {
	c.due = time.Time{}
	if c.timer != nil {
		c.timer.Stop()
	}
}

// expire is called by the timer.
func (c *Conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	early := now.Before(c.due)
	if c.due.IsZero() || early && !(c.late() && !now.Before(c.nextPing())) {
		return // it was stopped or set again while this call was in flight
	}
	switch open := c.phase != phaseClosing; {
	case open && c.pausedTooLong(now):
		c.endLocked(&CloseError{Reason: TransportError, Err: ErrPaused}, endDrop)
	case c.phase == phaseIdle, open && !c.paused.IsZero():
		c.ping() // unanswered ones continue, too: a client that gets none gives up
	case early:
		c.pinged = now
		c.push(pingPacket)
		c.arm(c.phase, c.due.Sub(now))
	case open:
		c.endLocked(&CloseError{Reason: PingTimeout}, endDrop)
	default:
		c.transport.cut()
		c.server.forget(c)
	}
}

// Pause says that Recv is not called for a while, because received messages must be handled first.
// Until Resume the peer's silence does not close the connection: it may have answered, but the
// answer is not read. Pings continue. A connection that is paused for longer than
// [Options.PauseTimeout] is closed with [TransportError] wrapping [ErrPaused], so that a dead peer
// is detected. A call during a pause restarts it.
func (c *Conn) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = time.Now()
	if c.closed == nil && c.phase == phaseWaiting { // pings continue at their interval
		c.arm(phaseWaiting, time.Until(c.due))
	}
}

// Resume ends a pause. The peer has the whole ping timeout from here, because its answer may follow
// unread data.
func (c *Conn) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = time.Time{}
	c.alive, c.resumed = time.Now(), true
	if c.closed == nil && (c.phase == phaseWaiting || c.phase == phaseExtended) {
		c.arm(phaseWaiting, c.server.o.PingTimeout)
	}
}

// Unread returns the memory, in bytes, of polling requests whose messages Recv has not all
// returned. It must not be called concurrently with Recv. During a pause, further requests of more
// than 8 KiB together are answered when it ends, except during an upgrade.
func (c *Conn) Unread() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.source.(*pollingTransport); ok && len(p.inbox) > 0 {
		return p.held
	}
	return 0
}

func (c *Conn) pausedTooLong(now time.Time) bool {
	return !c.paused.IsZero() && now.Sub(c.paused) >= c.server.o.PauseTimeout
}

// ping sends a ping to the peer. c.mu is held.
func (c *Conn) ping() {
	c.pinged = time.Now()
	c.arm(phaseWaiting, c.server.o.PingTimeout)
	c.push(pingPacket)
}

// hear processes a packet of n bytes from the peer, or its decoding error. It returns the end of
// the connection: one that the packet causes, or an earlier one.
func (c *Conn) hear(kind byte, n int, err error) *CloseError {
	if err != nil {
		return &CloseError{Reason: ParseError, Err: err}
	}
	c.server.counts.packetsIn.Add(1)
	c.server.counts.bytesIn.Add(uint64(n))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed != nil:
		return c.closed
	case kind == typeClose:
		return &CloseError{Reason: TransportClose, Err: errPeerClosed}
	case kind == typePing:
		return &CloseError{Reason: TransportError, Err: errClientPing}
	case kind == typePong:
		if c.stalled(c.server.o.PingTimeout) {
			return nil // the peer cannot have the ping yet
		}
		if c.phase == phaseWaiting || c.phase == phaseExtended {
			next := c.server.o.PingInterval
			if c.late() {
				next = time.Until(c.nextPing()) // the answer may be to an earlier ping
			}
			c.alive, c.resumed = time.Now(), false
			c.arm(phaseIdle, next)
		}
	case c.phase == phaseWaiting, c.phase == phaseExtended && c.resumed:
		// The pong may follow everything that was not read in a pause. Otherwise this happens only
		// once: the pong may be queued behind a large message that is still in flight.
		c.arm(phaseExtended, c.server.o.PingTimeout)
	}
	return nil
}
