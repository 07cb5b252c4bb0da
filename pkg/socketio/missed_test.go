package socketio

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// dialSlow opens a connection from which only the test reads.
func (n *testNode) dialSlow(t *testing.T) *wire {
	t.Helper()
	dialer := websocket.Dialer{NetDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if tcp, ok := c.(*net.TCPConn); ok {
			err = tcp.SetReadBuffer(256 << 10)
		}
		return c, err
	}}
	ws, _, err := dialer.Dial(n.url+"/socket.io/?recovery=true&EIO=4&transport=websocket", nil)
	must(t, err)
	w := &wire{t: t, ws: ws, ns: "/", in: make(chan string), closed: make(chan struct{})}
	go w.read()
	t.Cleanup(func() {
		_ = ws.NetConn().Close()
		for {
			select {
			case <-w.in:
			case <-w.closed:
				return
			}
		}
	})
	if first := w.next(); !strings.HasPrefix(first, "0{") {
		t.Fatalf(`handshake %q, want text that begins with "0{"`, first)
	}
	return w
}

// backSlow is back with a connection of dialSlow.
func (n *testNode) backSlow(t *testing.T, was *wire) *wire {
	t.Helper()
	w := n.dialSlow(t)
	w.offset = was.offset
	return w.connect(was.ns, fmt.Sprintf(`{"pid":%q,"offset":%q}`, was.pid, was.offset))
}

// large is the total size of a number of events that exceed the buffers of an unread
// connection.
const (
	largeEvents = 60
	largeSize   = 100 << 10
)

func large(i int) []any { return []any{i, strings.Repeat("x", largeSize)} }

// numberOf takes the next event and returns its room and number there.
func numberOf(w *wire) (room string, number int) {
	w.t.Helper()
	got := w.event()
	if _, err := fmt.Sscanf(got, `["%3s",%d`, &room, &number); err != nil {
		w.t.Fatalf("got %.100s: %v", got, err)
	}
	return room, number
}

// A client that reads a large replay slowly receives all of it, once and in order, and then the
// events published meanwhile; also if it is cut in the middle and reconnects to another node.
func TestLargeReplay(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		for _, cuts := range []bool{false, true} {
			t.Run(fmt.Sprint(partitions, " partitions, cut ", cuts), func(t *testing.T) {
				c := newCluster(adapter.MemoryOptions{Partitions: partitions})
				o := Options{Engine: engineio.Options{SendQueueBytes: 256 << 10}} // the events held for it meanwhile do not fit
				nodes := []*testNode{c.node(t, "a", o), c.node(t, "b", o)}
				var list []string
				for i := range 5 {
					list = append(list, fmt.Sprintf("r%02d", i))
				}
				for _, n := range nodes {
					joining(n.Namespace)
				}
				a := nodes[0].client(t)
				for _, room := range list {
					a.call(`["join","` + room + `"]`)
				}
				must(t, nodes[0].Emit(t.Context(), "first"))
				a.want(`["first"]`)
				a.cut()
				eventually(t, "it has ended", func() bool { return nodes[0].Len() == 0 })
				published := 0
				publish := func() {
					room := list[published%len(list)]
					must(t, nodes[1].To(room).Emit(t.Context(), room, large(published/len(list))...))
					published++
				}
				for range largeEvents {
					publish()
				}
				received := make(map[string]int)
				b := nodes[0].backSlow(t, a)
				if b.sid != a.sid {
					t.Fatalf("not recovered: %v", nodes[0].Stats().Recoveries)
				}
				if held := nodes[0].Stats().ReplayBytes; held > replayPage+largeEvents*laterOverhead {
					t.Errorf("%d bytes are held, want at most %d", held, replayPage+largeEvents*laterOverhead)
				}
				for i := 0; i < published; i++ {
					if i < largeEvents/2 {
						publish() // while the replay is sent
					}
					if cuts && (i == 10 || i == 50) {
						_ = b.ws.NetConn().Close()
						was := b
						if b = nodes[i/10%2].backSlow(t, was); b.sid != was.sid {
							t.Fatalf("not recovered at %d: %v", i, nodes[i/10%2].Stats().Recoveries)
						}
					}
					room, number := numberOf(b)
					if number != received[room] || partitions == 1 && room != list[i%len(list)] {
						t.Fatalf("event %d is %d of %s, want %d", i, number, room, received[room])
					}
					received[room]++
				}
				must(t, nodes[1].Emit(t.Context(), "end"))
				b.want(`["end"]`)
				b.quiet()
				for _, n := range nodes {
					eventually(t, "nothing is held", func() bool { return n.Stats().ReplayBytes == 0 })
				}
			})
		}
	}
}

