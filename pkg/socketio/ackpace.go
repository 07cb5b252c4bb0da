package socketio

import (
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// The release of held acks: in order, at the client's pace.

// releaseAcks sends the acks that no longer need to be held. s.mu is held.
func (s *Socket) releaseAcks() {
	o := s.order.Load()
	if o == nil || s.gate.closed() {
		return
	}
	n := o.due
	for n < len(o.held) && o.held[n].pending == 0 {
		n++
	}
	s.passAcks(o, n)
}

// passAcks sends the first n held acks at the client's pace. s.mu is held.
func (s *Socket) passAcks(o *ackOrder, n int) {
	for n > 0 && o.due == 0 && s.client.answer(o.held[0].packets) {
		s.removeAcks(o, 1)
		n--
	}
	for ; o.due < n; o.due++ { // they are answers that wait now
		a := o.held[o.due]
		s.ns.srv.held.bytes.Add(int64(-a.bytes))
		a.release = s.client.conn.HoldPaced(eventOverhead, a.packets...) // one goroutine waits with all of them
	}
	if o.due > 0 && !o.pacing {
		o.pacing = true
		s.client.srv.spawn(func() { s.paceAcks(o) })
	}
}

// paceAcks sends the acks that are due, until none is or the connection ends.
func (s *Socket) paceAcks(o *ackOrder) {
	c := s.client
	for {
		s.mu.Lock()
		if o.due == 0 || c.conn.Context().Err() != nil {
			o.pacing = false
			s.mu.Unlock()
			return
		}
		a := o.held[0]
		ps := a.packets
		s.mu.Unlock()
		turn := c.turn(ps)
		select {
		case turn <- struct{}{}:
		case <-c.conn.Context().Done():
			continue
		}
		if c.awaitSpace(c.conn.Context(), ps) == nil {
			s.mu.Lock()
			if o.due > 0 && o.held[0] == a { // otherwise the socket has ended
				s.sendAcks(o, 1)
			}
			s.mu.Unlock()
		}
		<-turn
	}
}

// flushAcks sends all held acks because the socket ends. s.mu is held.
func (s *Socket) flushAcks() {
	if o := s.order.Load(); o != nil {
		s.sendAcks(o, len(o.held))
		if o.timer != nil {
			o.timer.Stop()
		}
	}
}

// sendAcks sends the first n held acks. s.mu is held.
func (s *Socket) sendAcks(o *ackOrder, n int) {
	for _, a := range o.held[:n] {
		_ = s.client.conn.SendPaced(a.packets...) // a closed connection needs no ack
	}
	s.removeAcks(o, n)
}

// removeAcks removes the first n held acks, which have been sent. s.mu is held.
func (s *Socket) removeAcks(o *ackOrder, n int) {
	for _, a := range o.held[:n] {
		o.bytes -= a.bytes
		if a.release != nil {
			a.release()
		} else {
			s.ns.srv.held.bytes.Add(int64(-a.bytes))
		}
		a.packets = nil // the feed may refer to it for longer
	}
	o.due = max(0, o.due-n)
	if n > 0 && o.fewer != nil {
		close(o.fewer)
		o.fewer = nil
	}
	if o.held = slices.Delete(o.held, 0, n); len(o.held) > 0 {
		return
	}
	if o.emptied != nil {
		s.client.srv.spawn(o.emptied)
		o.emptied = nil
	}
}

// afterAcks calls f when no ack is held, possibly immediately.
func (s *Socket) afterAcks(f func()) {
	s.mu.Lock()
	if o := s.order.Load(); o != nil && len(o.held) > 0 {
		o.emptied = f
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	f()
}

// openGate removes one reason for the gate to be shut, passes the held deliveries, and then
// sends the acks that waited for the gate. s.mu is held.
func (s *Socket) openGate() { s.openGateAt(adapter.Cursor{}, nil) }

// openGateAt is openGate, and calls answer, unless it is nil, behind the held deliveries that a
// cursor covers, and before all others. s.mu is held.
func (s *Socket) openGateAt(at adapter.Cursor, answer func()) {
	s.gate.open(func(d *delivery) {
		if answer != nil && (d.local || !at.Covers(d.ev.Position)) {
			answer()
			answer = nil
		}
		s.pass(d)
	})
	if answer != nil {
		answer()
	}
	if s.gate.shut == 0 {
		s.wake()
	}
	if o := s.order.Load(); o != nil && !s.gate.closed() {
		o.gated = false
	}
	s.releaseAcks()
}
