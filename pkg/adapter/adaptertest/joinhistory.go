package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A page can end at a cursor, including the event there. Before and UpTo can be combined.
func historyPagesUpToAPosition(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{BacklogLimit: 50})
	r := room("r")
	nothing := b.head()
	var at []adapter.Cursor
	for i := range 10 {
		at = append(at, a.publish(event(fmt.Sprint(i), r)))
		a.publish(event("elsewhere", room("s")))
	}
	for _, c := range []struct {
		page adapter.Page
		want []string
		more bool
	}{
		{adapter.Page{UpTo: at[5], Events: 3}, []string{"3", "4", "5"}, true},
		{adapter.Page{UpTo: at[2], Events: 3}, []string{"0", "1", "2"}, false},
		{adapter.Page{UpTo: at[5], Before: at[3], Events: 2}, []string{"1", "2"}, true},
		{adapter.Page{UpTo: at[3], Before: at[5], Events: 2}, []string{"2", "3"}, true},
		{adapter.Page{UpTo: at[4], Before: at[4], Events: 2}, []string{"2", "3"}, true},
		{adapter.Page{UpTo: b.head(), Events: 1}, []string{"9"}, true},
		{adapter.Page{UpTo: nothing, Events: 5}, nil, false},
		{adapter.Page{UpTo: at[4], Events: 0}, nil, true},
	} {
		kept, more, err := b.History(deadline(t), r, c.page)
		if got := payloads(kept); err != nil || !slices.Equal(got, c.want) || more != c.more {
			t.Errorf("the page %v is %q, %v, %v, want %q, %v", c.page, got, more, err, c.want, c.more)
		}
	}
	strange := adapter.Cursor{Epoch: "elsewhere", At: at[0].At}
	if _, _, err := b.History(deadline(t), r, adapter.Page{UpTo: strange, Events: 5}); !errors.Is(err, adapter.ErrHistoryLost) {
		t.Errorf("up to a cursor of another history: %v, want ErrHistoryLost", err)
	}
}

// A page can begin after a cursor. Then it is said whether all events since are in it: not if some are
// trimmed, or if they may have expired.
func historyPagesAfterAPosition(t *testing.T, newCluster Maker) {
	const limit, ttl = 5, 2 * time.Second
	a, b := two(t, newCluster, Options{BacklogLimit: limit, BacklogTTL: ttl})
	r, silent := room("r"), room("silent")
	begin := b.head()
	at := []adapter.Cursor{a.publish(event("0", r)), a.publish(event("1", r)), a.publish(event("2", r))}
	end := b.head()
	a.publish(event("later", r))
	check := func(r rooms.Room, page adapter.Page, more, lost bool, want ...string) {
		t.Helper()
		kept, gotMore, err := b.History(deadline(t), r, page)
		if err != nil && !errors.Is(err, adapter.ErrTrimmed) {
			t.Fatal(err)
		}
		if got := payloads(kept); !slices.Equal(got, want) || gotMore != more || (err != nil) != lost {
			t.Errorf("the page %v is %q, more %v, %v; want %q, more %v, lost %v", page, got, gotMore, err, want, more, lost)
		}
	}
	check(r, adapter.Page{After: begin, UpTo: end, Events: 5}, false, false, "0", "1", "2")
	check(r, adapter.Page{After: at[0], UpTo: end, Events: 5}, false, false, "1", "2")
	check(r, adapter.Page{After: at[0], UpTo: end, Events: 2}, false, false, "1", "2")
	check(r, adapter.Page{After: begin, UpTo: end, Events: 2}, true, false, "1", "2")
	check(r, adapter.Page{After: end, UpTo: end, Events: 5}, false, false)
	check(r, adapter.Page{After: at[0], Before: at[2], Events: 5}, false, false, "1")
	check(r, adapter.Page{After: at[2], Events: 5}, false, false, "later")
	check(silent, adapter.Page{After: begin, UpTo: end, Events: 5}, false, false)
	for range 10 * limit {
		a.publish(event("x", r))
	}
	var last adapter.Cursor
	for range 2 {
		last = a.publish(event("y", r))
	}
	if kept, more, err := b.History(deadline(t), r, adapter.Page{After: begin, UpTo: last, Events: 1000}); !errors.Is(err, adapter.ErrTrimmed) || len(kept) < limit || more {
		t.Errorf("a trimmed room: %q, more %v, %v, want ErrTrimmed", payloads(kept), more, err)
	}
	strange := adapter.Cursor{Epoch: "elsewhere", At: begin.At}
	if _, _, err := b.History(deadline(t), r, adapter.Page{After: strange, Events: 5}); !errors.Is(err, adapter.ErrHistoryLost) {
		t.Errorf("after a cursor of another history: %v, want ErrHistoryLost", err)
	}

	before := b.head()
	expires := room("expires")
	a.publish(event("expired", expires))
	time.Sleep(ttl + ttl/4)
	check(expires, adapter.Page{After: before, UpTo: b.head(), Events: 5}, false, true)
	a.publish(event("new", expires))
	check(expires, adapter.Page{After: before, UpTo: b.head(), Events: 5}, false, true, "new")
}