// A client is cut, and not recovered, if events of its replay are trimmed from the backlog
// before they are sent.
func TestReplayThatIsTrimmedMeanwhile(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		c := newCluster(adapter.MemoryOptions{Partitions: partitions, BacklogLimit: largeEvents})
		n := c.node(t, "a", Options{})
		a := n.client(t)
		must(t, n.Emit(t.Context(), "first"))
		a.want(`["first"]`)
		a.cut()
		for i := range largeEvents {
			must(t, n.Emit(t.Context(), "all", large(i)...))
		}
		b := n.backSlow(t, a)
		if b.sid != a.sid {
			t.Fatalf("not recovered: %v", n.Stats().Recoveries)
		}
		received := 0
		next := func() {
			if _, number := numberOf(b); number != received {
				t.Fatalf("event %d is %d, want %d", received, number, received)
			}
			received++
		}
		next()
		for range 2 * largeEvents {
			must(t, n.Emit(t.Context(), "small"))
		}
		for cut := false; !cut; {
			select {
			case m := <-b.in:
				if got := b.hear(m); !strings.HasPrefix(got, fmt.Sprintf(`["all",%d,`, received)) {
					t.Fatalf("event %d is %.30s", received, got)
				}
				received++
			case <-b.closed:
				cut = true
			}
		}
		if received >= largeEvents {
			t.Errorf("all %d events have come, want less than %d", received, largeEvents)
		}
		d := n.back(t, b)
		if d.sid == b.sid || n.Stats().Recoveries[refusedTrimmed] != 1 {
			t.Errorf("recovered %v: %v", d.sid == b.sid, n.Stats().Recoveries)
		}
	}
}

// A fetchingAdapter counts the events that are read again.
type fetchingAdapter struct {
	adapter.Adapter
	fetched atomic.Int64
}

func (a *fetchingAdapter) Fetch(ctx context.Context, history adapter.Cursor, places []adapter.Place) ([]adapter.Event, error) {
	a.fetched.Add(int64(len(places)))
	return a.Adapter.Fetch(ctx, history, places)
}

