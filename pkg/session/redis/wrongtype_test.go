package redis

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A session whose key another program has overwritten is lost, and no other: a refresh
// extends the rest.
func TestKeyOfTheWrongType(t *testing.T) {
	server := redistest.Start(t)
	s := New(server.Client(), Options{})
	t.Cleanup(func() { _ = s.Close() })
	ctx := within(t, 10*time.Second)
	var live []session.Ref
	for _, pid := range []string{"one", "bad", "three"} {
		mustCreate(t, s, pid)
		live = append(live, session.Ref{PID: pid, Fence: 1})
	}
	bad := mustGet(t, s, "bad")
	c := server.Client()
	if err := errors.Join(c.Del(ctx, s.key("bad")).Err(), c.SAdd(ctx, s.key("bad"), "x").Err()); err != nil {
		t.Fatal(err)
	}
	gone, err := s.Refresh(ctx, live, time.Hour)
	if err != nil || !slices.Equal(gone, live[1:2]) {
		t.Errorf("Refresh: %v gone, %v, want the one that was overwritten", gone, err)
	}
	for _, pid := range []string{"one", "three"} {
		if ttl := c.PTTL(ctx, s.key(pid)).Val(); ttl < 50*time.Minute {
			t.Errorf("%s is kept for %v, want at least %v", pid, ttl, 50*time.Minute)
		}
	}
	if _, _, err := s.Claim(ctx, "bad", "b", time.Hour, nil); !errors.Is(err, session.ErrUndecodable) {
		t.Errorf("Claim: %v, want ErrUndecodable", err)
	}
	bad.PID = "bad"
	if err := s.Create(ctx, bad, time.Hour); !errors.Is(err, session.ErrExists) {
		t.Errorf("Create: %v, want ErrExists", err)
	}
	if err := s.Save(ctx, bad, time.Hour); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Save: %v, want ErrNotFound", err)
	}
	if err := s.Drop(ctx, live[1]); err != nil {
		t.Errorf("Drop: %v", err)
	}
}

func mustGet(t *testing.T, s *Store, pid string) session.Session {
	t.Helper()
	sn, err := peek(t, s, pid)
	if err != nil {
		t.Fatal(err)
	}
	return sn
}
