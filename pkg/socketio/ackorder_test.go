package socketio

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

// A delayed adapter delivers events only while it is open.
type delayed struct {
	adapter.Adapter
	open chan chan struct{} // holds a channel that is closed when it is open
}

func newDelayed(a adapter.Adapter) *delayed {
	d := &delayed{a, make(chan chan struct{}, 1)}
	open := make(chan struct{})
	close(open)
	d.open <- open
	return d
}

func (d *delayed) Next(ctx context.Context) (adapter.Event, error) {
	ev, err := d.Adapter.Next(ctx)
	open := <-d.open
	d.open <- open
	select {
	case <-open:
	case <-ctx.Done():
		return adapter.Event{}, context.Cause(ctx)
	}
	return ev, err
}

// shut delays all events until the returned function is called.
func (d *delayed) shut() (release func()) {
	<-d.open
	open := make(chan struct{})
	d.open <- open
	return func() { close(open) }
}

// startDelayed runs a server on a delayed adapter.
func startDelayed(t *testing.T, o Options) (*testNode, *delayed) {
	t.Helper()
	a, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("node")
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	d := newDelayed(a)
	o.Adapter = d
	return start(t, o), d
}

// ask sends an event that requests an ack, and returns the beginning of the ack.
func (w *wire) ask(array string) (ack string) {
	w.acks++
	ack = fmt.Sprintf("43%s%d", w.prefix(), w.acks)
	w.write(fmt.Sprintf("42%s%d%s", w.prefix(), w.acks, array))
	return ack
}

func (w *wire) wantAck(ack string) {
	w.t.Helper()
	if m := w.next(); !strings.HasPrefix(m, ack) {
		w.t.Fatalf("got %q, want ack %q", m, ack)
	}
}

// If a handler publishes an event that its own client receives, by any method, the client
// gets it before the handler's ack.
func TestAckFollowsEventsOfItsHandler(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	background := context.Background()
	ways := map[string]func(ctx context.Context, s *Socket) error{
		"socket":                  func(ctx context.Context, s *Socket) error { return s.Emit(ctx, "state") },
		"socket, another context": func(_ context.Context, s *Socket) error { return s.Emit(background, "state") },
		"self":                    func(_ context.Context, s *Socket) error { return s.Self().Compress(false).Emit(background, "state") },
		"self, volatile":          func(_ context.Context, s *Socket) error { return s.Self().Volatile().Emit(background, "state") },
		"everyone":                func(ctx context.Context, _ *Socket) error { return n.Emit(ctx, "state") },
		"room":                    func(ctx context.Context, _ *Socket) error { return n.To("r").Emit(ctx, "state") },
		"socket id":               func(ctx context.Context, s *Socket) error { return n.ToSocket(s.ID()).Emit(ctx, "state") },
		"local":                   func(ctx context.Context, _ *Socket) error { return n.Local().Emit(ctx, "state") },
		"with a deadline": func(ctx context.Context, _ *Socket) error {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			return n.Emit(ctx, "state")
		},
		"the context of the socket": func(_ context.Context, s *Socket) error { return n.Emit(s.Context(), "state") },
	}
	for way, emit := range ways {
		n.On(way, func(ctx context.Context, e *Event) error {
			if err := emit(ctx, e.Socket()); err != nil {
				return err
			}
			return e.Ack()
		})
	}
	w := n.client(t)
	w.call(`["join","r"]`)
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			w.t = t
			for range 50 {
				ack := w.ask(fmt.Sprintf("[%q]", way))
				w.want(`["state"]`)
				w.wantAck(ack)
			}
		})
	}
}

// A joinLater adapter subscribes to the room "later" after the first event to it.
type joinLater struct {
	adapter.Adapter
	adapter.ProgressReporter
	joins, published chan struct{}
}

func (a *joinLater) Subscribe(ctx context.Context, list ...rooms.Room) (adapter.Cursor, error) {
	if slices.ContainsFunc(list, func(r rooms.Room) bool { return r.Name == "later" }) {
		close(a.joins)
		<-a.published
	}
	return a.Adapter.Subscribe(ctx, list...)
}

