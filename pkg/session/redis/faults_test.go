package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/session"
)

const (
	long = time.Hour
	// brief is Options.Timeout in tests that wait for it. It is long enough for answers of
	// a busy machine.
	brief = time.Second
)

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// mustCreate makes the session of a private id, as the node a.
func mustCreate(t testing.TB, s *Store, pid string) session.Session {
	t.Helper()
	sn := session.Session{PID: pid, ID: "id", Namespace: "/", Owner: "a", Fence: 1}
	if err := s.Create(within(t, 20*time.Second), sn, long); err != nil {
		t.Fatalf("Create: %v", err)
	}
	return sn
}

var errPeek = errors.New("only looking")

// peek returns the session unchanged.
func peek(t testing.TB, s *Store, pid string) (seen session.Session, err error) {
	t.Helper()
	_, _, err = s.Claim(within(t, 20*time.Second), pid, "nobody", long, func(sn session.Session) error {
		seen = sn
		return errPeek
	})
	if errors.Is(err, errPeek) {
		err = nil
	}
	return seen, err
}

// A save that was abandoned, and reaches Redis after its successor, has no effect.
func TestALateWriteDoesNotUndoANewerOne(t *testing.T) {
	server := redistest.Start(t)
	direct := open(t, server.URL(), Options{})
	for name, late := range map[string]func(ctx context.Context, s *Store, sn session.Session, hold func()) error{
		"save": func(ctx context.Context, s *Store, sn session.Session, hold func()) error {
			hold()
			sn.User = "late"
			return s.Save(ctx, sn, time.Minute)
		},
		"drop": func(ctx context.Context, s *Store, sn session.Session, hold func()) error {
			hold()
			return s.Drop(ctx, session.Ref{PID: sn.PID, Fence: sn.Fence})
		},
		"claim": func(ctx context.Context, s *Store, sn session.Session, hold func()) error {
			_, _, err := s.Claim(ctx, sn.PID, "late", long, func(session.Session) error {
				hold() // after the read
				return nil
			})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay := startRelay(t, server.Addr)
			s := open(t, relay.url(), Options{Timeout: brief})
			sn := mustCreate(t, s, name)
			// Redis knows the scripts, so that the held commands are the only ones.
			if err := s.Save(within(t, 20*time.Second), sn, long); err != nil {
				t.Fatal(err)
			}
			other := mustCreate(t, s, "other "+name)
			if _, _, err := s.Claim(within(t, 20*time.Second), other.PID, "b", long, nil); err != nil {
				t.Fatal(err)
			}
			if err := s.Drop(within(t, 20*time.Second), session.Ref{PID: other.PID, Fence: 2}); err != nil {
				t.Fatal(err)
			}
			if err := late(within(t, 100*time.Millisecond), s, sn, relay.hold); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("the held call: %v, want context.DeadlineExceeded", err)
			}
			sn.User = "newer"
			if err := s.Save(within(t, 20*time.Second), sn, long); err != nil {
				t.Fatalf("Save: %v", err)
			}
			released := 0
			for _, k := range relay.links() {
				released += k.release(t)
			}
			if released == 0 {
				t.Fatal("nothing was held")
			}
			if got, err := peek(t, direct, sn.PID); err != nil || got.User != "newer" || got.Fence != 1 {
				t.Errorf("the session is %+v, %v", got, err)
			}
		})
	}
}

// Redis forgets its scripts while they are used.
func TestScriptFlush(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), Options{})
	ctx := within(t, 60*time.Second)
	stop := make(chan struct{})
	var flushing sync.WaitGroup
	flushing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := server.Client().ScriptFlush(ctx).Err(); err != nil {
					t.Errorf("SCRIPT FLUSH: %v", err)
					return
				}
			}
		}
	})
	var owners sync.WaitGroup
	for i := range 20 {
		owners.Go(func() {
			sn := mustCreate(t, s, fmt.Sprint(i))
			for n := range 100 {
				sn.User = fmt.Sprint(n)
				if err := s.Save(ctx, sn, long); err != nil {
					t.Errorf("Save: %v", err)
					return
				}
			}
			claimed, former, err := s.Claim(ctx, sn.PID, "b", long, nil)
			if err != nil || former != "a" || claimed.User != "99" || claimed.Fence != 2 {
				t.Errorf("Claim: %+v, %q, %v", claimed, former, err)
			}
			if gone, err := s.Refresh(ctx, []session.Ref{{PID: sn.PID, Fence: 2}, {PID: sn.PID, Fence: 1}}, long); err != nil || len(gone) != 1 {
				t.Errorf("Refresh: %v, %v", gone, err)
			}
			if err := s.Drop(ctx, session.Ref{PID: sn.PID, Fence: 2}); err != nil {
				t.Errorf("Drop: %v", err)
			}
		})
	}
	owners.Wait()
	close(stop)
	flushing.Wait()
	if s.Stats().Resent == 0 {
		t.Error("no script was ever missing")
	}
}

