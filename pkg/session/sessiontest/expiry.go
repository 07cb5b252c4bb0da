package sessiontest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/session"
)

func refreshReportsExpiredSessions(s *store) {
	s.create("lives", long)
	s.create("moved", long)
	dropped := s.create("dropped", long)
	s.claim("moved", "b")
	if err := s.Drop(s.deadline(), session.Ref{PID: "dropped", Fence: dropped.Fence}); err != nil {
		s.t.Fatalf("Drop: %v", err)
	}
	refs := []session.Ref{{PID: "moved", Fence: 1}, {PID: "lives", Fence: 1}, {PID: "dropped", Fence: 1}, {PID: "unknown", Fence: 1}}
	gone, err := s.Refresh(s.deadline(), refs, long)
	if err != nil {
		s.t.Fatalf("Refresh: %v", err)
	}
	slices.SortFunc(gone, func(a, b session.Ref) int { return slices.Index(refs, a) - slices.Index(refs, b) })
	if want := []session.Ref{refs[0], refs[2], refs[3]}; !slices.Equal(gone, want) {
		s.t.Errorf("Refresh: %v are gone, want %v", gone, want)
	}
	s.expectGone("dropped")
	s.expectGone("unknown")
	if gone, err := s.Refresh(s.deadline(), nil, long); err != nil || len(gone) > 0 {
		s.t.Errorf("Refresh of nothing: %v, %v", gone, err)
	}

	// Many in one call, as nodes do.
	var many []session.Ref
	for i := range 3000 {
		many = append(many, session.Ref{PID: s.create(fmt.Sprint("many ", i), long).PID, Fence: 1})
	}
	many[1500].Fence = 9
	if gone, err := s.Refresh(s.deadline(), many, long); err != nil || !slices.Equal(gone, many[1500:1501]) {
		s.t.Errorf("Refresh of many: %d are gone, %v, want one", len(gone), err)
	}
}

// Each call that extends a session's expiry is compared with one that does not: when the latter's
// session has expired, the former's must still exist.
func sessionsExpire(s *store) {
	saved := s.create("saved", short)
	if err := s.Save(s.deadline(), saved, long); err != nil {
		s.t.Fatalf("Save: %v", err)
	}
	s.create("claimed", short)
	s.claim("claimed", "b")
	s.create("refreshed", short)
	if gone, err := s.Refresh(s.deadline(), []session.Ref{{PID: "refreshed", Fence: 1}}, long); err != nil || len(gone) > 0 {
		s.t.Fatalf("Refresh: %v are gone, %v", gone, err)
	}
	// Calls that shorten the expiry are tested as well.
	shortened := s.create("shortened", long)
	if err := s.Save(s.deadline(), shortened, short); err != nil {
		s.t.Fatalf("Save: %v", err)
	}
	s.create("fenced", short)
	if gone, err := s.Refresh(s.deadline(), []session.Ref{{PID: "fenced", Fence: 2}}, long); err != nil || len(gone) != 1 {
		s.t.Fatalf("Refresh with a wrong fence: %v are gone, %v", gone, err)
	}
	s.create("looked at", short)
	if _, err := s.peek("looked at"); err != nil {
		s.t.Fatalf("looking at a session: %v", err)
	}
	left := s.create("left alone", short)

	for _, pid := range []string{"left alone", "looked at", "fenced", "shortened"} {
		s.eventuallyGone(pid)
	}
	for _, pid := range []string{"saved", "claimed", "refreshed"} {
		if _, err := s.peek(pid); err != nil {
			s.t.Errorf("the session that was %s has expired: %v", pid, err)
		}
	}

	// An expired session stays missing until it is created again.
	if err := s.Save(s.deadline(), left, long); !errors.Is(err, session.ErrNotFound) {
		s.t.Errorf("Save of an expired session: %v, want ErrNotFound", err)
	}
	refs := []session.Ref{{PID: "left alone", Fence: 1}}
	if gone, err := s.Refresh(s.deadline(), refs, long); err != nil || !slices.Equal(gone, refs) {
		s.t.Errorf("Refresh of an expired session: %v are gone, %v, want %v", gone, err, refs)
	}
	if err := s.Drop(s.deadline(), refs[0]); err != nil {
		s.t.Errorf("Drop of an expired session: %v", err)
	}
	s.expectGone("left alone")
	s.expect(s.create("left alone", long))
}
