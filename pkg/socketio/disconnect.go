package socketio

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// end begins the end of the socket: delivery stops, and when its handlers have processed the
// events that had arrived, the socket is disconnected. Only the first call has an effect.
func (s *Socket) end(reason Reason) { s.endAt(reason, s.client.srv.feed.now()) }

// endAt is end with the feed's cursor, which is zero if the session must no longer be written.
func (s *Socket) endAt(reason Reason, at adapter.Cursor) {
	s.mu.Lock()
	if s.stage.gone() {
		s.mu.Unlock()
		return
	}
	s.flushAcks()
	s.wake()
	connected := s.stage.connected()
	if s.dismissed && connected && s.session != sessionMoved && reason.recoverable() {
		reason = ServerDisconnect // which has not reached it yet
	}
	s.observe(at) // later events are not given
	s.endDelivery()
	if connected && !reason.recoverable() && s.session != sessionMoved {
		s.session = sessionOver
	}
	cause := &DisconnectError{Reason: reason, Moved: s.session == sessionMoved}
	s.mu.Unlock()
	s.answerEnded()
	if reason == ServerDisconnect || cause.Moved { // earlier packets of the client may still arrive
		s.client.bar(s.nsName)
	}
	s.client.detach(s)
	if !connected {
		s.cancel(cause) // admit sees it and cleans up
		return
	}
	if reason == ServerDisconnect { // now that the client can react, and before OnDisconnect
		_ = s.client.send(&packet.Packet{Type: packet.Disconnect, Namespace: s.nsName})
	}
	grace := time.AfterFunc(handlerGrace, func() { s.cancel(cause) })
	settle := func() bool { return s.endSession(reason) }
	if s.recovers && !reason.recoverable() { // its client may reconnect before the handlers have returned
		moved := make(chan bool, 1)
		s.client.srv.spawn(func() { moved <- s.endSession(reason) })
		settle = func() bool { return <-moved }
	}
	s.mail.putLast(&s.client.srv.tasks, func() { s.finish(reason, grace, settle) })
}

// handlerGrace is how long the context of a socket's handlers outlives the socket. Clients commonly
// emit and immediately disconnect: without it, a publish by their handlers with that context would
// fail.
const handlerGrace = time.Second

// finish disconnects a socket that was connected. It is the mailbox's last task. grace ends the
// context of handlers that do not return. settle ends the session and reports whether the client
// has moved.
func (s *Socket) finish(reason Reason, grace *time.Timer, settle func() bool) {
	srv := s.ns.srv
	defer srv.exit(s.ns)
	s.mu.Lock()
	moved, onLeaving := s.session == sessionMoved, s.onLeaving
	s.mu.Unlock()
	if !moved && settle() {
		moved = true
		s.overtaken()
	}
	defer func() { s.depart(reason, grace, moved) }() // also if one of the functions ends the goroutine
	if !moved {
		s.report("OnDisconnecting", onLeaving, reason)
	}
}

// depart is the rest of finish, after OnDisconnecting.
func (s *Socket) depart(reason Reason, grace *time.Timer, moved bool) {
	srv := s.ns.srv
	ctx, cancel := srv.store()
	defer cancel()
	done, err := s.change(ctx) // a join in flight ends first
	s.mu.Lock()
	n := int(s.rooms.count)
	s.mu.Unlock()
	ended, _ := srv.turns.take(ctx, n) // continues without a turn if none is free: the socket must end
	names := s.unplace()
	ended()
	s.ns.reportRooms(s.ID(), false, names...)
	srv.owned.leave(s)
	s.ns.remove(s, s.ID())
	s.mu.Lock()
	if !moved {
		s.onLeaving = nil // have been called
	}
	moved = moved || s.session == sessionMoved // since it was checked
	s.stage.become(stageEnded)
	if s.ended != nil {
		close(s.ended)
	}
	onDisconnect := s.onDisconnect
	s.mu.Unlock()
	grace.Stop()
	s.cancel(&DisconnectError{Reason: reason, Moved: moved})
	if err == nil {
		done()
	}
	if moved {
		s.silent = reason // unless the claim fails
		return
	}
	srv.stats.disconnects.add(string(reason))
	s.report("OnDisconnect", onDisconnect, reason)
}

// awaitEnd waits until an ending socket has been disconnected and its session written, or until ctx
// ends.
func (s *Socket) awaitEnd(ctx context.Context) error {
	if err := waitFor(ctx, s.ctx.Done()); err != nil {
		return err
	}
	s.mu.Lock()
	if !s.stage.connected() { // finished, or never connected
		s.mu.Unlock()
		return nil
	}
	if s.ended == nil {
		s.ended = make(chan struct{})
	}
	ended := s.ended
	s.mu.Unlock()
	return waitFor(ctx, ended)
}

