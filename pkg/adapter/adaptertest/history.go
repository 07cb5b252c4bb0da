package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

func headIsTheEnd(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{})
	first := b.head()
	if first.At == (adapter.Position{}) {
		t.Error("the first position is zero")
	}
	for range 20 {
		before := a.publish(event("x", room("r")))
		head := b.head()
		after := a.publish(event("x", room("r")))
		if !head.SameHistory(before) || !head.Covers(before.At) {
			t.Fatalf("the head %v does not cover %v, which was published before", head, before)
		}
		if head.Covers(after.At) {
			t.Fatalf("the head %v covers %v, which was published after", head, after)
		}
		parsed, err := adapter.ParseCursor(head.String())
		if err != nil || parsed != head {
			t.Fatalf("the head %v was parsed from its string as %v, %v, want %v", head, parsed, err, head)
		}
	}
	if age := time.Since(first.At.Time()).Abs(); age > 24*time.Hour {
		t.Errorf("positions are not times: the first is %v off, want at most %v", age, 24*time.Hour)
	}
}

// The feed's position includes the partitions in which the node is not subscribed.
func theFeedPassesRoomsWithoutSubscription(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{})
	b.subscribe(room("heard"))
	for i := range 20 { // enough for every partition
		a.publish(event("x", room(fmt.Sprint("not heard ", i))))
	}
	head := b.head()
	eventually(t, "the cursor of an event includes the head", func() bool {
		a.publish(event("y", room("heard")))
		return b.next().Cursor.Includes(head)
	})
}

// The feed of an [adapter.ProgressReporter] reports its progress if no event is for the node.
func progressIsReported(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{})
	reporter, ok := b.Adapter.(adapter.ProgressReporter)
	if !ok {
		return
	}
	reported := make(chan adapter.Cursor)
	ctx, cancel := context.WithCancel(deadline(t))
	reporter.OnProgress(func(c adapter.Cursor) {
		select {
		case reported <- c:
		case <-ctx.Done():
		}
	})
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	reading.Go(func() {
		if e, err := b.Next(ctx); err == nil {
			t.Errorf("%s: %q, want nothing", b.Node(), e.Data)
		}
	})
	for i := range 20 { // enough for every partition
		a.publish(event("x", room(fmt.Sprint("not heard ", i))))
	}
	head := b.head()
	b.subscribe(room("r"))
	var c adapter.Cursor
	for !c.Includes(head) {
		select {
		case c = <-reported:
		case <-ctx.Done():
			t.Fatalf("%s: the feed has reported %v, want a cursor that includes %v", b.Node(), c, head)
		}
	}
}

func headRefusesForeignCursors(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{})
	published := a.publish(event("x", room("r")))
	joined := b.subscribe(room("r"))
	b.head(published, joined, b.head(), adapter.Cursor{})

	ahead := published
	ahead.At.Ms += uint64(time.Hour / time.Millisecond)
	for _, strange := range []adapter.Cursor{{Epoch: "elsewhere", At: published.At}, ahead} {
		if _, err := b.Head(deadline(t), published, strange); !errors.Is(err, adapter.ErrHistoryLost) {
			t.Errorf("Head(%v): %v, want ErrHistoryLost", strange, err)
		}
	}
	b.head(published) // a query has no consequences
}

func aLostHistoryIsReported(t *testing.T, newCluster Maker) {
	c := newCluster(t, Options{})
	nodes := join(t, c, "a", "b")
	r := room("r")
	for _, n := range nodes {
		n.subscribe(r)
	}
	old := nodes[0].publish(event("old", r))
	c.Reset()

	eventually(t, "a cursor of the lost history is refused", func() bool {
		_, err := nodes[1].Head(deadline(t), old)
		return errors.Is(err, adapter.ErrHistoryLost)
	})
	for _, n := range nodes {
		expectLost(n, old)
	}
	var head adapter.Cursor
	eventually(t, "a new history begins", func() bool {
		var err error
		head, err = nodes[0].Head(deadline(t))
		return err == nil && !head.SameHistory(old)
	})
	nodes[0].expectNoReplay(map[rooms.Room]adapter.Cursor{r: old}, head, adapter.ErrHistoryLost)
	nodes[0].expectNoReplay(map[rooms.Room]adapter.Cursor{r: old}, old, adapter.ErrHistoryLost)
	if kept, more, err := nodes[0].History(deadline(t), r, adapter.Page{Events: 10}); err != nil || len(kept) > 0 || more {
		t.Errorf("History of the new history: %q, %v, %v", payloads(kept), more, err)
	}

	// The feeds continue, and the nodes need not subscribe again.
	end := nodes[1].publish(event("new", r))
	if !end.SameHistory(head) {
		t.Errorf("published at %v after the head %v", end, head)
	}
	for _, n := range nodes {
		for e := n.next(); e.Position != end.At; e = n.next() {
			t.Errorf("%s: %q comes after the loss", n.Node(), e.Data)
		}
	}
}

