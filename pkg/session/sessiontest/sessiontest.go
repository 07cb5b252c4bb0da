// Package sessiontest tests implementations of [session.Store] against its contract.
//
// An implementation's own test is a few lines:
//
//	func TestContract(t *testing.T) {
//		sessiontest.Run(t, func(*testing.T) session.Store { return session.NewMemory() })
//	}
package sessiontest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/session"
)

// A Maker creates an empty store for one test, and cleans up after it with t.Cleanup.
type Maker func(t *testing.T) session.Store

// Run tests an implementation. Its subtests are the contract's rules.
func Run(t *testing.T, newStore Maker) {
	for _, rule := range []struct {
		name string
		test func(*store)
	}{
		{"SessionsComeBackAsTheyWere", sessionsComeBackAsTheyWere},
		{"StoresKeepTheirOwnCopy", storesKeepTheirOwnCopy},
		{"CreateNeverReplaces", createNeverReplaces},
		{"SaveNeverCreates", saveNeverCreates},
		{"AClaimFencesOff", aClaimFencesOff},
		{"AClaimCanBeRepeated", aClaimCanBeRepeated},
		{"ARefusedClaimChangesNothing", aRefusedClaimChangesNothing},
		{"ConcurrentClaimsGetDifferentFences", concurrentClaimsGetDifferentFences},
		{"ClaimsSeeWhatTheyClaim", claimsSeeWhatTheyClaim},
		{"DropDeletes", dropDeletes},
		{"RefreshReportsExpiredSessions", refreshReportsExpiredSessions},
		{"SessionsExpire", sessionsExpire},
		{"PeekChangesNothing", peekChangesNothing},
		{"ContextsEndCalls", contextsEndCalls},
	} {
		t.Run(rule.name, func(t *testing.T) { rule.test(&store{newStore(t), t}) })
	}
}

const (
	long  = time.Hour       // longer than any test
	short = 1 * time.Second // expires within a test, but not before its next call
)

// maxWait is the maximum time that a test waits.
var maxWait = 20 * time.Second

// A store is a Store with helper methods for tests.
type store struct {
	session.Store
	t *testing.T
}

// deadline returns a context for operations that must not take long.
func (s *store) deadline() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), maxWait)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *store) create(pid string, ttl time.Duration) session.Session {
	s.t.Helper()
	sn := session.Session{PID: pid, ID: "id of " + pid, Namespace: "/", Owner: "a", Fence: 1}
	if err := s.Create(s.deadline(), sn, ttl); err != nil {
		s.t.Fatalf("Create: %v", err)
	}
	return sn
}

func (s *store) claim(pid, by string) session.Session {
	s.t.Helper()
	sn, _, err := s.Claim(s.deadline(), pid, by, long, nil)
	if err != nil {
		s.t.Fatalf("Claim: %v", err)
	}
	return sn
}

var errPeek = errors.New("only looking")

// peek returns a session without changing it: through a claim that is refused.
func (s *store) peek(pid string) (seen session.Session, err error) {
	s.t.Helper()
	_, _, err = s.Claim(s.deadline(), pid, "nobody", long, func(sn session.Session) error {
		seen = sn
		return errPeek
	})
	if errors.Is(err, errPeek) {
		err = nil
	}
	return seen, err
}

func (s *store) expect(want session.Session) {
	s.t.Helper()
	got, err := s.peek(want.PID)
	if err != nil {
		s.t.Fatalf("the session is not there: %v", err)
	}
	expectSame(s.t, got, want)
}

func (s *store) expectGone(pid string) {
	s.t.Helper()
	if sn, err := s.peek(pid); !errors.Is(err, session.ErrNotFound) {
		s.t.Fatalf("the session is still there: %+v, %v, want session.ErrNotFound", sn, err)
	}
}

// eventuallyGone waits until a session has expired.
func (s *store) eventuallyGone(pid string) {
	s.t.Helper()
	ctx := s.deadline()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := s.peek(pid); errors.Is(err, session.ErrNotFound) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatal("the session does not expire")
		}
	}
}

// expectSame compares sessions, for which empty and nil slices are the same.
func expectSame(t *testing.T, got, want session.Session) {
	t.Helper()
	same := slices.Equal(got.Data, want.Data) && slices.Equal(got.Rooms, want.Rooms)
	g, w := got, want
	g.Data, g.Rooms, w.Data, w.Rooms = nil, nil, nil, nil
	if !same || !reflect.DeepEqual(g, w) {
		t.Errorf("the session is\n%+v, want\n%+v", got, want)
	}
}
