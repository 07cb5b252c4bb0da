package app

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// TestCopiesOfUnknownOutcome: an event that may have been published stays charged.
func TestCopiesOfUnknownOutcome(t *testing.T) {
	for _, tt := range []struct {
		err  error
		pays bool
	}{{adapter.ErrUnavailable, true}, {adapter.ErrNotPublished, false}} {
		t.Run(tt.err.Error(), func(t *testing.T) {
			limits := limit.NewClients(limit.ClientOptions{CopyBytes: 20 << 10})
			counted, _, url := serveApp(t, Options{Limits: limits})
			counted.fails = tt.err
			c := dialApp(t, url)
			for i := range 100 {
				r, _ := c.call(fmt.Sprintf(`["to","new%d","x"]`, i))
				if r.Code == rateLimited {
					if !tt.pays {
						t.Errorf("%d events that were not published exceed the rate", i)
					}
					return
				}
				if r.Code != unavailable {
					t.Fatalf("event %d: %+v", i, r)
				}
			}
			if tt.pays {
				t.Error("they cost nothing")
			}
		})
	}
}

// TestCopiesAreLimited: events and joins to several rooms, and events to rooms without
// members, have a rate. Events to the client's own room, or to a socket, do not.
func TestCopiesAreLimited(t *testing.T) {
	list := func(n int, of string) string {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf("%q", of+fmt.Sprint(i))
		}
		return "[" + strings.Join(names, ",") + "]"
	}
	for name, event := range map[string]func(i int) string{
		"several rooms": func(int) string { return `["to",` + list(50, "own") + `,"x","` + strings.Repeat("x", 1000) + `"]` },
		"new rooms":     func(i int) string { return `["to",` + list(20, fmt.Sprint("new", i, ".")) + `,"x"]` },
		"a new room":    func(i int) string { return fmt.Sprintf(`["to","new%d","x"]`, i) },
		"nobody":        func(i int) string { return fmt.Sprintf(`["private","nobody%d","x"]`, i) },
		"joins":         func(i int) string { return `["join",` + list(100, fmt.Sprint(i, ".")) + `]` },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tally := limit.NewTally(zap.NewNop())
			limits := limit.NewClients(limit.ClientOptions{CopyBytes: 20 << 10, LargestEvent: 100_000, Tally: tally})
			_, _, url := serveApp(t, Options{Limits: limits})
			c := dialApp(t, url)
			if r, _ := c.call(`["join",` + list(50, "own") + `]`); !r.OK {
				t.Fatalf("join: %+v", r)
			}
			if r, _ := c.call(`["to",` + list(50, "own") + `,"x","` + strings.Repeat("x", 2000) + `"]`); r.Code != tooMany {
				t.Errorf("100 kB of copies: %+v", r)
			}
			sent := 0
			for ; sent < 100; sent++ {
				if r, _ := c.call(event(sent)); !r.OK {
					if r.Code != rateLimited {
						t.Errorf("got %+v, want %s", r, rateLimited)
					}
					break
				}
			}
			if sent == 0 || sent == 100 || tally.Refused()[limit.CopyRate] != 1 {
				t.Errorf("%d may, and %d are counted", sent, tally.Refused()[limit.CopyRate])
			}
			for range 100 {
				if r, _ := c.call(`["to","own1","x"]`); !r.OK {
					t.Fatalf("to a room of its own: %+v", r)
				}
			}
		})
	}
}

// costlyStore is a store whose writes take some bytes.
type costlyStore struct {
	session.Store
	saves atomic.Int32
}

func (s *costlyStore) Save(ctx context.Context, sn session.Session, ttl time.Duration) error {
	s.saves.Add(1)
	session.CountWrite(ctx, 140<<10)
	return s.Store.Save(ctx, sn, ttl)
}

// TestSessionWritesAreLimited: joins and leaves wait if they have written too much, and are refused if
// they would wait too long; joins that write nothing cost nothing.
func TestSessionWritesAreLimited(t *testing.T) {
	for name, change := range map[string]func(i int) string{
		"joins":  func(i int) string { return fmt.Sprintf(`["join","new%d"]`, i) },
		"leaves": func(i int) string { return fmt.Sprintf(`["leave","old%d"]`, i) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tally := limit.NewTally(zap.NewNop())
			limits := limit.NewClients(limit.ClientOptions{CopyBytes: 160 << 10, Tally: tally}) // of the socket, as its address is loopback: 10 KiB
			sessions := &costlyStore{Store: session.NewMemory()}
			_, _, url := serveWith(t, Options{Limits: limits}, sessions)
			c := dialApp(t, url, "recovery=true")
			list := make([]string, 30)
			for i := range list {
				list[i] = fmt.Sprintf(`"old%d"`, i)
			}
			if r, _ := c.call(`["join",[` + strings.Join(list, ",") + `]]`); !r.OK {
				t.Fatalf("join: %+v", r)
			}
			done := 0
			for ; done < 5; done++ {
				if r, _ := c.call(change(done)); !r.OK {
					if r.Code != rateLimited || !strings.Contains(r.Message, "try again in ") {
						t.Errorf("got %+v, want %s", r, rateLimited)
					}
					break
				}
			}
			if done != 0 || sessions.saves.Load() != 1 {
				t.Errorf("%d more may, %d writes, want 0, 1", done, sessions.saves.Load())
			}
			if n := tally.Refused()[limit.CopyRate]; n != 1 {
				t.Errorf("%d are counted, want 1", n)
			}
		})
	}
}
