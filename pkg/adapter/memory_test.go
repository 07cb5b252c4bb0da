package adapter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

func room(name string) rooms.Room { return rooms.InNamed("/", name) }

func stored(data string, to ...rooms.Room) Event {
	return Event{Target: rooms.Target{To: to}, Stored: true, Data: []byte(data)}
}

func mustJoin(t testing.TB, m *Memory, id NodeID) Adapter {
	t.Helper()
	a, err := m.Node(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

type publisher interface {
	Publish(context.Context, Event) (Receipt, error)
}

func mustPublish(t testing.TB, a publisher, e Event) Cursor {
	t.Helper()
	r, err := a.Publish(t.Context(), e)
	if err != nil {
		t.Fatalf("Publish: %v", err)
	}
	return r.Cursor
}

func mustSubscribe(t testing.TB, a Adapter, to ...rooms.Room) Cursor {
	t.Helper()
	c, err := a.Subscribe(t.Context(), to...)
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	return c
}

// replayed returns the events of a room after a cursor.
func replayed(t testing.TB, a Adapter, r rooms.Room, after Cursor) ([]string, error) {
	t.Helper()
	head, err := a.Head(t.Context())
	if err != nil {
		t.Fatalf("Head: %v", err)
	}
	var data []string
	for e, err := range a.Replay(t.Context(), map[rooms.Room]Cursor{r: after}, head, 0) {
		if err != nil {
			return nil, err
		}
		data = append(data, string(e.Data))
	}
	return data, nil
}

func TestNodeIDsAreUnique(t *testing.T) {
	m := NewMemory(MemoryOptions{})
	a := mustJoin(t, m, "a")
	if _, err := m.Node("a"); err == nil {
		t.Error("two nodes got the same id")
	}
	a.Close()
	mustJoin(t, m, "a")
}

func TestClockNeverGoesBack(t *testing.T) {
	l := NewMemory(MemoryOptions{}).logs[0]
	now := time.Now()
	last := l.newest
	for _, d := range []time.Duration{0, time.Millisecond, 0, -time.Hour, -24 * time.Hour, time.Minute, time.Minute - 1, 0} {
		p := l.tick(now.Add(d))
		if p.Compare(last) <= 0 {
			t.Errorf("with the wall clock at %v the position after %v is %v", d, last, p)
		}
		last = p
	}
	if want := now.Add(time.Minute).UnixMilli(); last.Time().UnixMilli() != want {
		t.Errorf("the clock stands at %v, want the newest time it saw", last.Time())
	}
}

func TestSilentRoomsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryOptions{BacklogTTL: time.Minute})
		a := mustJoin(t, m, "a")
		start := mustSubscribe(t, a)
		mustPublish(t, a, stored("1", room("r")))
		mustPublish(t, a, stored("1", room("s")))
		time.Sleep(40 * time.Second)
		mustPublish(t, a, stored("2", room("r"))) // r keeps all its events
		time.Sleep(20 * time.Second)
		if got, err := replayed(t, a, room("s"), start); !errors.Is(err, ErrTrimmed) {
			t.Errorf("after its time the room s has %q, %v, want ErrTrimmed", got, err)
		}
		if got, err := replayed(t, a, room("r"), start); err != nil || !slices.Equal(got, []string{"1", "2"}) {
			t.Errorf("the room r has %q, %v", got, err)
		}
		if events, _, _ := a.History(t.Context(), room("s"), Page{Events: 1}); len(events) > 0 {
			t.Error("the room s has a history")
		}

		// Publishing sweeps, so rooms that are never read are dropped, too.
		for i := range 1000 {
			mustPublish(t, a, stored("x", room(fmt.Sprint(i))))
		}
		time.Sleep(time.Minute)
		mustPublish(t, a, stored("x", room("r")))
		if n := len(m.logs[0].backlogs.byRoom); n != 1 || m.logs[0].backlogs.quiet.Len()+m.logs[0].backlogs.idle.Len() != 1 {
			t.Errorf("%d rooms have backlogs, want the one that was published to", n)
		}
	})
}

