package app

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/adapter"
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

// TestCopiesAreLimited: events and joins to several rooms, and events to rooms that nobody is
// in, have a rate; what a client sends to its own room, or to a socket, has not.
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
			limits := limit.NewClients(limit.ClientOptions{CopyBytes: 20 << 10, LargestEvent: 100_000})
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
						t.Errorf("%+v", r)
					}
					break
				}
			}
			if sent == 0 || sent == 100 || limits.Refused()[limit.CopyRate] != 1 {
				t.Errorf("%d may, and %d are counted", sent, limits.Refused()[limit.CopyRate])
			}
			for range 100 {
				if r, _ := c.call(`["to","own1","x"]`); !r.OK {
					t.Fatalf("to a room of its own: %+v", r)
				}
			}
		})
	}
}
