package socketio

// The delivery of an event to one socket: offer is called by the feed, and write queues the event to
// the client.

// offer gives the socket a delivery, now or when its gate opens.
func (s *Socket) offer(d *delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage.gone() || !s.placed { // since the lookup
		return
	}
	if s.gate.closed() && d.volatile() {
		return // a held volatile event would be late
	}
	if s.stage == stageReplaying && s.gate.urgent(d) && (d.local || !s.receipt.given.Covers(d.ev.Position)) {
		s.pass(d)
		return
	}
	s.gate.commanded = s.gate.commanded || d.command != nil
	spilled, held := s.gate.spilled, s.gate.held
	s.gate.rereads = s.stage.catchingUp()
	if closed, refused := s.gate.hold(d, s.mayHold()); closed {
		if refused {
			s.client.limited(limitHeldBudget, int(s.ns.srv.held.most), "bytes")
		}
		switch {
		case !s.gate.spilled:
		case s.stage.catchingUp():
			s.unaskAll(append(held, d))
		case !spilled:
			s.cut(errQueueFull)
		}
		if d.local {
			s.ordered().gated = true
		}
		return
	}
	if s.receipt != nil && !d.local && !d.volatile() && s.isSilence(d.ev.Cursor.At) {
		s.observe(s.ns.srv.feed.cursor) // the former receipt has it if the client does not receive this one
	}
	looked := !s.unlisted && s.lingering == 0 // the index entry is still valid
	s.unlisted = false
	if d.simple && looked && len(s.rooms.apart) == 0 && d.excluded != s.id && !d.local && !s.newestJoin.Covers(d.ev.Position) {
		s.take(d) // found in the room, and every event this new is for it
	} else {
		s.pass(d)
	}
}

// mayHold returns how many bytes the gate may hold: as many as fit in the send queue. After a replay
// it is half of the queue less the last events of the replay, because later events follow
// immediately. The gates of a connection then open one after another. s.mu is held.
func (s *Socket) mayHold() int {
	maximum := s.ns.srv.opts.Engine.SendQueueBytes
	if s.stage.catchingUp() {
		return maximum/2 - s.ahead()
	}
	return maximum
}

// pass takes a delivery that is meant for the socket. s.mu is held.
func (s *Socket) pass(d *delivery) {
	switch {
	case s.stage.gone():
	case d.meant(&s.rooms, s.id):
		s.take(d)
	default:
		s.overlook(d)
		s.passOver(d)
		if d.responder != nil {
			s.unask(d)
		}
	}
}

// unask withdraws the socket from a query that is not for it. s.mu is held.
func (s *Socket) unask(d *delivery) {
	delete(s.acks, d.ackID)
	d.responder.settle(s, ack{Who: s.id, Unasked: true})
}

// unaskAll withdraws the socket from the queries among the dropped deliveries of its gate,
// because a replay does not repeat them. s.mu is held.
func (s *Socket) unaskAll(dropped []*delivery) {
	for _, d := range dropped {
		if d.responder != nil {
			s.unask(d)
		}
	}
}

// take executes a command for the socket, or queues an event to the client. s.mu is held.
func (s *Socket) take(d *delivery) {
	if !d.local && !d.late && s.gate.replayed(d.ev) {
		if d.responder != nil {
			s.unask(d)
		}
		return
	}
	switch d.ev.Kind {
	case kindEmit:
		s.write(d)
	case kindJoin:
		s.overlook(d)
		s.joinByCommand(d)
	case kindLeave:
		s.overlook(d)
		s.leaveByCommand(d)
	case kindDisconnect:
		s.gate.shut++ // permanently: an offset after the command would hide it from a recovery
		closeConn := d.ev.Flags&flagCloseConn != 0
		s.ns.srv.spawn(func() { s.disconnect(closeConn) })
	}
}

// write queues an event to the client. s.mu is held, so that the cursor in the event covers exactly
// the queued events.
func (s *Socket) write(d *delivery) {
	at := s.gate.stamp(&d.cursor, &s.rooms.born)
	ps := d.encode(at, s.recovers)
	if s.outgoing != nil {
		s.reportOutgoing(d)
	}
	if d.volatile() {
		if s.client.conn.TrySend(ps...) {
			s.ns.srv.stats.deliveries.Add(1)
		} else {
			s.ns.srv.stats.volatileDropped.Add(1)
		}
		return
	}
	if s.receipt != nil && !d.local && !d.late && d.hasOffset() {
		s.sends(*at)
	}
	if s.client.conn.Send(ps...) == nil {
		s.ns.srv.stats.deliveries.Add(1)
	}
}
