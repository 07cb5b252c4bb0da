package sessiontest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rejoin-io/rejoin/pkg/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mutantVar names the mutant that a child process runs.
const mutantVar = "SESSIONTEST_MUTANT"

// Every rule can fail: each mutant breaks one, and a child process that runs this test with
// the mutant must fail in that rule.
func TestMutants(t *testing.T) {
	if name := os.Getenv(mutantVar); name != "" {
		maxWait = 4 * time.Second
		Run(t, func(*testing.T) session.Store {
			m := session.NewMemory()
			s := &mutantStore{m, m.Create, m.Save, m.Claim, m.Refresh, m.Drop}
			mutants[name].mutate(s)
			return s
		})
		return
	}
	for name, mutant := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			run := exec.CommandContext(ctx, self, "-test.run=^TestMutants$/^"+mutant.rule+"$")
			run.Env = append(os.Environ(), mutantVar+"="+name)
			out, err := run.CombinedOutput()
			if err == nil || !bytes.Contains(out, []byte("--- FAIL: TestMutants/"+mutant.rule+" ")) {
				t.Errorf("it survives %s: %v\n%s", mutant.rule, err, out)
			}
		})
	}
}

// A mutantStore is a correct store with some methods replaced.
type mutantStore struct {
	good    *session.Memory
	create  func(context.Context, session.Session, time.Duration) error
	save    func(context.Context, session.Session, time.Duration) error
	claim   func(context.Context, string, string, time.Duration, func(session.Session) error) (session.Session, string, error)
	refresh func(context.Context, []session.Ref, time.Duration) ([]session.Ref, error)
	drop    func(context.Context, session.Ref) error
}

func (s *mutantStore) Create(ctx context.Context, sn session.Session, ttl time.Duration) error {
	return s.create(ctx, sn, ttl)
}

func (s *mutantStore) Save(ctx context.Context, sn session.Session, ttl time.Duration) error {
	return s.save(ctx, sn, ttl)
}

func (s *mutantStore) Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
	return s.claim(ctx, pid, by, ttl, check)
}

func (s *mutantStore) Refresh(ctx context.Context, live []session.Ref, ttl time.Duration) ([]session.Ref, error) {
	return s.refresh(ctx, live, ttl)
}

func (s *mutantStore) Drop(ctx context.Context, ref session.Ref) error { return s.drop(ctx, ref) }

// current returns a session unchanged.
func (s *mutantStore) current(ctx context.Context, pid string) (now session.Session, err error) {
	_, _, err = s.good.Claim(ctx, pid, "", 0, func(sn session.Session) error {
		now = sn
		return errPeek
	})
	return now, err
}

type mutant struct {
	rule   string
	mutate func(*mutantStore)
}