// endSession ends the session of a socket that has ended, or gives its client the whole recovery
// window from now. It reports whether the client has moved, because the message about that may
// have been lost: then there is no disconnect to report.
func (s *Socket) endSession(reason Reason) (moved bool) {
	ref := s.ref()
	if ref.PID == "" {
		return false // there is no session
	}
	srv := s.ns.srv
	ctx, cancel := srv.store()
	defer cancel()
	var snapshot session.Session
	writes := false
	if reason.recoverable() {
		done, err := s.change(ctx) // a write in flight comes first
		if err == nil {
			defer done()
		}
		s.mu.Lock()
		s.rooms.oweAhead(s.owed()) // while its client is away, commands may end its memberships
		snapshot = s.snapshot()
		writes = err == nil && s.placed // otherwise its memberships have been dropped
		s.mu.Unlock()
	}
	save := func() error { return srv.sessions.Save(ctx, snapshot, srv.opts.sessionLife()) }
	var err error
	if writes {
		err = save()
	}
	switch {
	case !reason.recoverable():
		err = srv.sessions.Drop(ctx, ref)
	case !writes || err != nil && !errors.Is(err, session.ErrFenced) && !errors.Is(err, session.ErrNotFound):
		var gone []session.Ref // Redis extends a session's expiry even if it has no memory for a write
		gone, err = srv.sessions.Refresh(ctx, []session.Ref{ref}, srv.opts.sessionLife())
		if len(gone) > 0 { // a write detects its new state
			err = save()
		}
	}
	switch {
	case errors.Is(err, session.ErrFenced):
		return true
	case err != nil && !errors.Is(err, session.ErrNotFound):
		srv.log.Warn("session not ended; it will expire", zap.Error(err))
	}
	return false
}

// evict ends a socket whose session has been claimed by a later connection of its client. After it
// returns, nothing more is delivered. The session is not touched, and no disconnect is reported.
// Its connection is closed, whether it is half-open or the loser of two concurrent claims; evict
// does not wait for that. The caller holds the ownership's lock.
func (s *Socket) evict() {
	s.mu.Lock()
	s.session = sessionMoved
	s.mu.Unlock()
	s.endAt(TransportClose, adapter.Cursor{})
	s.client.srv.spawn(s.client.closeMoved)
}

// closeMoved closes a connection from which a socket has been evicted: immediately if that was the
// last one, otherwise after the client has had time to claim the sessions of the others. A client
// that still uses the connection then would not notice that one of its namespaces is no longer
// served.
func (c *client) closeMoved() {
	if len(c.all()) > 0 {
		select {
		case <-time.After(recoverTimeout):
		case <-c.conn.Context().Done():
			return
		}
	}
	c.conn.Close(engineio.TransportClose)
	taking, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	_ = c.conn.Finish(taking) // its client is served elsewhere, and may never fetch the close
}

// Disconnect ends the socket and its session, after the events emitted to it before. It does not
// wait for a replay of missed events, because a client may receive that at any pace. With closeConn
// the client's sockets in all namespaces are disconnected, and then the connection is closed. Stock
// clients do not reconnect automatically after either. Disconnect returns when the disconnect has
// its place in the order, at the latest after some seconds.
func (s *Socket) Disconnect(closeConn bool) {
	if !s.hasEnded() {
		ctx, cancel := s.ns.srv.store()
		defer cancel()
		s.awaitPublished(ctx, true) // events in other partitions may come later than the command
		if s.Self().DisconnectSockets(ctx, closeConn) == nil {
			return
		}
	}
	s.disconnect(closeConn)
}

// disconnect performs a disconnect that Disconnect requested. Sockets of the connection that are not
// connected yet are disconnected once they are. If such a socket claims a session and its connection
// ends before that, the session has ended.
func (s *Socket) disconnect(closeConn bool) {
	targets := []*Socket{s}
	if closeConn {
		targets = s.client.all()
	}
	for _, t := range targets {
		t.mu.Lock()
		connected := t.stage.connected()
		if !connected && closeConn {
			t.dismissed = true
		}
		t.mu.Unlock()
		if connected {
			t.end(ServerDisconnect)
		}
	}
	if closeConn {
		s.client.conn.Close(engineio.ForcedClose)
	}
}

// Cut closes the socket's connection, and with it the client's sockets in other namespaces, in a
// way that makes stock clients reconnect: they pass the middlewares again and are recovered. It
// does not wait. A socket that has left its namespace, or was refused, no longer has a connection,
// and nothing is closed. Use Disconnect for clients that must not reconnect.
func (s *Socket) Cut() {
	s.mu.Lock()
	over := s.stage.gone() || s.ctx.Err() != nil
	s.mu.Unlock()
	if !over {
		s.client.conn.Close(engineio.TransportClose)
	}
}

// cut closes the connection in a way that makes stock clients reconnect. It does not wait, and may
// be called with s.mu held.
func (s *Socket) cut(cause error) {
	s.client.srv.log.Info("client cut; it can reconnect", zap.String("namespace", s.nsName), zap.Error(cause))
	s.client.srv.spawn(s.Cut)
}