// Events that fit in a page are read once, also in a small page, which a recovery gets while
// others hold the large ones. Other events are read a second time, as are events missed while
// other recoveries hold too much. A recovery that would hold too many places is postponed.
func TestReplayBudget(t *testing.T) {
	for name, tt := range map[string]struct {
		page, budget, small int
		fetched             int
		postponed           bool
	}{
		"default":                     {replayPage, replayBudget, smallReplay, 0, false},
		"large":                       {100, replayBudget, smallReplay, largeEvents, false},
		"a small page":                {replayPage, replayPage, smallReplay, 0, false},
		"without a page":              {replayPage, replayPage, 4 * replayPage, largeEvents, false},
		"without room for the places": {replayPage, 100, 100, 0, true},
		"small, without room":         {100, 100, smallReplay, largeEvents, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(adapter.MemoryOptions{})
			other := c.node(t, "other", Options{})
			inner, err := c.memory.Node("a")
			must(t, err)
			t.Cleanup(func() { _ = inner.Close() })
			counting := &fetchingAdapter{Adapter: inner}
			n := start(t, Options{Adapter: counting, Sessions: c.sessions})
			n.replays.page, n.replays.budget, n.replays.small = tt.page, tt.budget, tt.small
			a := n.client(t)
			a.cut()
			var want []string
			for i := range largeEvents {
				must(t, n.Emit(t.Context(), "n", i))
				want = append(want, numbered(i))
			}
			if tt.postponed {
				w := n.dial(t)
				w.write(fmt.Sprintf(`40{"pid":%q}`, a.pid))
				<-w.closed
				if limited := n.Stats().Limited[limitReplayBudget]; limited != 1 || len(w.in) > 0 {
					t.Errorf("limited %v; %d messages", n.Stats().Limited, len(w.in))
				}
			}
			where := n
			if tt.postponed {
				where = other
			}
			b := where.back(t, a)
			b.want(want...)
			if b.sid != a.sid {
				t.Error("not recovered")
			}
			fetched := int(counting.fetched.Load())
			if fetched > tt.fetched || fetched < tt.fetched-15 {
				t.Errorf("%d events are read again, want %d", fetched, tt.fetched)
			}
			for _, n := range []*testNode{n, other} {
				eventually(t, "nothing is held", func() bool { return n.Stats().ReplayBytes == 0 })
			}
		})
	}
}

// Where replays that are taken slowly hold all that may be held, one that holds at least four times as
// much gives way to a recovery. Its client is closed, and recovers later; what it held does not count
// meanwhile.
func TestSlowReplaysGiveWay(t *testing.T) {
	n := start(t, Options{})
	n.replays.page, n.replays.budget, n.replays.small = 1, 65*laterOverhead, 100 // room for the places of 65 events, and no payloads
	joining(n.Namespace)
	missing := func(room string, events int, args func(int) []any) *wire {
		w := n.client(t)
		w.call(`["join","` + room + `"]`)
		must(t, n.To(room).Emit(t.Context(), "first"))
		w.want(`["first"]`)
		w.cut()
		eventually(t, "gone", func() bool { return n.Len() == 0 })
		for i := range events {
			must(t, n.To(room).Emit(t.Context(), "n", args(i)...))
		}
		return w
	}
	number := func(i int) []any { return []any{i} }
	slow, small, half := missing("slow", largeEvents, large), missing("small", 10, number), missing("half", largeEvents/2, number)
	taking := n.backSlow(t, slow)
	eventually(t, "it waits for its client", func() bool { return n.Stats().Replayed > 0 && n.Stats().ReplayBytes > 0 })
	w := n.dial(t)
	w.write(fmt.Sprintf(`40{"pid":%q,"offset":%q}`, half.pid, half.offset))
	<-w.closed
	if limited := n.Stats().Limited[limitReplayBudget]; limited != 1 {
		t.Errorf("limited %v: one that is not much smaller", n.Stats().Limited)
	}
	b := n.back(t, small)
	if b.sid != small.sid {
		t.Errorf("not recovered: %v", n.Stats().Recoveries)
	}
	for i := range 10 {
		b.want(numbered(i))
	}
	_ = taking.ws.NetConn().Close()
	if limited := n.Stats().Limited[limitReplayBudget]; limited != 2 {
		t.Errorf("limited %v", n.Stats().Limited)
	}
	eventually(t, "nothing is held", func() bool { return n.Stats().ReplayBytes == 0 })
	if again := n.back(t, slow); again.sid != slow.sid {
		t.Errorf("not recovered later: %v", n.Stats().Recoveries)
	}
}

