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