// An event that a handler publishes to a room while another caller joins the client to it
// precedes the join: it does not hold back the ack, also if no other event follows.
func TestAckDoesNotWaitForEventsBeforeAJoin(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			a, err := adapter.NewMemory(adapter.MemoryOptions{Partitions: partitions}).Node("node")
			must(t, err)
			t.Cleanup(func() { _ = a.Close() })
			later := &joinLater{a, a.(adapter.ProgressReporter), make(chan struct{}), make(chan struct{})}
			n := start(t, Options{Adapter: later, AckTimeout: time.Hour})
			n.On("go", func(ctx context.Context, e *Event) error {
				joined := make(chan error, 1)
				go func() { joined <- e.Socket().Join(context.WithoutCancel(ctx), "later") }()
				<-later.joins
				if err := n.To("later").Emit(ctx, "x"); err != nil {
					return err
				}
				if err := e.Ack(); err != nil { // the ack is held, because the join in flight may be ordered before x
					return err
				}
				close(later.published)
				return <-joined
			})
			w := n.client(t)
			w.call(`["go"]`)
		})
	}
}

// Events that the handler's own client does not receive do not hold back acks, nor do
// events of other publishers.
func TestAckDoesNotWaitForOthersEvents(t *testing.T) {
	n, feed := startDelayed(t, Options{})
	n.On("others", func(ctx context.Context, e *Event) error {
		s := e.Socket()
		for _, err := range []error{
			s.Broadcast().Emit(ctx, "x"), s.To("r").Emit(ctx, "x"), n.To("not mine").Emit(ctx, "x"), n.ToSocket("nobody").Emit(ctx, "x"),
			n.Of("/elsewhere").Emit(ctx, "x"),
		} {
			if err != nil {
				return err
			}
		}
		return e.Ack()
	})
	w := n.client(t)
	release := feed.shut()
	defer release()
	must(t, n.Emit(t.Context(), "by nobody's handler"))
	w.call(`["others"]`)
}

// An ack waits until the feed has reached the event, then while the gate of its socket is
// shut, and does not hold back later events.
func TestAckWaitsForFeedAndGate(t *testing.T) {
	n, feed := startDelayed(t, Options{})
	published := make(chan struct{})
	n.On("state", func(ctx context.Context, e *Event) error {
		err := e.Socket().Emit(ctx, "state", e.Raw(0))
		if err != nil {
			return err
		}
		err = e.Ack()
		published <- struct{}{}
		return err
	})
	w := n.client(t)
	s := n.Socket(w.sid)
	release := feed.shut()
	first := w.ask(`["state",1]`)
	<-published
	second := w.ask(`["state",2]`)
	<-published
	s.mu.Lock()
	s.gate.shut++
	s.mu.Unlock()
	release()
	eventually(t, "the gate holds both", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.gate.held) == 2 })
	if o := s.order.Load(); len(o.held) != 2 {
		t.Errorf("%d acks held, want 2", len(o.held))
	}
	s.mu.Lock()
	s.openGate()
	s.mu.Unlock()
	w.want(`["state",1]`, `["state",2]`)
	w.wantAck(first)
	w.wantAck(second)
	s.mu.Lock()
	if o := s.order.Load(); len(o.held) != 0 || o.bytes != 0 {
		t.Errorf("left: %+v", o)
	}
	s.mu.Unlock()
	third := w.ask(`["state",3]`)
	<-published
	w.want(`["state",3]`)
	w.wantAck(third)
	eventually(t, "the feed keeps no ack", func() bool { n.feed.mu.Lock(); defer n.feed.mu.Unlock(); return n.feed.waits.n == 0 })
}

// A handler may leave the room that it has published to.
func TestAckAfterLeavingTheRoom(t *testing.T) {
	n := start(t, Options{AckTimeout: time.Hour})
	joining(n.Namespace)
	n.On("bye", func(ctx context.Context, e *Event) error {
		if err := n.To("r").Emit(ctx, "left"); err != nil {
			return err
		}
		if err := e.Socket().Leave(ctx, "r"); err != nil {
			return err
		}
		return e.Ack()
	})
	w := n.client(t)
	for range 50 {
		w.call(`["join","r"]`)
		ack := w.ask(`["bye"]`)
		m := w.next()
		if strings.Contains(m, `"left"`) {
			m = w.next()
		}
		if !strings.HasPrefix(m, ack) {
			t.Fatalf("got %q, want ack %q", m, ack)
		}
	}
}