func TestRestart(t *testing.T) {
	server := redistest.Start(t, "appendonly yes", "appendfsync always")
	s := open(t, server.URL(), Options{})
	sn := mustCreate(t, s, "p")
	server.Kill()
	if err := s.Save(within(t, 5*time.Second), sn, long); err == nil {
		t.Error("a save into nothing succeeds")
	} else if strings.Contains(err.Error(), s.key("p")) || !strings.HasPrefix(err.Error(), "session/redis: save: ") {
		t.Errorf("Save: %v", err)
	}
	server.Restart()
	sn.User = "after"
	ctx := within(t, 20*time.Second)
	for err := s.Save(ctx, sn, long); err != nil; err = s.Save(ctx, sn, long) {
		if ctx.Err() != nil {
			t.Fatalf("Save after the restart: %v", err)
		}
	}
	if got, err := peek(t, s, "p"); err != nil || got.User != "after" {
		t.Errorf("the session is %+v, %v", got, err)
	}
}

// While Redis is paused every call ends with its context, the waiting calls are bounded,
// and everything continues with Redis.
func TestPause(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), Options{Timeout: brief, MaxWaiting: 50})
	sn := mustCreate(t, s, "p")
	server.Pause()
	began := time.Now()
	ctx := within(t, 100*time.Millisecond)
	var calls sync.WaitGroup
	full := make(chan error, 200)
	var waited atomic.Int64
	for range 200 {
		calls.Go(func() {
			err := s.Save(ctx, sn, long)
			if errors.Is(err, ErrFull) {
				if n := int64(s.Stats().Waiting); n > 0 {
					waited.Store(n)
				}
				full <- err
			} else if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Save: %v, want context.DeadlineExceeded", err)
			}
		})
	}
	calls.Wait()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("calls with a deadline of 100 ms took %v, want at most %v", took, 3*time.Second)
	}
	if len(full) == 0 || waited.Load() == 0 || waited.Load() > 50 {
		t.Errorf("%d calls were refused while up to %d waited, want at least 1, and 1 to 50", len(full), waited.Load())
	}
	// The pipeline's own deadline applies to callers without one.
	if err := s.Save(t.Context(), sn, long); err == nil {
		t.Error("a save to a paused server succeeds")
	}
	server.Resume()
	sn.User = "after"
	if err := s.Save(within(t, 20*time.Second), sn, long); err != nil {
		t.Errorf("Save: %v", err)
	}
	if got, err := peek(t, s, "p"); err != nil || got.User != "after" {
		t.Errorf("the session is %+v, %v", got, err)
	}
}

// A call whose context ended while it waited is not sent.
func TestEndedCallsAreNotSent(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), Options{Timeout: brief})
	first, second := mustCreate(t, s, "first"), mustCreate(t, s, "second")
	server.Pause()
	n := s.Stats().Pipelines
	var sent sync.WaitGroup
	sent.Go(func() { _ = s.Save(t.Context(), first, long) }) // its pipeline does not continue
	for s.Stats().Pipelines == n {
		time.Sleep(time.Millisecond)
	}
	if err := s.Drop(within(t, 20*time.Millisecond), session.Ref{PID: second.PID, Fence: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drop: %v, want context.DeadlineExceeded", err)
	}
	sent.Wait()
	server.Resume()
	if _, err := peek(t, s, "second"); err != nil {
		t.Errorf("it was dropped: %v", err)
	}
}

// An abandoned claim does not touch its command, which may be answered late: the race
// detector checks this.
func TestClaimGivenUp(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), Options{})
	mustCreate(t, s, "p")
	server.Pause()
	_, _, err := s.Claim(within(t, 50*time.Millisecond), "p", "node", long, nil)
	server.Resume()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Claim: %v, want context.DeadlineExceeded", err)
	}
	if got, err := peek(t, s, "p"); err != nil || got.Owner == "node" {
		t.Errorf("the session is %+v, %v", got, err)
	}
}

func TestClose(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), Options{Timeout: brief})
	sn := mustCreate(t, s, "p")
	server.Pause()
	var calls sync.WaitGroup
	for range 10 {
		calls.Go(func() {
			if err := s.Save(t.Context(), sn, long); err == nil {
				t.Error("a save succeeds in a closed store")
			}
		})
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	calls.Wait()
	server.Resume()
	if err := s.Save(t.Context(), sn, long); !errors.Is(err, ErrClosed) {
		t.Errorf("Save: %v, want ErrClosed", err)
	}
}
