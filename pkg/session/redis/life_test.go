package redis

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/session"
)

const (
	lasting = time.Minute     // that calls give here
	stall   = 2 * time.Second // by which they are late
)

// givers are the calls that set a TTL. They call now before that.
var givers = map[string]func(ctx context.Context, s *Store, sn session.Session, now func()) error{
	"create": func(ctx context.Context, s *Store, sn session.Session, now func()) error {
		if err := s.Drop(ctx, session.Ref{PID: sn.PID, Fence: sn.Fence}); err != nil {
			return err
		}
		now()
		return s.Create(ctx, sn, lasting)
	},
	"save": func(ctx context.Context, s *Store, sn session.Session, now func()) error {
		now()
		return s.Save(ctx, sn, lasting)
	},
	"claim": func(ctx context.Context, s *Store, sn session.Session, now func()) error {
		_, _, err := s.Claim(ctx, sn.PID, "b", lasting, func(session.Session) error { now(); return nil })
		return err
	},
	"refresh": func(ctx context.Context, s *Store, sn session.Session, now func()) error {
		now()
		gone, err := s.Refresh(ctx, []session.Ref{{PID: sn.PID, Fence: sn.Fence}}, lasting)
		if len(gone) > 0 {
			err = session.ErrNotFound
		}
		return err
	},
}

// load makes scripts known to Redis, so that a call is one command.
func load(t *testing.T, server *redistest.Server) {
	t.Helper()
	for _, s := range []script{create, save, claim, refresh, drop} {
		if err := server.Client().ScriptLoad(t.Context(), s.text).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// ends returns the expiry of a session by the server's time, which is that of this machine.
func ends(t *testing.T, s *Store, server *redistest.Server, pid string) time.Time {
	t.Helper()
	at, err := server.Client().PExpireTime(t.Context(), s.key(pid)).Result()
	if err != nil || at <= 0 {
		t.Fatalf("PEXPIRETIME: %v, %v, want more than 0", at, err)
	}
	return time.UnixMilli(at.Milliseconds())
}

// A late write sets the TTL from the time of its request, and not a longer one, whether its
// connection or Redis was paused.
func TestALateWriteDoesNotExtendTheTTL(t *testing.T) {
	for name, give := range givers {
		for what, still := range map[string]func(*redistest.Server, *relay) (goOn func()){
			"connection": func(_ *redistest.Server, r *relay) func() {
				r.hold()
				return func() {
					for _, k := range r.links() {
						k.release(t)
					}
				}
			},
			"server": func(server *redistest.Server, _ *relay) func() {
				server.Pause()
				return server.Resume
			},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				load(t, server)
				relay := startRelay(t, server.Addr)
				s := open(t, relay.url(), Options{Timeout: brief})
				sn := mustCreate(t, s, "p")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var before uint64
				var asked time.Time
				var goOn func()
				err := give(ctx, s, sn, func() {
					before = calls(t, server, "evalsha")
					asked, goOn = time.Now(), still(server, relay)
					time.AfterFunc(100*time.Millisecond, cancel)
				})
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("the call: %v, want context.Canceled", err)
				}
				given := time.Now()
				time.Sleep(time.Until(given.Add(stall))) // this case happens here
				goOn()
				ctx = within(t, 20*time.Second)
				for calls(t, server, "evalsha") == before {
					if ctx.Err() != nil {
						t.Fatal("nothing was carried out late")
					}
				}
				end := ends(t, s, server, sn.PID)
				if least, most := asked.Add(lasting-time.Second), given.Add(lasting); end.Before(least) || end.After(most) {
					t.Errorf("it lives until %v, want between %v and %v", end, least, most)
				}
			})
		}
	}
}

// A wrong clock, because the server's clock has jumped or another server has taken its
// place, sets no TTL that is too long, deletes nothing, and is right after one call.
func TestWrongClock(t *testing.T) {
	server := redistest.Start(t)
	for name, give := range givers {
		for _, wrong := range []time.Duration{time.Hour, -time.Hour, -lasting / 2} {
			t.Run(name+"/"+wrong.String(), func(t *testing.T) {
				s := open(t, server.URL(), Options{Prefix: t.Name()})
				sn := mustCreate(t, s, "p")
				began := time.Now()
				err := give(within(t, 20*time.Second), s, sn, func() { s.lanes[""].clock.server += wrong.Milliseconds() })
				if early := wrong <= -lasting; early != errors.Is(err, errLate) || !early && err != nil {
					t.Fatalf("with a wrong time: %v", err)
				}
				if err == nil {
					if end := ends(t, s, server, sn.PID); end.After(time.Now().Add(lasting)) {
						t.Errorf("it lives until %v", end)
					}
				}
				if name == "create" || name == "claim" {
					sn = mustCreate(t, s, "another")
				}
				if err := give(within(t, 20*time.Second), s, sn, func() {}); err != nil {
					t.Fatalf("after that: %v", err)
				}
				if end := ends(t, s, server, sn.PID); end.Before(began.Add(lasting-time.Second)) || end.After(time.Now().Add(lasting)) {
					t.Errorf("after that it lives until %v, and was asked for at %v", end, began)
				}
			})
		}
	}
}

func TestClock(t *testing.T) {
	var c clock
	now := time.Now()
	if c.fresh() {
		t.Error("it is fresh before it knows anything")
	}
	c.learn(5000, now.Add(-time.Second))
	if got := c.at(c.came.Add(time.Second)); !c.fresh() || got != 6000 {
		t.Errorf("a second later it is %d", got)
	}
	c.learn(9000, now.Add(-time.Second))
	if c.server != 5000 {
		t.Error("a late answer is used although the known time is recent")
	}
	c.learn(7000, time.Now())
	if c.server != 7000 {
		t.Error("a prompt answer is not used")
	}
	c.came = c.came.Add(-fresh)
	if c.fresh() {
		t.Error("it is fresh for ever")
	}
	c.learn(8000, now.Add(-time.Second))
	if c.server != 8000 {
		t.Error("a late answer is not used although the known time is old")
	}
}