var mutants = map[string]mutant{
	"data as text": {"SessionsComeBackAsTheyWere", func(s *mutantStore) {
		s.save = func(ctx context.Context, sn session.Session, ttl time.Duration) error {
			sn.Data = bytes.ToValidUTF8(sn.Data, nil)
			return s.good.Save(ctx, sn, ttl)
		}
	}},
	"what is given is kept": {"StoresKeepTheirOwnCopy", func(s *mutantStore) {
		var given session.Session
		s.create = func(ctx context.Context, sn session.Session, ttl time.Duration) error {
			given = sn
			return s.good.Create(ctx, sn, ttl)
		}
		s.claim = func(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
			return s.good.Claim(ctx, pid, by, ttl, func(session.Session) error { return check(given) })
		}
	}},
	"create replaces": {"CreateNeverReplaces", func(s *mutantStore) {
		s.create = func(ctx context.Context, sn session.Session, ttl time.Duration) error {
			err := s.good.Create(ctx, sn, ttl)
			if errors.Is(err, session.ErrExists) {
				_ = s.good.Save(ctx, sn, ttl)
			}
			return err
		}
	}},
	"save creates": {"SaveNeverCreates", func(s *mutantStore) {
		s.save = func(ctx context.Context, sn session.Session, ttl time.Duration) error {
			err := s.good.Save(ctx, sn, ttl)
			if errors.Is(err, session.ErrNotFound) {
				_ = s.good.Create(ctx, sn, ttl)
			}
			return err
		}
	}},
	"fences are not looked at": {"AClaimFencesOff", func(s *mutantStore) {
		s.save = func(ctx context.Context, sn session.Session, ttl time.Duration) error {
			if now, err := s.current(ctx, sn.PID); errors.Is(err, errPeek) {
				sn.Fence = now.Fence
			}
			return s.good.Save(ctx, sn, ttl)
		}
	}},
	"a claim deletes": {"AClaimCanBeRepeated", func(s *mutantStore) {
		s.claim = func(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
			sn, former, err := s.good.Claim(ctx, pid, by, ttl, check)
			if err == nil {
				err = s.good.Drop(ctx, session.Ref{PID: pid, Fence: sn.Fence})
			}
			return sn, former, err
		}
	}},
	"check comes after the claim": {"ARefusedClaimChangesNothing", func(s *mutantStore) {
		s.claim = func(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
			sn, former, err := s.good.Claim(ctx, pid, by, ttl, nil)
			if err == nil && check != nil {
				err = check(sn)
			}
			return sn, former, err
		}
	}},
	"claims read, then write": {"ConcurrentClaimsGetDifferentFences", func(s *mutantStore) {
		s.claim = func(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
			if check == nil {
				check = func(session.Session) error { return nil }
			}
			now, err := s.current(ctx, pid)
			if !errors.Is(err, errPeek) {
				return session.Session{}, "", err
			}
			if err := check(now); err != nil {
				return session.Session{}, "", err
			}
			time.Sleep(time.Millisecond) // widens the window
			sn, former, err := s.good.Claim(ctx, pid, by, ttl, nil)
			sn.Fence = now.Fence + 1
			return sn, former, err
		}
	}},
	"check sees the session once": {"ClaimsSeeWhatTheyClaim", func(s *mutantStore) {
		s.claim = func(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
			if now, err := s.current(ctx, pid); check != nil && errors.Is(err, errPeek) {
				if err := check(now); err != nil {
					return session.Session{}, "", err
				}
			}
			return s.good.Claim(ctx, pid, by, ttl, nil)
		}
	}},
	"drop forgets to": {"DropDeletes", func(s *mutantStore) {
		s.drop = func(context.Context, session.Ref) error { return nil }
	}},
	"refresh creates": {"RefreshReportsExpiredSessions", func(s *mutantStore) {
		s.refresh = func(ctx context.Context, live []session.Ref, ttl time.Duration) ([]session.Ref, error) {
			gone, err := s.good.Refresh(ctx, live, ttl)
			for _, ref := range gone {
				_ = s.good.Create(ctx, session.Session{PID: ref.PID}, ttl)
			}
			return gone, err
		}
	}},
	"refresh minds no fence": {"SessionsExpire", func(s *mutantStore) {
		s.refresh = func(ctx context.Context, live []session.Ref, ttl time.Duration) ([]session.Ref, error) {
			gone, err := s.good.Refresh(ctx, live, ttl)
			for _, ref := range gone {
				if now, err := s.current(ctx, ref.PID); errors.Is(err, errPeek) {
					_, _ = s.good.Refresh(ctx, []session.Ref{{PID: ref.PID, Fence: now.Fence}}, ttl)
				}
			}
			return gone, err
		}
	}},
	"a look prolongs": {"SessionsExpire", func(s *mutantStore) {
		s.claim = func(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
			if now, err := s.current(ctx, pid); errors.Is(err, errPeek) {
				_, _ = s.good.Refresh(ctx, []session.Ref{{PID: pid, Fence: now.Fence}}, ttl)
			}
			return s.good.Claim(ctx, pid, by, ttl, check)
		}
	}},
	"nothing expires": {"SessionsExpire", func(s *mutantStore) {
		s.create = func(ctx context.Context, sn session.Session, _ time.Duration) error {
			return s.good.Create(ctx, sn, time.Hour)
		}
	}},
	"a save does not prolong": {"SessionsExpire", func(s *mutantStore) {
		s.save = func(ctx context.Context, sn session.Session, ttl time.Duration) error {
			return s.good.Save(ctx, sn, min(ttl, short))
		}
	}},
	"deaf to contexts": {"ContextsEndCalls", func(s *mutantStore) {
		s.drop = func(ctx context.Context, ref session.Ref) error {
			return s.good.Drop(context.WithoutCancel(ctx), ref)
		}
	}},
}
