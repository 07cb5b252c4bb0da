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
	var p *pollingTransport
	if r.transport == WebSocket {
		p = c.claimUpgrade()
	}
	t, err := s.accept(c, w, r, s.upgradeHeader(w, r.Request))
	if err != nil {
		p.unclaim()
		return
	}
	probe := func() {
		err := t.writeNow(t.answer)
		t.answer = nil
		if err == nil && p != nil && p.upgrade(t) == nil {
			return // the wire now belongs to the connection
		}
		p.unclaim()
		_ = t.writeNow(closeFrame.frame) // hangUp closes it either way
		t.hangUp()
	}
	if !s.runProbe(t, probe) {
		t.cut()
	}
}

// claimUpgrade reserves the only upgrade that a session can make. It returns nil if the session
// cannot, or another request has reserved it.
func (c *Conn) claimUpgrade() *pollingTransport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.polling == nil || !c.polling.state.next(pollingUpgrading) {
		return nil
	}
	return c.polling
}

// unclaim allows another attempt, because the upgrade has failed. p may be nil.
func (p *pollingTransport) unclaim() {
	if p == nil {
		return
	}
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.state.next(pollingOpen)
	p.probing = nil
}

// upgrade makes t the connection's transport if the client completes the upgrade: it sends a probe,
// is answered, stops polling, and confirms.
func (p *pollingTransport) upgrade(t *websocketTransport) error {
	p.c.mu.Lock()
	p.probing = t // from here on the session's end interrupts the reads
	p.limitUpgrade()
	closed := p.c.closed != nil
	p.c.mu.Unlock()
	if closed {
		return errProbe
	}
	if err := t.expect(typePing, probe); err != nil {
		return err
	}
	if err := t.writeNow(probeAnswer.frame); err != nil {
		return err
	}
	p.releaseRequests()
	if err := t.expect(typeUpgrade, ""); err != nil {
		return err
	}
	return p.moveTo(t)
}

// limitUpgrade bounds the time that the peer takes for its upgrade. There is no limit while one of
// its POSTs is unanswered, because clients wait for the answer before they continue. A stock
// client whose probe is closed meanwhile never polls again. c.mu is held.
func (p *pollingTransport) limitUpgrade() {
	if p.probing == nil || p.c.closed != nil {
		return
	}
	deadline := time.Now().Add(p.c.server.o.UpgradeTimeout)
	if p.posting {
		deadline = time.Time{}
	}
	_ = p.probing.wire.SetReadDeadline(deadline) // a closed wire fails the read
}

// expect reads one packet, which must be the given one. A binary message is always data and never
// matches.
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

// releaseRequests answers the waiting GET and POST, and each later one until the upgrade is over, so
// that the client can stop polling.
func (p *pollingTransport) releaseRequests() {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.state.next(pollingProbed) {
		p.release()
		signal(p.taken) // a waiting POST can be answered now
	}
}

// moveTo makes t the transport. Packets that were queued and not yet taken by a poll are sent on
// it; Recv switches to it after the messages that were posted before.
func (p *pollingTransport) moveTo(t *websocketTransport) error {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !p.state.next(pollingUpgraded) {
		return errProbe
	}
	p.probing = nil
	_ = t.wire.SetReadDeadline(time.Time{}) // a closed wire fails the next read
	c.ws = t
	p.wake(getCloses)
	signal(p.arrived)
	if c.heart.phase != phaseIdle { // an answer sent by polling may be lost with it
		c.heart.ping()
		c.push(pingPacket)
	}
	c.kick()
	c.server.countUpgrade()
	return nil
}