// expectLost reads the feed up to a LostError, with which a new history begins.
func expectLost(n *node, old adapter.Cursor) {
	n.t.Helper()
	for {
		e, err := n.Next(deadline(n.t))
		var lost *adapter.LostError
		switch {
		case errors.As(err, &lost):
			if lost.Reason == "" {
				n.t.Errorf("%s: a LostError without a reason", n.Node())
			}
			if lost.Cursor.IsZero() || lost.Cursor.SameHistory(old) {
				n.t.Errorf("%s: the feed continues from %v, in the lost history", n.Node(), lost.Cursor)
			}
			return
		case err != nil:
			n.t.Fatalf("%s: Next: %v, want a *LostError", n.Node(), err)
		case string(e.Data) != "old":
			n.t.Fatalf("%s: got %q before the LostError", n.Node(), e.Data)
		}
	}
}

func historyPages(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{BacklogLimit: 50})
	r := room("r")
	if kept, more, err := b.History(deadline(t), r, adapter.Page{Events: 5}); err != nil || len(kept) > 0 || more {
		t.Errorf("an empty room has the history %q, %v, %v", payloads(kept), more, err)
	}
	for i := range 12 {
		a.publish(event(fmt.Sprint(i), r))
		a.publish(event("elsewhere", room("s")))
		a.publish(adapter.Event{Target: rooms.Target{To: []rooms.Room{r}}, Data: []byte("not stored")})
	}
	var before adapter.Cursor
	for _, page := range []struct {
		events []string
		more   bool
	}{
		{[]string{"7", "8", "9", "10", "11"}, true},
		{[]string{"2", "3", "4", "5", "6"}, true},
		{[]string{"0", "1"}, false},
	} {
		kept, more, err := b.History(deadline(t), r, adapter.Page{Before: before, Events: 5})
		if got := payloads(kept); err != nil || !slices.Equal(got, page.events) || more != page.more {
			t.Fatalf("the page before %v is %q, %v, %v, want %q, %v", before, got, more, err, page.events, page.more)
		}
		for _, e := range kept {
			if e.Cursor.At != e.Position {
				t.Errorf("the cursor of %q is %v, and its position %v", e.Data, e.Cursor, e.Position)
			}
		}
		before = kept[0].Cursor
	}
	if kept, more, err := b.History(deadline(t), r, adapter.Page{Before: before, Events: 5}); err != nil || len(kept) > 0 || more {
		t.Errorf("before the first event: %q, %v, %v", payloads(kept), more, err)
	}
	if kept, more, err := b.History(deadline(t), r, adapter.Page{Events: 12}); err != nil || len(kept) != 12 || more {
		t.Errorf("in one page: %d events, more %v, %v", len(kept), more, err)
	}
	strange := adapter.Cursor{Epoch: "elsewhere", At: before.At}
	if _, _, err := b.History(deadline(t), r, adapter.Page{Before: strange, Events: 5}); !errors.Is(err, adapter.ErrHistoryLost) {
		t.Errorf("before a cursor of another history: %v, want ErrHistoryLost", err)
	}
}

// A page is bounded by the size of its events, but each has at least one.
func historyPagesInBytes(t *testing.T, newCluster Maker) {
	a, b := two(t, newCluster, Options{BacklogLimit: 50})
	r := room("r")
	sizes := []int{100, 100, 5000, 20_000, 100, 100, 100, 100, 100, 100, 3000}
	for _, size := range sizes {
		e := event(strings.Repeat("x", size/2), r)
		e.Attachments = [][]byte{make([]byte, size-size/2)}
		a.publish(e)
	}
	var before adapter.Cursor
	for _, want := range [][]int{{100, 100, 100, 100, 100, 100, 3000}, {20_000}, {5000}, {100, 100}} {
		kept, more, err := b.History(deadline(t), r, adapter.Page{Before: before, Events: 50, Bytes: 5000})
		var got []int
		for _, e := range kept {
			got = append(got, len(e.Data)+len(e.Attachments[0]))
		}
		if last := want[0] == 100 && len(want) == 2; err != nil || !slices.Equal(got, want) || more == last {
			t.Fatalf("the page before %v has sizes %v, more %v, %v; want %v", before, got, more, err, want)
		}
		before = kept[0].Cursor
	}
}