func TestBacklogsAreTrimmed(t *testing.T) {
	const limit = 10
	m := NewMemory(MemoryOptions{BacklogLimit: limit})
	a := mustJoin(t, m, "a")
	for i := range 100 {
		mustPublish(t, a, stored("x", room("r")))
		b := m.logs[0].backlogs.byRoom[room("r")]
		if n := len(b.events); n > 2*limit || n < min(i+1, limit) {
			t.Fatalf("of %d events %d are kept", i+1, n)
		}
		if want := backlogOverhead + len("r") + len(b.events)*b.events[0].size(); b.bytes != want || m.logs[0].backlogs.bytes != want {
			t.Fatalf("counted %d and %d bytes, want %d", b.bytes, m.logs[0].backlogs.bytes, want)
		}
	}
}

// Slices of a backlog that were returned do not change.
func TestTrimmingDoesNotDisturbReplays(t *testing.T) {
	m := NewMemory(MemoryOptions{BacklogLimit: 4})
	a := mustJoin(t, m, "a")
	start := mustSubscribe(t, a)
	for i := range 4 {
		mustPublish(t, a, stored(fmt.Sprint(i), room("r")))
	}
	head, _ := a.Head(t.Context())
	var got []string
	for e, err := range a.Replay(t.Context(), map[rooms.Room]Cursor{room("r"): start}, head, 0) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(e.Data))
		for range 20 {
			mustPublish(t, a, stored("x", room("r")))
		}
	}
	if want := []string{"0", "1", "2", "3"}; !slices.Equal(got, want) {
		t.Errorf("replayed %q, want %q", got, want)
	}
}

// The rooms that an event names count as well. Rooms that its copies share count once.
func TestTargetsCountInBacklogs(t *testing.T) {
	const names, size = 1000, 200
	spared := make([]rooms.Room, names)
	for i := range spared {
		spared[i] = room(strings.Repeat("x", size-4) + fmt.Sprintf("%04d", i))
	}
	for _, copies := range []int{1, 3, 100} {
		m := NewMemory(MemoryOptions{})
		a := mustJoin(t, m, "a")
		e := Event{Target: rooms.Target{Except: spared}, Stored: true, Data: []byte("x")}
		for i := range copies {
			e.Target.To = append(e.Target.To, room(fmt.Sprint(i)))
		}
		mustPublish(t, a, e)
		if got, least := m.logs[0].backlogs.bytes, names*size; got < least || got > 2*least+copies*1000 {
			t.Errorf("%d copies count as %d bytes, want about %d", copies, got, least)
		}
	}
}

// TestBacklogsCountStructures: the counted bytes match the heap memory of the events, even
// of small ones. They are not less, and not several times more.
func TestBacklogsCountStructures(t *testing.T) {
	const n = 4000
	long := strings.Repeat("n", 180)
	for _, test := range []struct {
		name string
		of   func(i int) Event
	}{
		{"tiny, in one room", func(int) Event { return stored("x", room("a")) }},
		{"tiny, in many rooms", func(i int) Event { return stored("x", room(fmt.Sprint(i))) }},
		{"in many rooms with long names", func(i int) Event { return stored("x", room(long+fmt.Sprint(i))) }},
		{"to ten rooms each", func(i int) Event {
			e := stored(strings.Repeat("x", 100), room("a"))
			for k := range 9 {
				e.Target.To = append(e.Target.To, room(fmt.Sprint(i%100, " ", k)))
			}
			return e
		}},
		{"with empty attachments", func(int) Event {
			e := stored("x", room("a"))
			e.Attachments = make([][]byte, MaxAttachments)
			return e
		}},
		{"a question with a room that is spared", func(int) Event {
			e := stored("x", room("a"))
			e.Ask, e.Target.Except = strings.Clone(long), []rooms.Room{room("b")}
			return e
		}},
		{"whose data has spare capacity", func(int) Event {
			e := stored("", room("a"))
			e.Data = make([]byte, 1, 2048)
			return e
		}},
	} {
		m := NewMemory(MemoryOptions{BacklogLimit: n})
		a := mustJoin(t, m, "a")
		before := heapBytes()
		for i := range n {
			mustPublish(t, a, test.of(i))
		}
		taken, counted := heapBytes()-before, m.logs[0].backlogs.bytes
		if counted < taken || counted > 3*taken {
			t.Errorf("%s: %d bytes an event are counted as %d", test.name, taken/n, counted/n)
		}
		runtime.KeepAlive(m)
	}
}

