package redis

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// crowd publishes events 0 to n-1 from several goroutines, each to one of the
// rooms, and returns them by position.
func crowd(t *testing.T, a *Adapter, n int, to []rooms.Room) map[adapter.Position]string {
	t.Helper()
	var mu sync.Mutex
	at := make(map[adapter.Position]string)
	var all sync.WaitGroup
	const publishers = 64
	for p := range publishers {
		all.Go(func() {
			for i := p; i < n; i += publishers {
				data := fmt.Sprint(i)
				r, err := a.Publish(deadline(t), event(data, to[i%len(to)]))
				if err != nil {
					t.Errorf("Publish: %v", err)
					return
				}
				mu.Lock()
				at[r.Cursor.At] = data
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return at
}

// expectAll reads events until all have arrived, each once and in order.
func expectAll(t *testing.T, a *Adapter, want map[adapter.Position]string) {
	t.Helper()
	ctx := deadline(t)
	var last adapter.Position
	for n := range len(want) {
		e, err := a.Next(ctx)
		if err != nil {
			t.Fatalf("Next, after %d of %d events: %v", n, len(want), err)
		}
		if e.Position.Compare(last) <= 0 {
			t.Fatalf("%q at %v comes after %v", e.Data, e.Position, last)
		}
		if want[e.Position] != string(e.Data) {
			t.Fatalf("%q is at %v, where %q should be", e.Data, e.Position, want[e.Position])
		}
		last = e.Position
	}
}

func TestCutSubscriberMissesNothing(t *testing.T) {
	const all = 2000
	server := redistest.Start(t)
	relay := newRelay(t, server.Addr)
	a, b := start(t, relay.url(), "a", Options{}), start(t, server.URL(), "b", Options{})
	var list []rooms.Room
	for i := range all {
		list = append(list, room(fmt.Sprint("r", i)))
	}
	subscribe(t, a, list...)
	fill := relay.hole(subscriber) // also for the next connection
	relay.cut(subscriber)
	want := crowd(t, b, 2*all, list)
	fill()
	began := time.Now()
	eventually(t, "the feed is live", func() bool { return a.Ready() == nil && a.Stats().Repaired == 2*all })
	t.Logf("%d rooms caught up in %v", all, time.Since(began))
	expectAll(t, a, want)
	if s := a.Stats(); s.Losses > 0 || s.Epochs > 0 || s.Generations == 0 {
		t.Errorf("got %+v, want catch-ups and no loss", s)
	}
	publish(t, b, event("live", list[0]))
	expect(t, a, "live")
}

// TCP reports no error, but no data arrives.
func TestSilentSubscriberIsDetected(t *testing.T) {
	const probing = 200 * time.Millisecond
	server := redistest.Start(t)
	relay := newRelay(t, server.Addr)
	a := start(t, relay.url(), "a", Options{ProbeInterval: probing})
	b := start(t, server.URL(), "b", Options{})
	subscribe(t, a, room("r"))
	quickest := patience
	for range 3 {
		before := a.Stats().Generations
		fill := relay.hole(subscriber)
		began := time.Now()
		publish(t, b, event("missed", room("r")))
		eventually(t, "the connection is given up", func() bool { return a.Stats().Generations > before })
		quickest = min(quickest, time.Since(began))
		relay.cut(subscriber) // data in the black hole does not arrive late
		fill()
		expect(t, a, "missed")
		eventually(t, "the feed is live", func() bool { return a.Ready() == nil })
	}
	// The machine may be busy once or twice.
	if most := 3*probing + probing/2; quickest > most {
		t.Errorf("it took %v or more, with probes every %v, want at most %v", quickest, probing, most)
	}
}

// A gap in the rule for join positions that a model once had: a room without a member is
// joined while its node catches up.
func TestJoinDuringCatchUp(t *testing.T) {
	var armed atomic.Bool
	fixed, release := make(chan struct{}), make(chan struct{})
	testEndFixed = func(p *partition) {
		if p.node == "a" && armed.CompareAndSwap(true, false) {
			close(fixed)
			select {
			case <-release:
			case <-p.ctx.Done():
			}
		}
	}
	t.Cleanup(func() { testEndFixed = nil }) // when the nodes are closed
	server := redistest.Start(t)
	relay := newRelay(t, server.Addr)
	a, b := start(t, relay.url(), "a", Options{}), start(t, server.URL(), "b", Options{})
	r := room("r")
	armed.Store(true)
	relay.cut(subscriber)
	<-fixed

	publish(t, b, event("139", r))
	first := subscribe(t, a, r)
	c140 := publish(t, b, event("140", r))
	second := subscribe(t, a, r)
	c141 := publish(t, b, event("141", r))
	if first.Covers(c140.At) || !second.Covers(c140.At) || second.Covers(c141.At) {
		t.Errorf("joined at %v, %q, joined at %v, %q", first, c140, second, c141)
	}
	close(release)
	for e := (adapter.Event{}); e.Position != c140.At; {
		var err error
		if e, err = a.Next(deadline(t)); err != nil {
			t.Fatal(err)
		}
		if c140.At.Compare(e.Position) < 0 {
			t.Fatalf("%q has come before 140", e.Data)
		}
	}
	expect(t, a, "141")
}

// Nothing is released until all channels are subscribed again.
func TestCatchUpWaitsForItsRooms(t *testing.T) {
	server := redistest.Start(t)
	relay := newRelay(t, server.Addr)
	a, b := start(t, relay.url(), "a", Options{}), start(t, server.URL(), "b", Options{})
	r := room("late")
	subscribe(t, a, r)
	said, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	relay.watch(func(_ *wire, what []byte) {
		if bytes.Contains(what, []byte(name(r))) && bytes.Contains(what, []byte("subscribe")) {
			once.Do(func() { close(said) })
			<-release
		}
	})
	relay.cut(subscriber)
	<-said
	for until := time.Now().Add(300 * time.Millisecond); a.Ready() != nil && time.Now().Before(until); { // as it should be
		time.Sleep(time.Millisecond)
	}
	publish(t, b, event("between", r))
	close(release)
	expect(t, a, "between")
}

// A node that does not read its events gets them later, or gets a loss, and does not hold
// them meanwhile.
func TestFeedOverflow(t *testing.T) {
	for name, limit := range map[string]int{"Repaired": 100_000, "Lost": 10} {
		t.Run(name, func(t *testing.T) {
			const n = feedItems + feedItems/4
			server := redistest.Start(t)
			a := start(t, server.URL(), "a", Options{BacklogLimit: limit})
			b := start(t, server.URL(), "b", Options{BacklogLimit: limit})
			r := room("r")
			subscribe(t, a, r)
			want := crowd(t, b, n, []rooms.Room{r})
			eventually(t, "the feed overflows", func() bool { return a.Stats().Gaps > 0 })
			if name == "Repaired" {
				expectAll(t, a, want)
			} else {
				before := expectLoss(t, a)
				if len(before) < feedItems-100 { // probes take space as well
					t.Errorf("the loss is said after %d events of %d, want at least %d", len(before), n, feedItems-100)
				}
				if a.Stats().Losses == 0 {
					t.Error("the loss is not counted")
				}
			}
			end := publish(t, b, event("end", r))
			for e := (adapter.Event{}); e.Position != end.At; {
				var err error
				if e, err = a.Next(deadline(t)); err != nil && !errors.As(err, new(*adapter.LostError)) {
					t.Fatal(err)
				}
			}
		})
	}
}

// Backlogs are longer than the limit, because otherwise a replay of a trimmed one would
// look complete.
func TestReplayOfATrimmedBacklogFails(t *testing.T) {
	const limit = 10
	server := redistest.Start(t, "stream-node-max-entries 1") // so trimming is exact
	a := start(t, server.URL(), "a", Options{BacklogLimit: limit})
	r := room("r")
	joined := subscribe(t, a, r)
	after := map[rooms.Room]adapter.Cursor{r: joined}
	replay := func(upTo adapter.Cursor) (n int, err error) {
		for _, err = range a.Replay(deadline(t), after, upTo, 0) {
			n++
		}
		return n, err
	}
	var head adapter.Cursor
	for i := range 5 * limit {
		head = publish(t, a, event(fmt.Sprint(i), r))
		n, err := replay(head)
		switch {
		case i < limit && (err != nil || n != i+1):
			t.Errorf("%d events missed, and the replay has %d: %v", i+1, n, err)
		case i >= limit && !errors.Is(err, adapter.ErrTrimmed):
			t.Errorf("%d events missed, and the replay has %d: %v, want ErrTrimmed", i+1, n, err)
		}
	}
}

// When Redis has lost everything, a replay does not consider the rooms empty, even before
// the node has detected the loss: it reads the history's clock after the rooms.
func TestReplayOfALostHistory(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, server.URL(), "a", Options{ProbeInterval: time.Minute})
	r := room("r")
	joined := subscribe(t, a, r)
	end := publish(t, a, event("missed", r))
	if err := server.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	for e, err := range a.Replay(deadline(t), map[rooms.Room]adapter.Cursor{r: joined}, end, 0) {
		if !errors.Is(err, adapter.ErrHistoryLost) {
			t.Errorf("the replay has %q, %v, want ErrHistoryLost", e.Data, err)
		}
		return
	}
	t.Error("the replay is empty, want ErrHistoryLost")
}

// A backlog that expired while its room's events were missed looks like one without new
// events. The passed time is measured by Redis' own time, because the clock's entries show
// it only if events or probes are published meanwhile.
func TestGapOlderThanBacklogsIsALoss(t *testing.T) {
	for _, probing := range []time.Duration{50 * time.Millisecond, time.Minute} {
		t.Run(fmt.Sprint("probes every ", probing), func(t *testing.T) {
			o := Options{BacklogTTL: 300 * time.Millisecond, ProbeInterval: probing}
			server := redistest.Start(t)
			relay := newRelay(t, server.Addr)
			a, b := start(t, relay.url(), "a", o), start(t, server.URL(), "b", o)
			subscribe(t, a, room("r"))
			fill := relay.hole(subscriber)
			relay.cut(subscriber)
			missed := publish(t, b, event("missed", room("r")))
			backlog := a.partitions[0].names.room(missed.Epoch, name(room("r")))
			eventually(t, "the backlog has expired", func() bool {
				n, err := server.Client().Exists(t.Context(), backlog).Result()
				return err == nil && n == 0
			})
			fill()
			if before := expectLoss(t, a); len(before) > 0 {
				t.Errorf("%q came before the loss was reported", before)
			}
		})
	}
}

// An undecodable event that arrives during a catch-up, after the events that the catch-up
// reads, is a gap in its room.
func TestUndecodableDuringCatchUp(t *testing.T) {
	var armed atomic.Bool
	fixed, release := make(chan struct{}), make(chan struct{})
	testEndFixed = func(p *partition) {
		if p.node == "a" && armed.CompareAndSwap(true, false) {
			close(fixed)
			select {
			case <-release:
			case <-p.ctx.Done():
			}
		}
	}
	t.Cleanup(func() { testEndFixed = nil }) // when the nodes are closed
	server := redistest.Start(t)
	relay := newRelay(t, server.Addr)
	a, b := start(t, relay.url(), "a", Options{}), start(t, server.URL(), "b", Options{})
	r, s := room("r"), room("s")
	subscribe(t, a, r, s)
	armed.Store(true)
	relay.cut(subscriber)
	<-fixed
	foreign(t, b, []byte{version + 1, 1, 2, 3}, r)
	publish(t, b, event("behind it", s))
	eventually(t, "it has arrived", func() bool { return a.Stats().Malformed > 0 })
	close(release)
	expectRoomsLost(t, a, r)
	expect(t, a, "behind it")
}