// If recoveries hold too much, the part of a large replay that fits in a page is not held either.
func TestAPageThatDoesNotFit(t *testing.T) {
	n := start(t, Options{})
	s := n.Socket(n.client(t).sid)
	to := rooms.Target{To: []rooms.Room{rooms.InNamed("/", "r")}}
	r := replay{socket: s, missed: []*adapter.Event{
		{Target: to, Data: make([]byte, 2*smallReplay)}, {Target: to, Omitted: 5}, {Target: to, Data: make([]byte, 5)},
	}}
	for _, tt := range []struct{ held, events, later int }{{0, 1, 2}, {n.replays.budget, 0, 3}} {
		n.replays.held.Store(int64(tt.held))
		m, err := r.found(adapter.Cursor{})
		must(t, err)
		if len(m.events) != tt.events || len(m.later) != tt.later {
			t.Errorf("with %d bytes held: %d events, %d later, want %d, %d", tt.held, len(m.events), len(m.later), tt.events, tt.later)
		}
		if unsafe.SliceData(m.events) == unsafe.SliceData(r.missed) {
			t.Error("the events that are not held stay in memory")
		}
		m.release()
		if held := n.replays.held.Load(); held != int64(tt.held) {
			t.Errorf("%d bytes are held afterwards, want %d", held, tt.held)
		}
	}
	n.replays.held.Store(0)
}

// cutIn connects a client to a number of namespaces, and cuts it. It returns their names and the
// client's private ids.
func (n *testNode) cutIn(t *testing.T, namespaces int) (names, pids []string) {
	w := n.dial(t)
	for i := range namespaces {
		name := fmt.Sprintf("/%d", i)
		n.Of(name)
		w.connect(name, "")
		names, pids = append(names, name), append(pids, w.pid)
	}
	w.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Stats().Sockets == 0 })
	return names, pids
}

// claimIn claims the sessions of private ids in namespaces by polling, and returns functions to poll
// and to post.
func (n *testNode) claimIn(t *testing.T, names, pids []string) (poll func() string, post func(body string)) {
	poll, post = n.polling(t)
	for i, name := range names {
		post(fmt.Sprintf(`40%s,{"pid":%q}`, name, pids[i]))
	}
	return poll, post
}

// Sockets in several namespaces of one connection are recovered concurrently. Their replays share its
// send queue.
func TestReplaysOfOneConnection(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(16)) // so that they run concurrently
	const namespaces, size = 8, 450_000
	n := start(t, Options{})
	for range 3 {
		names, pids := n.cutIn(t, namespaces)
		for i := range 2 {
			for _, name := range names {
				must(t, n.Of(name).Emit(t.Context(), "n", i, strings.Repeat("x", size)))
			}
		}
		poll, post := n.claimIn(t, names, pids)
		for events := 0; events < 2*namespaces; {
			events += strings.Count(poll(), `["n",`)
		}
		post("1")
		eventually(t, "the client is disconnected again", func() bool { return n.Stats().Sockets == 0 })
	}
}

// A large event that arrives while a join is in flight is held in spite of the limit.
func TestLargeEventDuringAJoin(t *testing.T) {
	store := &gatedStore{session.NewMemory(), make(chan struct{}, 10), make(chan struct{}, 10)}
	defer close(store.goOn)
	n := start(t, Options{Sessions: store})
	joining(n.Namespace)
	w, other := n.client(t), n.client(t)
	w.write(`42100["join","r"]`)
	receive(t, store.saving)
	must(t, n.Emit(t.Context(), "n", strings.Repeat("a", 950_000)))
	must(t, n.Emit(t.Context(), "n", 3))
	received := func(w *wire) {
		t.Helper()
		for large := false; ; {
			m := w.next()
			large = large || len(m) > 900_000
			if strings.HasPrefix(m, `42["n",3`) {
				if !large {
					t.Error("the large event is missing")
				}
				return
			}
		}
	}
	received(other) // so the gate holds them
	store.goOn <- struct{}{}
	received(w)
}

// Events published during the replays of several namespaces fit in the send queue when the replays
// end, and leave space for later events.
func TestGatesOfOneConnectionOpen(t *testing.T) {
	for _, c := range []struct{ missed, live, size int }{{20, 40, 2 << 10}, {120, 300, 50}} {
		t.Run(fmt.Sprint(c.size), func(t *testing.T) { gatesOpen(t, 4, c.missed, c.live, c.size) })
	}
	t.Run("one", func(t *testing.T) { gatesOpen(t, 1, 200, 560, 50) })
}

