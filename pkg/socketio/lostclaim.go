package socketio

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/session"
)

// A lostClaim is a claim of this node that has lost against a later one, or whose outcome is
// unknown. Its socket was evicted silently, because its client has moved. But the later claim may
// fail: it is refused, or the client disconnects before it is connected. Then the previous claim is
// disowned: its socket reports the disconnect if it was connected, and otherwise the claim before
// that one is disowned, on its node. In this way the last socket that was connected is found.
type lostClaim struct {
	session.Ref
	socket *Socket
	former string      // the node of the previous claim, or "" if the socket was connected
	expiry *time.Timer // while it is kept
}

// lostClaim returns the claim of a socket that has been evicted, or that must not be
// connected.
func (s *Socket) lostClaim() *lostClaim {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &lostClaim{Ref: session.Ref{PID: s.pid, Fence: s.fence}, socket: s, former: s.former}
}

// disown notifies a claim that all later ones have failed. It does not wait.
func (c *lostClaim) disown() {
	srv := c.socket.client.srv
	if c.former == "" {
		c.socket.mail.put(&srv.tasks, c.socket.reportMoved)
	} else {
		srv.spawn(func() { srv.notifyEviction(c.former, eviction{c.Ref, true}) })
	}
}

// withdraw ends the claim of a socket that was not connected, and disowns the previous one unless
// there is a later one: then that one's outcome decides. The client has the whole window from now,
// unless it is to be disconnected.
func (s *Socket) withdraw() {
	s.mu.Lock()
	owes, reason := s.former != "" && s.session != sessionMoved, TransportClose
	if s.dismissed {
		reason = ServerDisconnect
	}
	s.mu.Unlock()
	if owes {
		s.endClaim(reason)
	}
	s.client.srv.owned.leave(s)
}

// endClaim ends the session of a socket that was not connected, and disowns its claim unless there is a
// later one.
func (s *Socket) endClaim(reason Reason) {
	if s.endSession(reason) {
		s.overtaken() // the later claim may not have been answered yet
	} else {
		s.lostClaim().disown()
	}
}

// reportMoved reports the disconnect that finish has not reported. It runs in the mailbox.
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
	s.report("OnDisconnecting", onLeaving, reason)
	s.report("OnDisconnect", onDisconnect, reason)
}

// report calls handlers of a disconnect. After a panic the remaining ones still run.
func (s *Socket) report(callback string, fs []func(Reason), reason Reason) {
	for _, f := range fs {
		s.guard(callback, func() { f(reason) })
	}
}

// overtaken ends a socket whose session has been claimed, according to the store.
func (s *Socket) overtaken() {
	ref := s.ref()
	ref.Fence++
	s.client.srv.owned.overtaken(ref)
}

// giveUpPeriod is the interval between retries of giveUp.
const giveUpPeriod = time.Second

var errClaimed = errors.New("socketio: claimed already")

// giveUp settles a claim whose outcome is unknown: the store may have executed it, or may
// execute it late. So the session is claimed again, from the state in which that claim found it,
// until the store answers: then exactly one of the two has been executed, or another one before
// them. A client that was served until then can reconnect.
func (s *Server) giveUp(c *lostClaim) {
	self := string(s.adapter.Node())
	for deadline := time.Now().Add(s.opts.sessionLife()); time.Now().Before(deadline); {
		var found session.Session
		ctx, cancel := s.store()
		_, _, err := s.sessions.Claim(ctx, c.PID, self, s.opts.sessionLife(), func(now session.Session) error {
			if found = now; now.Fence < c.Fence {
				return nil
			}
			return errClaimed
		})
		cancel()
		switch {
		case err == nil, errors.Is(err, errClaimed):
			later := eviction{session.Ref{PID: c.PID, Fence: max(c.Fence, found.Fence)}, false}
			s.evict(later)
			s.notifyEviction(c.former, later) // the latest knows only its own predecessor
			if found.Fence < c.Fence || found.Fence == c.Fence && found.Owner == self {
				s.owned.settle(c)
			} // otherwise a later one, if any, reports its outcome
			return
		case errors.Is(err, session.ErrNotFound), errors.Is(err, session.ErrUndecodable):
			return
		}
		s.log.Debug("claim outcome unknown", zap.Error(err))
		select {
		case <-time.After(giveUpPeriod):
		case <-s.ctx.Done():
			return
		}
	}
}