// TestBacklogsKeepToTheMemoryLimit: by default backlogs use a part of the process' memory
// limit.
func TestBacklogsKeepToTheMemoryLimit(t *testing.T) {
	for limit, want := range map[int64]int{math.MaxInt64: 256 << 20, 256 << 20: 64 << 20} {
		before := debug.SetMemoryLimit(limit)
		m := NewMemory(MemoryOptions{})
		debug.SetMemoryLimit(before)
		if got := m.Stats().BacklogLimit; got != want {
			t.Errorf("%d bytes of %d, want %d", got, limit, want)
		}
	}
	if got := NewMemory(MemoryOptions{BacklogBytes: 7}).Stats().BacklogLimit; got != 7 {
		t.Errorf("%d bytes, want 7", got)
	}
}

// heapBytes returns the bytes of all reachable memory.
func heapBytes() int {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC() // objects that had a finalizer
	runtime.ReadMemStats(&s)
	return int(s.HeapAlloc)
}

// Backlogs that need too much memory are dropped, the longest silent first, and a replay of
// their events fails.
func TestBacklogBytesAreBounded(t *testing.T) {
	const budget = 100_000
	m := NewMemory(MemoryOptions{BacklogBytes: budget})
	a := mustJoin(t, m, "a")
	start := mustSubscribe(t, a)
	var last Cursor
	for i := range 1000 {
		last = mustPublish(t, a, stored("x", room(fmt.Sprint(i))))
		if m.logs[0].backlogs.bytes > budget {
			t.Fatalf("the backlogs take %d bytes of %d, want at most %d", m.logs[0].backlogs.bytes, budget, budget)
		}
	}
	if _, err := replayed(t, a, room("0"), start); !errors.Is(err, ErrTrimmed) {
		t.Errorf("replay of a room that was given up: %v, want ErrTrimmed", err)
	}
	known := 0
	for i := range 100 {
		switch _, err := replayed(t, a, room(fmt.Sprint("never used ", i)), start); {
		case err == nil:
			known++
		case !errors.Is(err, ErrTrimmed):
			t.Errorf("replay of a room that was never used: %v", err)
		}
	}
	if known < 50 {
		t.Errorf("%d of 100 rooms that were never used are known to have lost nothing, want at least 50", known)
	}
	if got, err := replayed(t, a, room("0"), last); err != nil || len(got) > 0 {
		t.Errorf("replay from after the loss: %q, %v", got, err)
	}
	// A new backlog of the room does not hide the loss.
	mustPublish(t, a, stored("again", room("0")))
	if _, err := replayed(t, a, room("0"), start); !errors.Is(err, ErrTrimmed) {
		t.Errorf("replay of a room that was dropped and created again: %v, want ErrTrimmed", err)
	}
	if got, err := replayed(t, a, room("0"), last); err != nil || len(got) != 1 {
		t.Errorf("replay from after the loss: %q, %v", got, err)
	}
	if stats := m.Stats(); stats.BacklogsDropped == 0 || stats.BacklogBytes > budget || stats.BacklogLimit != budget {
		t.Errorf("got %+v, want dropped backlogs and at most %d bytes", stats, budget)
	}
	// One event larger than the budget is not kept at all.
	huge := Event{Target: rooms.Target{To: []rooms.Room{room("huge")}}, Stored: true, Attachments: [][]byte{make([]byte, budget)}}
	mustPublish(t, a, huge)
	if m.logs[0].backlogs.bytes != 0 || len(m.logs[0].backlogs.byRoom) != 0 {
		t.Errorf("%d bytes are kept in %d rooms, want 0, 0", m.logs[0].backlogs.bytes, len(m.logs[0].backlogs.byRoom))
	}
}

// TestRoomsWithoutMembersAreForgottenFirst: events to rooms without members for a long time do not displace
// those of rooms whose members are connected or were recently.
func TestRoomsWithoutMembersAreForgottenFirst(t *testing.T) {
	const budget = 200_000
	m := NewMemory(MemoryOptions{BacklogBytes: budget})
	a := mustJoin(t, m, "a")
	mustSubscribe(t, a, room("present"), room("away"), room("away without events"))
	made := mustPublish(t, a, stored("x", room("found later")))
	start := mustPublish(t, a, stored("before", room("away")))
	a.Unsubscribe(room("away"), room("away without events"))
	heard := []rooms.Room{room("present"), room("away"), room("away without events")}
	for _, r := range heard {
		mustPublish(t, a, stored("missed", r))
	}
	mustSubscribe(t, a, room("found later"))
	for i := range 100 {
		e := stored("x")
		for k := range 20 {
			e.Target.To = append(e.Target.To, room(fmt.Sprint("made up ", i, " ", k)))
		}
		mustPublish(t, a, e)
	}
	if m.Stats().BacklogsDropped == 0 {
		t.Fatal("no backlog is given up")
	}
	for _, r := range heard {
		if got, err := replayed(t, a, r, start); err != nil || len(got) != 1 {
			t.Errorf("%s: replayed %q, %v", r.Name, got, err)
		}
	}
	if events, _, err := a.History(t.Context(), room("found later"), Page{Events: 10}); err != nil || len(events) != 1 || events[0].Position != made.At {
		t.Errorf("of a room that was joined later %v are kept, %v", events, err)
	}
}