// Each of many concurrent readers of one room gets the page up to its own position.
func historyPagesTogether(t *testing.T, newCluster Maker) {
	const readers, each, page = 60, 5, 10
	c := newCluster(t, Options{BacklogLimit: 1000})
	ctx := deadline(t)
	a, b := join(t, c, "a")[0], join(t, c, "b")[0]
	r := room("r")
	for i := range page {
		a.publish(event(fmt.Sprint(i), r))
	}
	var reading sync.WaitGroup
	for i := range readers {
		newest := i + page
		a.publish(event(fmt.Sprint(newest), r))
		upTo, events := b.head(), 1+i%page
		for range each {
			reading.Go(func() {
				asked := adapter.Page{UpTo: upTo, Events: events, Bytes: 1000}
				kept, more, err := b.History(ctx, r, asked)
				var want []string
				for n := newest - events + 1; n <= newest; n++ {
					want = append(want, fmt.Sprint(n))
				}
				if got := payloads(kept); err != nil || !slices.Equal(got, want) || !more {
					t.Errorf("the page %v is %q, more %v, %v, want %q", asked, got, more, err, want)
				}
			})
		}
	}
	reading.Wait()
}

// A member that joins a room while others publish without pause reads a page up to its join
// position, and takes the later events from the feed: together they have no gap and no repeat.
func historyAndFeedMeet(t *testing.T, newCluster Maker) {
	const publishers, joins, page, live = 3, 12, 8, 12
	c := newCluster(t, Options{BacklogLimit: 10_000})
	ctx, cancel := context.WithCancel(deadline(t))
	rng := newRand(t)
	all := []rooms.Room{room("r0"), room("r1"), room("r2")}
	var publishing sync.WaitGroup
	defer publishing.Wait()
	defer cancel() // the member reads no more, so that a call may not end
	for p := range publishers {
		n := join(t, c, adapter.NodeID(fmt.Sprint("publisher", p)))[0]
		pace := rate.NewLimiter(5_000, 100) // the memory would trim its backlogs in milliseconds
		publishing.Go(func() {
			for i := 0; pace.Wait(ctx) == nil; i++ {
				for _, r := range all { // each room has every number of every publisher
					if _, err := n.Publish(ctx, event(fmt.Sprint(p, " ", i), r)); err != nil && ctx.Err() == nil {
						t.Errorf("Publish: %v", err)
						return
					}
				}
			}
		})
	}
	n := join(t, c, "member")[0]
	eventually(t, "the room has a page of events", func() bool {
		_, more, err := n.History(ctx, all[2], adapter.Page{Events: page})
		return err == nil && more
	})
	for range joins {
		r := all[rng.IntN(len(all))]
		joined := n.subscribe(r)
		if rng.IntN(2) == 0 { // later events are published before the page is read
			time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
		}
		past, _, err := n.History(ctx, r, adapter.Page{UpTo: joined, Events: page})
		if err != nil || len(past) != page {
			t.Fatalf("History: %d events, %v, want %d", len(past), err, page)
		}
		heard := past
		for len(heard) < page+live {
			e := n.next()
			if slices.Contains(e.Target.To, r) && !joined.Covers(e.Position) {
				heard = append(heard, e)
			}
		}
		numbered(t, joined, heard)
		n.Unsubscribe(r)
	}
}

// numbered fails unless the numbers of each publisher follow each other.
func numbered(t *testing.T, joined adapter.Cursor, heard []adapter.Event) {
	t.Helper()
	next := make(map[int]int)
	for _, e := range heard {
		var publisher, i int
		if _, err := fmt.Sscan(string(e.Data), &publisher, &i); err != nil {
			t.Fatal(err)
		}
		if want, known := next[publisher]; known && i != want {
			t.Fatalf("joined at %v: after %d came %d at %v: %q", joined, want-1, i, e.Position, payloads(heard))
		}
		next[publisher] = i + 1
	}
}