// An ack is not held for longer than AckTimeout, nor beyond the bytes of the send
// queue, and then is counted.
func TestAckIsHeldForABoundedTime(t *testing.T) {
	n, feed := startDelayed(t, Options{AckTimeout: 50 * time.Millisecond})
	n.On("state", func(ctx context.Context, e *Event) error {
		if err := e.Socket().Emit(ctx, "state"); err != nil {
			return err
		}
		return e.Ack()
	})
	w := n.client(t)
	release := feed.shut()
	for range 2 {
		w.wantAck(w.ask(`["state"]`))
	}
	release()
	w.want(`["state"]`, `["state"]`)
	if late := n.Stats().AcksLate; late != 2 {
		t.Errorf("%d acks late, want 2", late)
	}
}

// While the gate holds an event, every ack behind it is held, also when those before it
// have been sent late.
func TestAcksBehindALateOneAreHeld(t *testing.T) {
	n := start(t, Options{AckTimeout: 20 * time.Millisecond})
	n.On("state", func(ctx context.Context, e *Event) error {
		if err := e.Socket().Emit(ctx, "state"); err != nil {
			return err
		}
		return e.Ack()
	})
	n.On("other", func(_ context.Context, e *Event) error { return e.Ack() })
	w := n.client(t)
	s := n.Socket(w.sid)
	s.mu.Lock()
	s.gate.shut++
	s.mu.Unlock()
	w.wantAck(w.ask(`["state"]`))
	for range 2 {
		w.wantAck(w.ask(`["other"]`))
	}
	s.mu.Lock()
	s.openGate()
	s.mu.Unlock()
	w.want(`["state"]`)
	if late := n.Stats().AcksLate; late != 3 {
		t.Errorf("%d acks late, want 3", late)
	}
}

// A handler whose acks are held waits before more are held than may be, so that none is late.
func TestHeldAcksAreBoundedInBytes(t *testing.T) {
	for _, end := range []string{"the feed continues", "the time is up", "the socket ends"} {
		t.Run(end, func(t *testing.T) {
			o := Options{AckTimeout: time.Hour}
			if end == "the time is up" {
				o.AckTimeout = 200 * time.Millisecond
			}
			o.Engine.SendQueueBytes = 1000
			n, feed := startDelayed(t, o)
			acked := make(chan error, 2)
			n.On("state", func(ctx context.Context, e *Event) error {
				if err := e.Socket().Emit(ctx, "state"); err != nil {
					return err
				}
				acked <- e.Ack(strings.Repeat("x", 600))
				return nil
			})
			w := n.client(t)
			release := sync.OnceFunc(feed.shut())
			defer release()
			first, second := w.ask(`["state"]`), w.ask(`["state"]`)
			must(t, receive(t, acked))
			eventually(t, "the second one waits", func() bool { return n.Stats().Engine.QueuedBytes > 600 })
			late := uint64(0)
			switch end {
			case "the feed continues":
				release()
				w.want(`["state"]`)
				w.wantAck(first)
				w.want(`["state"]`)
				w.wantAck(second)
			case "the time is up":
				for range 2 { // in any order
					if m := w.next(); !strings.HasPrefix(m, first) && !strings.HasPrefix(m, second) {
						t.Errorf("got %q, want an ack", m)
					}
				}
				late = 2
			case "the socket ends":
				w.cut()
				if err := receive(t, acked); !errors.Is(err, ErrDisconnected) {
					t.Errorf("Ack returned %v, want ErrDisconnected", err)
				}
				eventually(t, "nothing is counted", func() bool { return n.Stats().Engine.QueuedBytes == 0 && n.held.bytes.Load() == 0 })
			}
			if got := n.Stats().AcksLate; got != late {
				t.Errorf("%d acks late, want %d", got, late)
			}
		})
	}
}

// One ack of any size is held.
func TestALargeAckFollowsItsEvent(t *testing.T) {
	o := Options{AckTimeout: time.Hour}
	o.Engine.SendQueueBytes = 1000
	n, feed := startDelayed(t, o)
	acked := make(chan struct{})
	n.On("state", func(ctx context.Context, e *Event) error {
		defer close(acked)
		if err := e.Socket().Emit(ctx, "state"); err != nil {
			return err
		}
		return e.Ack(strings.Repeat("x", 2000))
	})
	w := n.client(t)
	release := feed.shut()
	ack := w.ask(`["state"]`)
	<-acked
	release()
	w.want(`["state"]`)
	w.wantAck(ack)
}

