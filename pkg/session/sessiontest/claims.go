package sessiontest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/session"
)

func aClaimFencesOff(s *store) {
	old := s.create("p", long)
	claimed := s.claim("p", "b")
	if claimed.Fence != 2 || claimed.Owner != "b" {
		s.t.Errorf("Claim: %+v, want the fence 2 and the owner b", claimed)
	}
	for _, fence := range []uint64{0, 1, 3} { // in the past, and never issued
		old.Fence = fence
		if err := s.Save(s.deadline(), old, long); !errors.Is(err, session.ErrFenced) {
			s.t.Errorf("Save with the fence %d: %v, want ErrFenced", fence, err)
		}
		if err := s.Drop(s.deadline(), session.Ref{PID: "p", Fence: fence}); !errors.Is(err, session.ErrFenced) {
			s.t.Errorf("Drop with the fence %d: %v, want ErrFenced", fence, err)
		}
	}
	s.expect(claimed)
	claimed.User = "changed by the new owner"
	if err := s.Save(s.deadline(), claimed, long); err != nil {
		s.t.Errorf("Save: %v", err)
	}
	s.expect(claimed)
}

func aClaimCanBeRepeated(s *store) {
	s.create("p", long)
	for i, by := range []string{"b", "b", "c", "a"} {
		if sn := s.claim("p", by); sn.Fence != uint64(i+2) || sn.Owner != by {
			s.t.Errorf("claim %d: the fence %d and the owner %q, want %d, %q", i, sn.Fence, sn.Owner, uint64(i+2), by)
		}
	}
}

func aRefusedClaimChangesNothing(s *store) {
	want := s.create("p", long)
	refused := errors.New("not your session")
	sn, former, err := s.Claim(s.deadline(), "p", "b", time.Nanosecond, func(sn session.Session) error {
		expectSame(s.t, sn, want)
		return refused
	})
	if !errors.Is(err, refused) || sn.PID != "" || former != "" {
		s.t.Errorf("Claim: %+v, %q, %v, want only the error of check", sn, former, err)
	}
	s.expect(want)
	if err := s.Save(s.deadline(), want, long); err != nil {
		s.t.Errorf("Save by the owner: %v", err)
	}
}

// Many concurrent claims, while the former owner saves continuously: every fence is issued once,
// they grow without a gap, and the last one wins.
func concurrentClaimsGetDifferentFences(s *store) {
	const claimers, each = 8, 10
	first := s.create("p", long)
	ctx := s.deadline()
	var mu sync.Mutex
	owners := make(map[uint64]string)
	var wg sync.WaitGroup
	for c := range claimers {
		wg.Go(func() {
			for i := range each {
				by := fmt.Sprint(c, " ", i)
				sn, _, err := s.Claim(ctx, "p", by, long, func(session.Session) error { return nil })
				if err != nil {
					s.t.Errorf("Claim: %v", err)
					return
				}
				mu.Lock()
				if other, taken := owners[sn.Fence]; taken {
					s.t.Errorf("%s and %s both got the fence %d", other, by, sn.Fence)
				}
				owners[sn.Fence] = by
				mu.Unlock()
			}
		})
	}
	wg.Go(func() {
		for range each {
			if err := s.Save(ctx, first, long); err != nil && !errors.Is(err, session.ErrFenced) {
				s.t.Errorf("Save: %v", err)
			}
		}
	})
	wg.Wait()
	for fence := uint64(2); fence < 2+claimers*each; fence++ {
		if owners[fence] == "" {
			s.t.Errorf("no claim got the fence %d", fence)
		}
	}
	last, err := s.peek("p")
	if err != nil || last.Fence != 1+claimers*each || last.Owner != owners[last.Fence] {
		s.t.Errorf("in the end the fence is %d and the owner %q, %v, want %q", last.Fence, last.Owner, err, owners[last.Fence])
	}
}

// A claim takes the session that check accepted: if the session changes meanwhile, check is called
// again.
func claimsSeeWhatTheyClaim(s *store) {
	sn := s.create("p", long)
	changes := 0
	var seen session.Session
	claimed, _, err := s.Claim(s.deadline(), "p", "b", long, func(now session.Session) error {
		seen = now
		if changes < 3 {
			changes++
			sn.User = fmt.Sprint("user ", changes)
			return s.Save(s.deadline(), sn, long)
		}
		return nil
	})
	if err != nil || seen.User != "user 3" || claimed.User != "user 3" {
		s.t.Errorf(`check saw the user %q, and claimed was %q, %v, want "user 3", "user 3"`, seen.User, claimed.User, err)
	}
}
