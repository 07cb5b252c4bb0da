package engineio

import (
	"errors"
	"net/http"
	"time"
)

var errProbe = errors.New("not the packet that an upgrade expects")

// upgrade serves a request to move a session to a WebSocket. The session stays on polling unless
// the client completes the upgrade.
func (s *Server) upgrade(w http.ResponseWriter, r *request, c *Conn) {
	claimed := r.transport == WebSocket && c.claim()
	t, err := s.accept(c, w, r, s.upgradeHeader(w, r.Request))
	if err != nil {
		if claimed {
			c.unclaim()
		}
		return
	}
	s.linger(t)
	probe := func() {
		if claimed && t.probe() == nil {
			return // the wire now belongs to the connection
		}
		_ = t.writeNow(closeFrame) // hangUp ends it either way
		t.hangUp()
		s.finished(t)
	}
	if !s.spawn(probe) {
		t.cut()
		s.finished(t)
	}
}

// claim reserves the only upgrade that a session can make.
func (c *Conn) claim() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.claimed || c.closed != nil {
		return false
	}
	c.claimed = true
	return true
}

// unclaim allows another attempt, because the upgrade has failed.
func (c *Conn) unclaim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claimed, c.probing = false, nil
	if p, ok := c.transport.(*pollingTransport); ok {
		p.probed = false
	}
}

// probe makes the transport the connection's if the client completes the upgrade: it sends a probe,
// is answered, stops polling, and confirms.
func (t *websocketTransport) probe() error {
	err := t.handshake()
	if err != nil {
		t.c.unclaim()
	}
	return err
}

func (t *websocketTransport) handshake() error {
	c := t.c
	c.mu.Lock()
	if c.closed != nil {
		c.mu.Unlock()
		return c.closed
	}
	c.probing = t // from here on the session's end interrupts the reads
	c.limitUpgrade()
	c.mu.Unlock()

	if err := t.expect(typePing, probe); err != nil {
		return err
	}
	if err := t.writeNow(probeAnswer); err != nil {
		return err
	}
	c.releasePolls()
	if err := t.expect(typeUpgrade, ""); err != nil {
		return err
	}
	return c.moveTo(t)
}

// limitUpgrade bounds the time that the peer takes for its upgrade. There is no limit while one of
// its POSTs is unanswered, because clients do not continue before that. A stock client whose probe
// is closed meanwhile never polls again. c.mu is held.
func (c *Conn) limitUpgrade() {
	if c.probing == nil || c.closed != nil {
		return
	}
	deadline := time.Now().Add(c.server.o.UpgradeTimeout)
	if p, ok := c.transport.(*pollingTransport); ok && p.posting {
		deadline = time.Time{}
	}
	_ = c.probing.wire.SetReadDeadline(deadline) // a closed wire fails the read
}

// expect reads one packet, which must be the given one: a binary message is always data, whatever
// its content.
func (t *websocketTransport) expect(kind byte, data string) error {
	binary, b, err := t.read()
	if err != nil {
		return err
	}
	if binary || string(b) != string(kind)+data {
		return errProbe
	}
	return nil
}

// releasePolls answers the waiting GET and POST, and each later one until the upgrade is over, so
// that the client can stop polling.
func (c *Conn) releasePolls() {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.transport.(*pollingTransport)
	if !ok || c.closed != nil {
		return
	}
	p.probed = true
	p.release()
	signal(p.taken) // a waiting POST can be answered now
}

// moveTo makes t the transport. Packets that were queued and not yet taken by a poll are sent on
// it; Recv switches to it after the messages that were posted before.
func (c *Conn) moveTo(t *websocketTransport) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probing = nil
	if c.closed != nil {
		return c.closed
	}
	old, ok := c.transport.(*pollingTransport)
	if !ok {
		return errProbe
	}
	_ = t.wire.SetReadDeadline(time.Time{}) // a closed wire fails the next read
	c.transport = t
	c.server.finished(t)
	old.retire()
	if c.phase != phaseIdle {
		c.ping() // an answer sent by polling may be lost with it
	}
	c.kick()
	c.server.upgraded()
	return nil
}