// A drain does not end before held acks have been sent, and the end of a socket loses no
// ack.
func TestHeldAcksAndTheEndOfTheSocket(t *testing.T) {
	ends := map[string]func(n *testNode, s *Socket){
		"drain":      func(n *testNode, s *Socket) { _ = n.Drain(context.Background(), 0) },
		"disconnect": func(n *testNode, s *Socket) { s.disconnect(false) },
		"close":      func(n *testNode, s *Socket) { s.end(ServerShutdown) },
	}
	for name, end := range ends {
		for size, bytes := range map[string]int{"small": 4, "large": 100 << 10} {
			t.Run(name+", "+size, func(t *testing.T) { testHeldAckAndEnd(t, bytes, name == "drain", end) })
		}
	}
}

func testHeldAckAndEnd(t *testing.T, size int, waits bool, end func(*testNode, *Socket)) {
	n, feed := startDelayed(t, Options{})
	acked := make(chan error, 1)
	n.On("state", func(ctx context.Context, e *Event) error {
		if err := e.Socket().Emit(ctx, "state"); err != nil {
			return err
		}
		n.spawn(func() { acked <- e.Ack(strings.Repeat("a", size)) }) // a drain waits for handlers anyway
		return nil
	})
	w := n.client(t)
	s := n.Socket(w.sid)
	order := func(holds func(*ackOrder) bool) func() bool {
		return func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			o := s.order.Load()
			return o != nil && holds(o)
		}
	}
	release := sync.OnceFunc(feed.shut())
	defer release()
	ack := w.ask(`["state"]`)
	eventually(t, "the ack is held", order(func(o *ackOrder) bool { return len(o.held) > 0 }))
	ended := make(chan struct{})
	go func() { defer close(ended); end(n, s) }()
	if waits {
		eventually(t, "the drain waits for the ack", order(func(o *ackOrder) bool { return o.emptied != nil }))
		release()
		w.want(`["state"]`)
	}
	w.wantAck(ack)
	<-ended
	must(t, receive(t, acked))
}

// A command that follows the event for which a large ack is held disconnects the socket: the client gets the
// event, the ack and the disconnect.
func TestHeldAckBeforeADisconnectByCommand(t *testing.T) {
	n, feed := startDelayed(t, Options{})
	n.On("state", func(ctx context.Context, e *Event) error {
		if err := e.Socket().Emit(ctx, "state"); err != nil {
			return err
		}
		return e.Ack(strings.Repeat("a", 20<<10))
	})
	for range 20 {
		w := n.client(t)
		release := feed.shut()
		held := n.held.bytes.Load()
		ack := w.ask(`["state"]`)
		eventually(t, "the ack is held", func() bool { return n.held.bytes.Load() > held })
		must(t, n.ToSocket(w.sid).DisconnectSockets(t.Context(), false))
		release()
		w.want(`["state"]`)
		w.wantAck(ack)
		if m := w.next(); m != "41" {
			t.Errorf("got %.20s, want the disconnect", m)
		}
	}
}

// The queue of a partition releases waits in the order of positions, for any order in which
// they were added, and keeps no memory of a burst.
func TestWaitQueue(t *testing.T) {
	var q waitQueue
	at := func(i int) adapter.Position { return adapter.Position{Ms: 1, Seq: uint64(i)} }
	const n = 5000
	for i := 0; i < n; i += 2 { // as two publishers whose receipts come in another order
		q.push(feedWait{at: at(i + 1), ack: &heldAck{bytes: i + 1}})
		q.push(feedWait{at: at(i), ack: &heldAck{bytes: i}})
	}
	next := 0
	for upTo := 99; upTo < n; upTo += 100 {
		for w, ok := q.pop(adapter.Cursor{At: at(upTo)}); ok; w, ok = q.pop(adapter.Cursor{At: at(upTo)}) {
			if w.ack.bytes != next {
				t.Fatalf("got %d, want %d", w.ack.bytes, next)
			}
			next++
		}
		if next != upTo+1 {
			t.Fatalf("released %d up to %d, want %d", next, upTo, upTo+1)
		}
	}
	if cap(q.waits) > keepWaits || q.head != 0 {
		t.Errorf("kept: capacity %d, head %d, want at most %d, 0", cap(q.waits), q.head, keepWaits)
	}
}

