package sessiontest

import (
	"context"
	"errors"
	"time"

	"github.com/rejoin-io/rejoin/pkg/session"
)

func sessionsComeBackAsTheyWere(s *store) {
	first := full("p")
	first.Fence = 77 // not set by the caller
	if err := s.Create(s.deadline(), first, long); err != nil {
		s.t.Fatalf("Create: %v", err)
	}
	first.Fence = 1
	s.expect(first)

	second := session.Session{PID: "p", ID: "other", Epoch: "F", Owner: "b", Fence: 1}
	if err := s.Save(s.deadline(), second, long); err != nil {
		s.t.Fatalf("Save: %v", err)
	}
	s.expect(second)

	third := full("p")
	if err := s.Save(s.deadline(), third, long); err != nil {
		s.t.Fatalf("Save: %v", err)
	}
	claimed, former, err := s.Claim(s.deadline(), "p", "b", long, nil)
	if err != nil || former != "a" {
		s.t.Errorf(`Claim: the former owner was %q, %v, want "a"`, former, err)
	}
	third.Owner, third.Fence = "b", 2
	expectSame(s.t, claimed, third)
	s.expect(third)
}

func full(pid string) session.Session {
	data := make([]byte, 256)
	for i := range data {
		data[i] = byte(i)
	}
	return session.Session{
		PID: pid, ID: "Zürich", Namespace: "/chat\x00", User: "\xff:{}", Data: data, Epoch: "E", Owner: "a", Fence: 1,
		Rooms: []session.Membership{
			{Kind: 0, Join: "E.1.0"},
			{Kind: 255, Name: "a\nb\x00", Join: "E.1.0", Leave: "E.2.zz"},
			{Kind: 1, Name: "", Join: ""},
		},
	}
}

func storesKeepTheirOwnCopy(s *store) {
	spoil := func(sn session.Session) {
		sn.Data[0] = 99
		sn.Rooms[0] = session.Membership{Name: "spoilt"}
	}
	want := full("p")
	for _, write := range []func(context.Context, session.Session, time.Duration) error{s.Create, s.Save} {
		given := full("p")
		if err := write(s.deadline(), given, long); err != nil {
			s.t.Fatal(err)
		}
		spoil(given)
		s.expect(want)
	}
	seen, err := s.peek("p")
	if err != nil {
		s.t.Fatal(err)
	}
	spoil(seen)
	s.expect(want)
	spoil(s.claim("p", "b"))
	want.Owner, want.Fence = "b", 2
	s.expect(want)
}

func createNeverReplaces(s *store) {
	first := s.create("p", long)
	other := full("p")
	if err := s.Create(s.deadline(), other, long); !errors.Is(err, session.ErrExists) {
		s.t.Errorf("Create: %v, want ErrExists", err)
	}
	s.expect(first)
	s.create("q", long)
	s.expect(first)
}

func saveNeverCreates(s *store) {
	if err := s.Save(s.deadline(), full("p"), long); !errors.Is(err, session.ErrNotFound) {
		s.t.Errorf("Save of an unknown session: %v, want ErrNotFound", err)
	}
	s.expectGone("p")
	if _, _, err := s.Claim(s.deadline(), "p", "b", long, nil); !errors.Is(err, session.ErrNotFound) {
		s.t.Errorf("Claim of an unknown session: %v, want ErrNotFound", err)
	}
	s.expectGone("p")
}

func dropDeletes(s *store) {
	s.create("p", long)
	s.create("q", long)
	claimed := s.claim("p", "b")
	ref := session.Ref{PID: "p", Fence: claimed.Fence}
	for range 2 { // the second time it no longer exists
		if err := s.Drop(s.deadline(), ref); err != nil {
			s.t.Errorf("Drop: %v", err)
		}
		s.expectGone("p")
	}
	if err := s.Save(s.deadline(), claimed, long); !errors.Is(err, session.ErrNotFound) {
		s.t.Errorf("Save of a dropped session: %v, want ErrNotFound", err)
	}
	if _, err := s.peek("q"); err != nil {
		s.t.Errorf("another session was deleted too: %v", err)
	}
	s.expect(s.create("p", long)) // the id is free
}

func contextsEndCalls(s *store) {
	want := s.create("p", long)
	ended, cancel := context.WithCancel(s.t.Context())
	cancel()
	ref := session.Ref{PID: "p", Fence: 1}
	errs := make(map[string]error)
	errs["Create"] = s.Create(ended, full("q"), long)
	errs["Save"] = s.Save(ended, full("p"), long)
	_, _, errs["Claim"] = s.Claim(ended, "p", "b", long, nil)
	_, errs["Refresh"] = s.Refresh(ended, []session.Ref{ref}, long)
	errs["Drop"] = s.Drop(ended, ref)
	for name, err := range errs {
		if !errors.Is(err, context.Canceled) {
			s.t.Errorf("%s with an ended context: %v, want context.Canceled", name, err)
		}
	}
	s.expect(want)
	s.expectGone("q")
}
