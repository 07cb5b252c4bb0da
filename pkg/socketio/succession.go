package socketio

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/session"
)

// A predecessor is the socket that a claim has evicted, or the node that has it. It
// was evicted silently, because its client has moved. But until the claimant is
// connected that may come to nothing: the claim is refused, or the client is gone
// again. Then the predecessor is notified, and reports the disconnect.
type predecessor struct {
	socket *Socket     // of this node, or nil
	node   string      // another one
	claim  session.Ref // that has evicted it
}

// succeed notes which socket this one has evicted. It is forgotten at CONNECT.
func (s *Socket) succeed(p predecessor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.former = &p
}

// abandon notifies the predecessor of a socket that is not connected.
func (s *Socket) abandon() {
	s.mu.Lock()
	p := s.former
	s.mu.Unlock()
	switch {
	case p == nil:
	case p.socket != nil:
		p.socket.disown()
	default:
		s.client.srv.sendEviction(p.node, eviction{p.claim, true})
	}
}

// disown notifies an evicted socket that the claim on its session has failed. One
// that was never connected has evicted another, which is then notified.
func (s *Socket) disown() {
	s.mail.put(s.client.srv.spawn, s.reportMoved) // which never runs if it was not connected
	s.abandon()
}

// withdraw ends the claim of a socket that was not connected, unless there is a later
// one, which becomes responsible for what this one has evicted. The client has the
// whole window from now.
func (s *Socket) withdraw() {
	s.mu.Lock()
	owes := s.former != nil && !s.moved
	s.mu.Unlock()
	if owes && s.endSession(TransportClose) {
		s.overtaken() // the later claim may not have been answered yet
	} else if owes {
		s.abandon()
	}
	s.client.srv.owned.leave(s)
}

// reportMoved reports the disconnect that finish has kept silent about. It runs in
// the mailbox.
func (s *Socket) reportMoved() {
	reason := s.silent
	if reason == "" {
		return
	}
	s.silent = ""
	s.mu.Lock()
	onLeaving, onDisconnect := s.onLeaving, s.onDisconnect
	s.mu.Unlock()
	s.client.srv.stats.disconnects.add(string(reason))
	s.tell("OnDisconnecting", onLeaving, reason)
	s.tell("OnDisconnect", onDisconnect, reason)
}

// tell calls handlers of a disconnect. A panic does not keep the others from cleaning
// up.
func (s *Socket) tell(callback string, fs []func(Reason), reason Reason) {
	for _, f := range fs {
		s.guard(callback, func() { f(reason) })
	}
}

// overtaken ends a socket of which the store says that its session has been claimed.
func (s *Socket) overtaken() {
	s.mu.Lock()
	ref := session.Ref{PID: s.pid, Fence: s.fence + 1}
	s.mu.Unlock()
	s.client.srv.owned.overtaken(ref)
}

// giveUp ends a claim of which the outcome is unknown: the owner that was seen before
// would not learn of it from anybody else. It is evicted even if the claim may not
// have been executed; the client, which is not connected now, can reconnect either way.
func (s *Server) giveUp(found session.Session) {
	claim := session.Ref{PID: found.PID, Fence: found.Fence + 1}
	ctx, cancel := s.store()
	defer cancel()
	both := []session.Ref{claim, {PID: found.PID, Fence: found.Fence}}
	gone, err := s.sessions.Refresh(ctx, both, s.opts.sessionLife())
	if err != nil {
		s.log.Debug("claim outcome unknown", zap.Error(err))
	}
	later := err == nil && len(gone) == len(both) // which tells the owner what becomes of it
	s.tellEviction(found.Owner, eviction{claim, !later})
}

// dropRefused ends a session that was claimed and could not be recovered.
func (s *Socket) dropRefused(ctx context.Context, ref session.Ref) {
	srv := s.ns.srv
	err := srv.sessions.Drop(ctx, ref)
	if errors.Is(err, session.ErrFenced) {
		s.overtaken()
		return
	}
	if err != nil {
		srv.log.Warn("refused session not deleted; it will expire", zap.Error(err))
	}
	s.abandon()
	s.mu.Lock()
	s.former = nil
	s.mu.Unlock()
}