// A socket's acks wait for those copies of an event that are for the socket: the others may
// never reach its node. Of two such copies the second is delivered if the socket leaves the
// room of the first before that arrives.
func TestAckWaitsForItsOwnCopy(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	w := n.client(t)
	w.call(`["join","b"]`)
	s := n.Socket(w.sid)
	in := func(name string, partition uint16) adapter.Copy {
		return adapter.Copy{At: adapter.Position{Ms: 1 << 60, Partition: partition}, To: inNamed("/", []string{name})}
	}
	copies := []adapter.Copy{in("a", 1), in("b", 2), in("c", 3)}
	s.published(rooms.Target{To: inNamed("/", []string{"a", "b", "c"})}, adapter.Receipt{Copies: copies})
	s.published(rooms.Target{To: inNamed("/", []string{"a", "b"}), Except: inNamed("/", []string{"b"})}, adapter.Receipt{Copies: copies[:2]})
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := s.order.Load().published; len(got) != 1 || got[0] != copies[1].At {
		t.Errorf("waits for %+v, want %+v", got, copies[1].At)
	}
	s.rooms.enter("c")
	s.mu.Unlock()
	s.published(rooms.Target{To: inNamed("/", []string{"a", "b", "c"})}, adapter.Receipt{Copies: copies})
	s.mu.Lock()
	s.rooms.cancel("c")
	if got := s.order.Load().published; len(got) != 2 || got[1] != copies[2].At {
		t.Errorf("waits for %+v, want %+v too", got, copies[2].At)
	}
}

// An event of this node has no position, but the gate of the socket may hold it.
func TestAckFollowsLocalEventThatIsHeld(t *testing.T) {
	n := start(t, Options{AckTimeout: time.Hour})
	acked := make(chan error, 1)
	n.On("state", func(ctx context.Context, e *Event) error {
		err := e.Socket().Self().Local().Emit(ctx, "state")
		if err == nil {
			err = e.Ack()
		}
		acked <- err
		return err
	})
	w := n.client(t)
	s := n.Socket(w.sid)
	s.mu.Lock()
	s.gate.shut++
	s.mu.Unlock()
	ack := w.ask(`["state"]`)
	must(t, <-acked)
	s.mu.Lock()
	s.openGate()
	s.mu.Unlock()
	w.want(`["state"]`)
	w.wantAck(ack)
}

// A handler may leave a room that the event excepted: then its client receives the event if
// it arrives later.
func TestAckAfterLeavingAnExceptedRoom(t *testing.T) {
	for way, leave := range map[string]func(context.Context, *testNode, *Socket) error{
		"itself": func(ctx context.Context, _ *testNode, s *Socket) error { return s.Leave(ctx, "x") },
		"by command": func(ctx context.Context, n *testNode, s *Socket) error {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond) // it waits for the feed, which is held
			defer cancel()
			return n.ToSocket(s.ID()).SocketsLeave(ctx, "x")
		},
	} {
		t.Run(way, func(t *testing.T) {
			n, feed := startDelayed(t, Options{AckTimeout: time.Hour})
			joining(n.Namespace)
			acked := make(chan error, 1)
			n.On("state", func(ctx context.Context, e *Event) error {
				emit := func() error { return n.Except("x").Emit(ctx, "state") }
				err := emit()
				if err == nil {
					err = leave(ctx, n, e.Socket())
				}
				if err == nil && way == "by command" {
					err = emit() // the command comes before it
				}
				if err == nil {
					err = e.Ack()
				}
				acked <- err
				return err
			})
			w := n.client(t)
			w.call(`["join","x"]`)
			release := feed.shut()
			ack := w.ask(`["state"]`)
			must(t, <-acked)
			release()
			w.want(`["state"]`)
			w.wantAck(ack)
		})
	}
}

