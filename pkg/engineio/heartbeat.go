package engineio

import (
	"sync/atomic"
	"time"
)

// A phase is the purpose of a connection's only timer.
type phase uint8

const (
	phaseNone     phase = iota // the timer is stopped
	phaseIdle                  // the next ping
	phaseWaiting               // the answer to a ping
	phaseExtended              // the same, put off because the client sends something else
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

// A heartbeat decides when to ping a client, and when it has been silent for too long. The
// connection's mu guards it.
type heartbeat struct {
	o        *Options
	timer    *time.Timer
	phase    phase
	due      time.Time // when the phase ends
	pinged   time.Time // when the last ping was queued
	alive    time.Time // when the client last answered a ping, sent data instead, or connected
	answered time.Time // the same, but a pause does not count as an answer
	paused   time.Time // since when the connection is not read; zero if it is read
	resumed  bool      // after a pause, until the client has answered a ping

	opened time.Time // constant
	// dataAt is the time, since the opening, at which data last arrived. It is cleared with the ping
	// whose answer is awaited. It needs no lock.
	dataAt atomic.Int64
}

// hears records that data arrives. It needs no lock.
func (h *heartbeat) hears() { h.dataAt.Store(int64(time.Since(h.opened))) }

// start sets the timer for the first ping.
func (h *heartbeat) start(expire func()) {
	now := time.Now()
	h.phase, h.due, h.answered = phaseIdle, now.Add(h.o.PingInterval), now
	h.timer = time.AfterFunc(untilTick(now, h.o.PingInterval), expire)
}

// untilTick returns a duration of at least d after which a timer is to fire. It ends with a tenth of a
// second, or less if d is short, so that the timers of many connections fire together: to wake an idle
// processor for each costs several times as much as the ping.
func untilTick(now time.Time, d time.Duration) time.Duration {
	tick := min(max(d/100, time.Millisecond), 100*time.Millisecond)
	return now.Add(d + tick - 1).Truncate(tick).Sub(now)
}

// arm sets the timer for a phase.
func (h *heartbeat) arm(p phase, d time.Duration) {
	now := time.Now()
	h.phase, h.due = p, now.Add(d)
	if h.late() { // the client must get a ping before that
		d = min(d, h.nextPing().Sub(now))
	}
	h.timer.Reset(untilTick(now, d))
}

// stop stops the timer.
func (h *heartbeat) stop() {
	h.phase = phaseNone
	h.timer.Stop()
}

// late reports whether a ping's answer is awaited although it may take longer than the ping
// timeout. Pings continue then, because a client that gets none for the ping interval and timeout
// closes the connection.
func (h *heartbeat) late() bool {
	return h.phase == phaseExtended || h.phase == phaseWaiting && (h.resumed || !h.paused.IsZero())
}

func (h *heartbeat) nextPing() time.Time { return h.pinged.Add(h.o.PingInterval) }

// ping begins to wait for the answer to a ping.
func (h *heartbeat) ping() {
	h.pinged = time.Now()
	h.dataAt.Store(0)
	h.arm(phaseWaiting, h.o.PingTimeout)
}

// A verdict is the action to take after the timer has fired.
type verdict uint8

const (
	verdictNone        verdict = iota
	verdictPing                // send a ping
	verdictSilent              // close: a ping was not answered
	verdictPaused              // close: the connection was not read for too long
	verdictUndelivered         // cut: the connection is closed, and its client has not taken the close
)

// expired returns the verdict, and sets the timer again unless that ends the connection. stalled says
// that the client has read nothing for the ping timeout.
//
// A client that sends without pause is not silent: its pong may be queued behind other messages for as
// long as it sends. If it has stalled, it cannot have the ping yet. No client is silent for longer than
// the ping interval and timeout: how long sessions and backlogs are kept depends on that.
func (h *heartbeat) expired(stalled bool) verdict {
	now, paused := time.Now(), !h.paused.IsZero()
	early := now.Before(h.due)
	switch {
	case h.phase == phaseNone || early && !(h.late() && !now.Before(h.nextPing())):
		return verdictNone // it was stopped or set again while this call was in flight
	case h.phase == phaseClosing:
		return verdictUndelivered
	case paused && now.Sub(h.paused) >= h.o.PauseTimeout:
		return verdictPaused
	case h.phase == phaseIdle || paused:
		h.ping() // unanswered ones continue, too: a client that gets none gives up
	case early:
		h.pinged = now
		h.arm(h.phase, h.due.Sub(now))
	case h.dataAt.Load() > 0 && !stalled:
		h.alive = h.opened.Add(time.Duration(h.dataAt.Swap(0)))
		h.answered = h.alive
		h.arm(phaseExtended, h.alive.Add(h.o.PingTimeout).Sub(now))
		return verdictNone
	default:
		return verdictSilent
	}
	return verdictPing
}

// awaits reports whether the answer to a ping is awaited.
func (h *heartbeat) awaits() bool { return h.phase == phaseWaiting || h.phase == phaseExtended }

// pong notes that the client has answered a ping.
func (h *heartbeat) pong() {
	if !h.awaits() {
		return
	}
	next := h.o.PingInterval
	if h.late() {
		next = time.Until(h.nextPing()) // the answer may be to an earlier ping
	}
	h.alive, h.resumed = time.Now(), false
	h.answered = h.alive
	h.arm(phaseIdle, next)
}

// pause notes that the connection is not read from now on.
func (h *heartbeat) pause() {
	h.paused = time.Now()
	if h.phase == phaseWaiting { // pings continue at their interval
		h.arm(phaseWaiting, time.Until(h.due))
	}
}

// resume notes that the connection is read again.
func (h *heartbeat) resume() {
	h.paused = time.Time{}
	h.alive, h.resumed = time.Now(), true
	if h.awaits() {
		h.arm(phaseWaiting, h.o.PingTimeout)
	}
}

// Alive returns when the client last answered a ping, sent something instead, or connected. While the
// connection is paused, and when it is resumed, the client counts as alive.
func (c *Conn) Alive() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.heart.paused.IsZero() {
		return time.Now()
	}
	return c.heart.alive
}

// Answered returns when the client last answered a ping, sent data instead, or connected. Unlike
// [Conn.Alive] it does not count a pause: the client may have disconnected before it.
func (c *Conn) Answered() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heart.answered
}

// Pause says that Recv is not called for a while, because received messages must be handled first.
// Until Resume the peer's silence does not close the connection: it may have answered, but the
// answer is not read. Pings continue. A connection that is paused for longer than
// [Options.PauseTimeout] is closed with [TransportError] wrapping [ErrPaused], so that a dead peer
// is detected. A call during a pause restarts it.
func (c *Conn) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heart.pause()
}

// Resume ends a pause. The peer has the whole ping timeout from here, because its answer may follow
// unread data.
func (c *Conn) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heart.resume()
}

// expire is called by the timer.
func (c *Conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.heart.expired(c.queue.stalled(c.server.o.PingTimeout)) {
	case verdictPing:
		c.push(pingPacket)
	case verdictSilent:
		c.closeLocked(&CloseError{Reason: PingTimeout}, closeDiscard)
	case verdictPaused:
		c.closeLocked(&CloseError{Reason: TransportError, Err: ErrPaused}, closeDiscard)
	case verdictUndelivered:
		c.cut()
	}
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
	case kind != typePong:
		if c.heart.awaits() { // reading the time costs more than the rest
			c.heart.hears()
		}
	case !c.queue.stalled(c.server.o.PingTimeout): // otherwise the peer cannot have the ping yet
		c.heart.pong()
	}
	return nil
}
