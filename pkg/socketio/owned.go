package socketio

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/session"
)

// own notes that a session is served here, by this socket now.
func (s *Server) own(sock *Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owned[sock.pid] = sock
}

func (s *Server) disown(sock *Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owned[sock.pid] == sock {
		delete(s.owned, sock.pid)
	}
}

func (s *Server) owner(pid string) *Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owned[pid]
}

// runRefresh prolongs the sessions of the sockets that are alive.
func (s *Server) runRefresh(ctx context.Context) {
	period := RefreshPeriod(s.opts.RecoveryWindow)
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.refresh()
		}
	}
}

// refresh prolongs the sessions of the sockets whose clients answer. Those that
// turn out to be gone are cut, and those that moved are evicted.
func (s *Server) refresh() {
	now := time.Now()
	alive := s.opts.Engine.PingInterval + s.opts.Engine.PingTimeout/2
	s.mu.Lock()
	refs := make([]session.Ref, 0, len(s.owned))
	for pid, sock := range s.owned {
		if now.Sub(sock.client.conn.Alive()) <= alive {
			refs = append(refs, session.Ref{PID: pid, Fence: sock.fence})
		}
	}
	s.mu.Unlock()
	ctx, cancel := s.store()
	defer cancel()
	gone, err := s.sessions.Refresh(ctx, refs, s.opts.sessionLife())
	if err != nil {
		s.log.Warn("sessions could not be refreshed", zap.Error(err))
		return
	}
	for _, ref := range gone {
		if sock := s.owner(ref.PID); sock != nil {
			sock.background(sock.save) // which finds out what became of it
		}
	}
}