// TestCopiesCountTheirPayloadOnce: the payload counts until the last of the backlogs that
// share it is dropped.
func TestCopiesCountTheirPayloadOnce(t *testing.T) {
	const n, size = 100, 10_000
	m := NewMemory(MemoryOptions{BacklogLimit: 1})
	a := mustJoin(t, m, "a")
	e := stored(strings.Repeat("x", size))
	for i := range n {
		e.Target.To = append(e.Target.To, room(fmt.Sprint(i)))
	}
	expect := func(payloads int) {
		t.Helper()
		events := 0
		for _, b := range m.logs[0].backlogs.byRoom {
			events += len(b.events)
		}
		if got, least := m.logs[0].backlogs.bytes, payloads*size; got < least || got > least+size/2+events*1000 {
			t.Errorf("%d events and %d payloads count as %d bytes, want at least %d, at most %d", events, payloads, got, least, least+size/2+events*1000)
		}
	}
	mustPublish(t, a, e)
	expect(1)
	for _, r := range e.Target.To[:n-1] { // of which each keeps two events at most
		mustPublish(t, a, stored("x", r))
		mustPublish(t, a, stored("x", r))
	}
	expect(1)
	mustPublish(t, a, stored("x", e.Target.To[n-1]))
	mustPublish(t, a, stored("x", e.Target.To[n-1]))
	expect(0)
	if len(m.logs[0].backlogs.shares) != 0 {
		t.Errorf("%d shares are kept, want 0", len(m.logs[0].backlogs.shares))
	}
}

// fill publishes to a room until the feed of the subscribed node is full.
func fill(t *testing.T, a Adapter, r rooms.Room) {
	t.Helper()
	for range feedItems {
		mustPublish(t, a, stored("x", r))
	}
}

func TestPublishWaitsForSlowNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryOptions{})
		fast, slow := mustJoin(t, m, "fast"), mustJoin(t, m, "slow")
		mustSubscribe(t, slow, room("r"))
		fill(t, fast, room("r"))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := fast.Publish(ctx, stored("too late", room("r"))); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Publish to a full feed: %v, want the end of the context", err)
		}
		mustPublish(t, fast, stored("free", room("elsewhere"))) // others do not wait

		var wg sync.WaitGroup
		var waited atomic.Bool
		for range 10 {
			wg.Go(func() {
				mustPublish(t, fast, stored("waited", room("r")))
				waited.Store(true)
			})
		}
		synctest.Wait()
		if waited.Load() {
			t.Fatal("Publish did not wait")
		}
		for i := range feedItems + 10 {
			want := "x"
			if i >= feedItems {
				want = "waited"
			}
			if e, err := slow.Next(t.Context()); err != nil || string(e.Data) != want {
				t.Fatalf("event %d is %q, %v, want %q", i, e.Data, err, want)
			}
		}
		wg.Wait()
	})
}

func TestPublishEndsWithTheNodeThatItWaitsFor(t *testing.T) {
	for name, free := range map[string]struct {
		by   func(m *Memory, publisher, slow Adapter)
		want error
	}{
		"when it leaves":               {func(_ *Memory, _, slow Adapter) { slow.Close() }, nil},
		"when the history is reset":    {func(m *Memory, _, _ Adapter) { m.Reset() }, nil},
		"when the publisher is closed": {func(_ *Memory, publisher, _ Adapter) { publisher.Close() }, ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewMemory(MemoryOptions{})
				publisher, slow := mustJoin(t, m, "publisher"), mustJoin(t, m, "slow")
				mustSubscribe(t, slow, room("r"))
				fill(t, publisher, room("r"))
				result := make(chan error, 1)
				go func() {
					_, err := publisher.Publish(t.Context(), stored("x", room("r")))
					result <- err
				}()
				synctest.Wait()
				free.by(m, publisher, slow)
				if err := <-result; !errors.Is(err, free.want) {
					t.Errorf("Publish: %v, want %v", err, free.want)
				}
			})
		})
	}
}

