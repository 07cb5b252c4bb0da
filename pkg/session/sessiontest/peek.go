package sessiontest

import (
	"errors"
	"time"

	"github.com/rejoin-io/rejoin/pkg/session"
)

// Stores that are no [session.Peeker] have no such rule.
func peekChangesNothing(s *store) {
	p, ok := s.Store.(session.Peeker)
	if !ok {
		return
	}
	const ttl = time.Minute
	created := s.create("pid", ttl)
	for range 2 {
		got, left, err := p.Peek(s.deadline(), "pid")
		if err != nil {
			s.t.Fatalf("Peek: %v", err)
		}
		expectSame(s.t, got, created)
		if left <= ttl-maxWait || left > ttl {
			s.t.Errorf("Peek: %v left, want nearly %v", left, ttl)
		}
	}
	if _, err := s.Refresh(s.deadline(), []session.Ref{{PID: "pid", Fence: created.Fence}}, long); err != nil {
		s.t.Fatalf("Refresh: %v", err)
	}
	if _, left, err := p.Peek(s.deadline(), "pid"); err != nil || left <= ttl {
		s.t.Errorf("Peek after Refresh: %v left, %v; want more than %v", left, err, ttl)
	}
	if _, _, err := p.Peek(s.deadline(), "unknown"); !errors.Is(err, session.ErrNotFound) {
		s.t.Errorf("Peek of an unknown session: %v, want %v", err, session.ErrNotFound)
	}
}
