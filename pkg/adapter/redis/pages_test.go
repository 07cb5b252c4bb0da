package redis

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// Hundreds of clients that join a room together cost Redis a few reads of its newest events, and each
// gets those up to its own join position.
func TestJoinsShareTheirPages(t *testing.T) {
	const joins, page = 500, 20
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{})
	r := room("r")
	for i := range 2 * page {
		publish(t, a, event(fmt.Sprint(i), r))
	}
	upTo, err := a.Head(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	scripts := func() (n int) {
		info, err := server.Client().Info(t.Context(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(info, "cmdstat_evalsha:calls=")
		fmt.Sscan(strings.ReplaceAll(rest, ",", " "), &n)
		return n
	}
	before := scripts()
	ctx := deadline(t)
	var reading sync.WaitGroup
	for range joins {
		reading.Go(func() {
			kept, more, err := a.History(ctx, r, adapter.Page{UpTo: upTo, Events: page, Bytes: 10_000})
			if err != nil || len(kept) != page || !more {
				t.Errorf("%d events, more %v, %v", len(kept), more, err)
			}
		})
	}
	reading.Wait()
	if n := scripts() - before; n > joins/5 {
		t.Errorf("Redis ran %d scripts for %d joins", n, joins)
	}
}