// Feeds are bounded by bytes, too. One event of any size fits an empty feed.
func TestFeedsCountBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryOptions{})
		a := mustJoin(t, m, "a")
		mustSubscribe(t, a, room("r"))
		large := Event{Target: rooms.Target{To: []rooms.Room{room("r")}}, Data: make([]byte, feedBytes)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 3 {
			mustPublish(t, a, large)
			if _, err := a.Publish(ctx, large); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Publish to a full feed: %v, want the end of the context", err)
			}
			if e, err := a.Next(t.Context()); err != nil || &e.Data[0] != &large.Data[0] {
				t.Errorf("Next: %v, or the bytes were copied", err)
			}
		}
	})
}

func TestResetReplacesQueuedEvents(t *testing.T) {
	m := NewMemory(MemoryOptions{})
	a := mustJoin(t, m, "a")
	mustSubscribe(t, a, room("r"))
	fill(t, a, room("r"))
	m.Reset()
	m.Reset()
	mustPublish(t, a, stored("new", room("r")))
	lost := new(LostError)
	if _, err := a.Next(t.Context()); !errors.As(err, &lost) {
		t.Errorf("Next: %v, want a *LostError", err)
	}
	if e, err := a.Next(t.Context()); err != nil || string(e.Data) != "new" || e.Cursor.Epoch != m.logs[0].epoch {
		t.Errorf("Next: %q at %v, %v", e.Data, e.Cursor, err)
	}
}

func TestInboxesAreBounded(t *testing.T) {
	m := NewMemory(MemoryOptions{})
	a, b := mustJoin(t, m, "a"), mustJoin(t, m, "b")
	for range inboxItems {
		if err := a.Send(t.Context(), "b", Message{}); err != nil {
			t.Fatalf("Send: %v", err)
		}
	}
	if err := a.Send(t.Context(), "b", Message{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Send to a full inbox: %v, want ErrUnavailable", err)
	}
	for range inboxItems {
		if _, err := b.Receive(t.Context()); err != nil {
			t.Fatalf("Receive: %v", err)
		}
	}
	if err := a.Send(t.Context(), "b", Message{}); err != nil {
		t.Errorf("Send: %v", err)
	}
}

// A closed node leaves no state in the Memory.
func TestCloseFreesTheRooms(t *testing.T) {
	m := NewMemory(MemoryOptions{})
	a, b := mustJoin(t, m, "a"), mustJoin(t, m, "b")
	mustSubscribe(t, a, room("r"), room("s"))
	mustSubscribe(t, b, room("r"))
	a.Close()
	b.Unsubscribe(room("r"))
	if n := len(m.logs[0].subscribers); n != 1 {
		t.Errorf("%d rooms have subscribers, want only that of the nodes", n)
	}
}

func TestPublishAllocatesOnlyTheEvent(t *testing.T) {
	m := NewMemory(MemoryOptions{})
	ctx := t.Context()
	var nodes []Adapter
	for i := range 4 {
		n := mustJoin(t, m, NodeID(fmt.Sprint(i)))
		mustSubscribe(t, n, room("r"))
		nodes = append(nodes, n)
	}
	e := stored("x", room("r"))
	allocs := testing.AllocsPerRun(3000, func() {
		if _, err := nodes[0].Publish(ctx, e); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if _, err := n.Next(ctx); err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocs > 1 {
		t.Errorf("publishing to a room of 4 nodes and reading it allocates %v times, want 1", allocs)
	}
}

// A node that is listed receives what is for all nodes.
func TestListedNodesAreSubscribed(t *testing.T) {
	m := NewMemory(MemoryOptions{})
	a := mustJoin(t, m, "a")
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		for i := range 300 {
			b, err := m.Node(NodeID(fmt.Sprint("b", i)))
			if err != nil {
				t.Error(err)
				return
			}
			_ = b.Close()
		}
	}()
	for {
		before, err := a.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r, err := a.Publish(t.Context(), Event{Target: rooms.Target{To: []rooms.Room{rooms.InNodes()}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		after, err := a.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(before) == 2 && len(after) == 2 && before[1].ID == after[1].ID && r.Receivers < 2 {
			t.Errorf("%d nodes received the event, of %d", r.Receivers, len(before))
		}
		select {
		case <-joined:
			return
		default:
		}
	}
}