func gatesOpen(t *testing.T, namespaces, missed, live, size int) {
	const queue = 64 << 10
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: queue}})
	names, pids := n.cutIn(t, namespaces)
	emit := func(from, to int) {
		for i := from; i < to; i++ {
			for _, name := range names {
				must(t, n.Of(name).Emit(t.Context(), "n", i, strings.Repeat("x", size)))
			}
		}
	}
	emit(0, missed)
	poll, _ := n.claimIn(t, names, pids)
	eventually(t, "all are being recovered", func() bool { return n.Stats().Sockets == namespaces })
	emit(missed, live) // while it reads nothing
	head, err := n.adapter.Head(t.Context())
	must(t, err)
	n.awaitFeed(t.Context(), head.At) // otherwise events arrive after a gate has opened
	next := make([]int, namespaces)
	for received := 0; received < namespaces*live; {
		eventually(t, "at most three quarters of its queue are used", func() bool { // once the last response is written
			return n.Stats().Engine.QueuedBytes <= queue/4*3
		})
		for _, packet := range strings.Split(poll(), "\x1e") {
			var of, number int
			if _, err := fmt.Sscanf(packet, `42/%d,["n",%d,`, &of, &number); err != nil {
				continue
			}
			if number != next[of] {
				t.Fatalf("namespace %d: got event %d, want %d", of, number, next[of])
			}
			next[of]++
			received++
		}
	}
}

// Queries and local events are held during a replay like stored events, in any number of namespaces of
// the connection, because they are not read again.
func TestQueryDuringAReplay(t *testing.T) {
	const namespaces = 8
	n := start(t, Options{})
	recovered := make(chan *Socket, 1)
	n.Of("/0").OnConnect(func(s *Socket) {
		if s.Recovered() {
			recovered <- s
		}
	})
	names, pids := n.cutIn(t, namespaces)
	for i := range 10 {
		must(t, n.Of(names[0]).Emit(t.Context(), "n", i, strings.Repeat("x", 20<<10)))
	}
	poll, post := n.claimIn(t, names, pids)
	eventually(t, "all are being recovered", func() bool { return n.Stats().Sockets == namespaces })
	s := receive(t, recovered)
	answered := make(chan error, 1)
	go func() {
		_, err := s.EmitWithAck(t.Context(), "query", strings.Repeat("q", 60<<10))
		answered <- err
	}()
	eventually(t, "it is held", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.gate.held) == 1 })
	must(t, s.Self().Local().Emit(t.Context(), "local"))
	for seen := 0; seen < 2; {
		for _, p := range strings.Split(poll(), "\x1e") {
			if strings.Contains(p, `["local"`) {
				seen++
			}
			if rest, ok := strings.CutPrefix(p, "42/0,"); ok && strings.Contains(p, `["query"`) {
				id, _, _ := strings.Cut(rest, "[")
				post("43/0," + id + "[1]")
				seen++
			}
		}
	}
	must(t, receive(t, answered))
}

// The gates of a connection open one after another: none while another socket is filling the queue.
func TestGateWaitsForItsTurn(t *testing.T) {
	n := start(t, Options{})
	w := n.client(t)
	w.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Stats().Sockets == 0 })
	back := n.dial(t)
	var c *client
	eventually(t, "it is served", func() bool {
		n.Server.mu.Lock()
		defer n.Server.mu.Unlock()
		for _, c = range n.clients {
		}
		return c != nil
	})
	c.filling.Lock() // as another socket of the connection does
	back.connect("/", fmt.Sprintf(`{"pid":%q}`, w.pid))
	must(t, n.Emit(t.Context(), "n", 1))
	s := n.Socket(back.sid)
	eventually(t, "the event is held", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.gate.held) == 1 })
	c.filling.Unlock()
	back.want(numbered(1))
}
