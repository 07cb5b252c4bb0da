package socketio

import (
	"context"
	"errors"

	"github.com/rejoin-io/rejoin/pkg/session"
)

// save writes the session, if there is one to write. The caller holds the right to change. If the
// session no longer exists or has another owner, the socket ends. The session of a socket that has
// ended is not written.
func (s *Socket) save(ctx context.Context) error {
	srv := s.ns.srv
	s.mu.Lock()
	n := int(s.rooms.count)
	if s.pid == "" || s.fence == 0 {
		n = 0 // nothing is written, so it does not wait for other writers
	}
	s.mu.Unlock()
	ended, err := srv.writes.take(ctx, n)
	if err != nil {
		return err
	}
	defer ended()
	at := srv.feed.now()
	s.mu.Lock()
	if s.stage.gone() {
		s.mu.Unlock()
		return ErrDisconnected
	}
	if s.pid == "" || s.fence == 0 {
		s.mu.Unlock()
		return nil
	}
	s.observe(at)
	snapshot := s.snapshot()
	s.mu.Unlock()
	err = srv.sessions.Save(ctx, snapshot, srv.opts.sessionLife())
	switch {
	case errors.Is(err, session.ErrFenced):
		s.overtaken()
	case errors.Is(err, session.ErrNotFound):
		s.cut(err)
	}
	return err
}

// snapshot returns the session as it is now. s.mu is held.
func (s *Socket) snapshot() session.Session {
	s.forget()
	snapshot := session.Session{
		PID: s.pid, ID: s.id, Namespace: s.nsName, User: s.user, Data: s.data, Epoch: s.rooms.born.Epoch,
		Rooms: s.rooms.save(), Owner: string(s.ns.srv.adapter.Node()), Fence: s.fence,
	}
	if s.receipt != nil {
		if f := s.receipt.former; f != nil { // nodes that know only one take the last
			snapshot.Rooms = append(snapshot.Rooms, f.save())
		}
		snapshot.Rooms = append(snapshot.Rooms, s.receipt.save())
	}
	if s.kept != "" {
		snapshot.Rooms = append(snapshot.Rooms, saveKept(s.kept, s.rooms.born.Epoch))
	}
	return snapshot
}