// An event that a handler publishes by another server of the process, which has its own
// order, does not hold the ack.
func TestAckDoesNotWaitForAnotherServersEvent(t *testing.T) {
	a, b := start(t, Options{}), start(t, Options{})
	a.On("tell", func(ctx context.Context, e *Event) error {
		if err := b.Emit(ctx, "told"); err != nil {
			return err
		}
		return e.Ack()
	})
	w, other := a.client(t), b.client(t)
	ack := w.ask(`["tell"]`)
	other.want(`["told"]`)
	w.wantAck(ack)
	if late := a.Stats().AcksLate; late != 0 {
		t.Errorf("%d acks were late, want 0", late)
	}
}

// An event that a handler publishes to a room before its socket leaves the room reaches its
// client.
func TestLeaveFollowsEventsOfItsHandler(t *testing.T) {
	for what, leave := range map[string]func(ctx context.Context, s *Socket) error{
		"Leave": func(ctx context.Context, s *Socket) error { return s.Leave(ctx, "r") },
		"KeepRooms": func(ctx context.Context, s *Socket) error {
			return s.KeepRooms(ctx, func(string) bool { return false })
		},
	} {
		t.Run(what, func(t *testing.T) {
			n, d := startDelayed(t, Options{})
			joining(n.Namespace)
			n.On("goodbye", func(ctx context.Context, e *Event) error {
				if err := n.To("r").Emit(ctx, "n", 1); err != nil {
					return err
				}
				if err := leave(ctx, e.Socket()); err != nil {
					return err
				}
				return e.Ack("ok")
			})
			a := n.client(t)
			a.call(`["join","r"]`)
			release := d.shut()
			ack := a.ask(`["goodbye"]`)
			eventually(t, "the handler waits", func() bool {
				n.feed.mu.Lock()
				defer n.feed.mu.Unlock()
				return n.feed.waits.n > 0
			})
			release()
			a.want(numbered(1))
			a.wantAck(ack)
			must(t, n.To("r").Emit(t.Context(), "n", 2))
			a.quiet()
		})
	}
}

// A Leave of a socket that has ended, as in OnDisconnecting, does not wait.
func TestLeaveOfASocketThatIsGoneDoesNotWait(t *testing.T) {
	n, d := startDelayed(t, Options{})
	n.On("emit", func(ctx context.Context, e *Event) error { return n.Emit(ctx, "n") })
	a := n.client(t)
	s := n.Socket(a.sid)
	release := d.shut()
	defer release()
	a.write(`42["emit"]`)
	eventually(t, "the event is published", func() bool {
		o := s.order.Load()
		s.mu.Lock()
		defer s.mu.Unlock()
		return o != nil && len(o.published) > 0
	})
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	left := make(chan error, 1)
	go func() { left <- s.Leave(context.Background(), "r") }()
	eventually(t, "it has returned", func() bool {
		n.feed.mu.Lock()
		defer n.feed.mu.Unlock()
		if n.feed.waits.n > 0 {
			t.Fatal("it waits for the feed")
		}
		return len(left) > 0
	})
	if err := <-left; !errors.Is(err, ErrDisconnected) {
		t.Error(err)
	}
}

// After large acks were late, because of the feed or the gate, later ones follow their events again.
func TestLargeAcksAfterLateOnes(t *testing.T) {
	n, feed := startDelayed(t, Options{AckTimeout: 200 * time.Millisecond})
	n.On("state", func(ctx context.Context, e *Event) error {
		if err := e.Socket().Emit(ctx, "state"); err != nil {
			return err
		}
		return e.Ack(strings.Repeat("x", 10<<10))
	})
	w := n.client(t)
	s := n.Socket(w.sid)
	for name, hinder := range map[string]func() (end func()){
		"feed": feed.shut,
		"gate": func() func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.gate.shut++
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.openGate()
			}
		},
	} {
		end := hinder()
		first, second := w.ask(`["state"]`), w.ask(`["state"]`)
		w.wantAck(first)
		w.wantAck(second)
		end()
		for range 2 {
			w.want(`["state"]`)
		}
		for range 3 {
			release := feed.shut()
			ack := w.ask(`["state"]`)
			eventually(t, "the ack is held", func() bool { return n.held.bytes.Load() > 0 })
			release()
			w.want(`["state"]`)
			if m := w.next(); !strings.HasPrefix(m, ack) {
				t.Fatalf("%s: got %.20q, want ack %q", name, m, ack)
			}
		}
	}
}
