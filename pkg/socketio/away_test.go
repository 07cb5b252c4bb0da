package socketio

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// An absent is a client whose rooms are changed by commands, also while it is disconnected,
// with the events that it should receive.
type absent struct {
	t       *testing.T
	random  *rand.Rand
	node    *testNode
	wire    *wire
	in      map[string]bool
	awaited []string // published, and not received yet
	events  int
}

var awayRooms = []string{"a", "b", "c", "d", "e"}

func (a *absent) room() string { return awayRooms[a.random.IntN(len(awayRooms))] }

// step publishes an event, or a command to join or leave a room, to the client's own room,
// to everyone or to a room.
func (a *absent) step() {
	ctx, room := a.t.Context(), a.room()
	target, reached, name := a.node.ToSocket(a.wire.sid), true, "itself"
	switch to := a.room(); a.random.IntN(3) {
	case 0:
		target, reached, name = a.node.To(to), a.in[to], to
	case 1:
		target, name = a.node.Everyone(), "everyone"
	}
	switch a.random.IntN(4) {
	case 0:
		a.t.Log(name, "joins", room)
		must(a.t, target.SocketsJoin(ctx, room))
		a.in[room] = a.in[room] || reached
	case 1:
		a.t.Log(name, "leaves", room)
		must(a.t, target.SocketsLeave(ctx, room))
		a.in[room] = a.in[room] && !reached
	default:
		also := a.room()
		a.events++
		a.t.Log("event", a.events, "to", room, also)
		must(a.t, a.node.To(room, also).Emit(ctx, "n", a.events))
		if a.in[room] || a.in[also] {
			a.awaited = append(a.awaited, numbered(a.events))
		}
	}
}

// receive takes the next n events.
func (a *absent) receive(n int) {
	a.t.Helper()
	for range n {
		got := a.wire.event()
		i := slices.Index(a.awaited, got)
		if i < 0 {
			a.t.Fatalf("got %s, which is not among %v", got, a.awaited)
		}
		a.awaited = slices.Delete(a.awaited, i, i+1)
	}
}

// A client that commands join to rooms and remove from them, while it is connected and
// while it is disconnected, receives the events of its rooms once, after any number of cuts
// and in any replay.
func TestCommandsWhileAway(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		for seed := range uint64(80) {
			page := replayPage
			if seed%2 == 1 {
				page = 20 // two events fit, and no command
			}
			t.Run(fmt.Sprint(partitions, " partitions, pages of ", page, ", seed ", seed/2), func(t *testing.T) {
				c := newCluster(adapter.MemoryOptions{Partitions: partitions})
				a := absent{t: t, random: rand.New(rand.NewPCG(seed/2, 0)), in: make(map[string]bool), node: c.node(t, "a", Options{})}
				a.node.replays.page = page
				joining(a.node.Namespace)
				a.wire = a.node.client(t)
				for range 2 {
					room := a.room()
					a.wire.call(`["join","` + room + `"]`)
					a.in[room] = true
				}
				for range 3 {
					for range a.random.IntN(6) {
						a.step()
					}
					if n := len(a.awaited); n > 0 {
						a.receive(a.random.IntN(n + 1))
					}
					t.Log("cut; not received:", a.awaited)
					a.wire.cut()
					eventually(t, "it has ended", func() bool { return a.node.Len() == 0 })
					for range a.random.IntN(12) {
						a.step()
					}
					t.Log("back; not received:", a.awaited)
					was := a.wire
					if a.wire = a.node.back(t, was); a.wire.sid != was.sid {
						if partitions > 1 && a.node.Stats().Recoveries[refusedJoin] == 1 {
							return // it was cut in the middle of a command's late events
						}
						t.Fatalf("refused: %v", a.node.Stats().Recoveries)
					}
				}
				a.receive(len(a.awaited))
				must(t, a.node.Emit(t.Context(), "end"))
				a.wire.want(`["end"]`)
				for _, room := range awayRooms {
					if a.node.Socket(a.wire.sid).InRoom(room) != a.in[room] {
						t.Errorf("in room %s: %v", room, !a.in[room])
					}
				}
			})
		}
	}
}

// Commands that were published after each other are executed in this order by a replay,
// also if they have positions of the same millisecond in different partitions.
func TestCommandsOfOneMillisecond(t *testing.T) {
	c := newSlowCluster(t)
	n, _ := c.node(t, "a", Options{})
	group, room := c.room(0, 0), c.room(2, 0)
	a := n.member(t, group)
	a.cut()
	eventually(t, "it has ended", func() bool { return n.Len() == 0 })
	var want []string
	for i := range 5 {
		must(t, n.To(group).Emit(t.Context(), "n", i))
		want = append(want, numbered(i))
	}
	must(t, n.To(group).SocketsJoin(t.Context(), room))
	must(t, n.SocketsLeave(t.Context(), room))
	must(t, n.To(room).Emit(t.Context(), "n", 5))
	b := n.back(t, a)
	b.want(want...)
	b.quiet()
	if b.sid != a.sid || n.Socket(b.sid).InRoom(room) {
		t.Errorf("recovered: %v; still in the room: %v", b.sid == a.sid, n.Socket(b.sid).InRoom(room))
	}
}

// A room that a command has joined stays, and its events come once, although the room to
// which the command was addressed is not kept, so that no replay reads the command.
func TestRoomOfACommandThatIsNotRead(t *testing.T) {
	for _, left := range []bool{false, true} {
		t.Run(fmt.Sprint("left by command: ", left), func(t *testing.T) {
			c := newSlowCluster(t)
			n, _ := c.node(t, "a", Options{})
			group, room := c.room(0, 0), c.room(2, 0)
			keepRooms(n.Namespace, func(r string) bool { return r != group })
			a := n.member(t, group)
			must(t, n.Emit(t.Context(), "n", 0))
			a.want(numbered(0))
			must(t, n.To(group).SocketsJoin(t.Context(), room))
			a.joinedByCommand(n, room)
			a.cut()
			eventually(t, "it has ended", func() bool { return n.Len() == 0 })
			for i := range 3 {
				must(t, n.To(room).Emit(t.Context(), "n", i+1))
			}
			if left {
				must(t, n.SocketsLeave(t.Context(), room))
				must(t, n.To(room).Emit(t.Context(), "n", 4))
			}
			b := n.back(t, a)
			b.want(numbered(1), numbered(2), numbered(3))
			b.cut()
			eventually(t, "it has ended", func() bool { return n.Len() == 0 })
			d := n.back(t, b)
			d.quiet()
			if d.sid != a.sid || n.Socket(d.sid).InRoom(room) == left {
				t.Errorf("recovered: %v (%v); in the room: %v", d.sid == a.sid, n.Stats().Recoveries, n.Socket(d.sid).InRoom(room))
			}
		})
	}
}

// nextMillisecond returns once positions are of a later millisecond.
func nextMillisecond() {
	for now := time.Now().UnixMilli(); time.Now().UnixMilli() == now; {
		runtime.Gosched()
	}
}

// A client that is cut in the middle of several late events of a command is not recovered,
// also if further events came to the room before the command, because the clocks of the
// partitions were not read at one instant.
func TestACutAmidLateEventsWhereTheClocksAreReadApart(t *testing.T) {
	c := newSlowCluster(t)
	n1, n2, sender, slow := c.two(t)
	group, room, own, other := c.room(0, 0), c.room(2, 0), c.room(2, 1), c.room(1, 0)
	a := n2.member(t, group, own, other)
	slow.hold(0, 1)
	sender.readAmid(t, func() {
		must(t, n1.To(room).Emit(t.Context(), "n", 0))
		must(t, n1.To(room).Emit(t.Context(), "n", 1))
		must(t, n1.To(own).Emit(t.Context(), "own"))
		a.want(`["own"]`)
		slow.hold(2)
		nextMillisecond()
		must(t, n1.To(room).Emit(t.Context(), "n", 2))
		nextMillisecond()
		must(t, n1.To(other).Emit(t.Context(), "n", 3))
	}, 1)
	must(t, n1.To(group).SocketsJoin(t.Context(), room))
	sender.setHead(nil)
	slow.release(0)
	eventually(t, "joining", func() bool { return n2.Socket(a.sid).InRoom(room) })
	slow.release(2)
	a.want(numbered(0))
	a.next() // lost in flight
	a.cut()
	if b := n1.back(t, a); b.sid == a.sid || n1.Stats().Recoveries[refusedJoin] != 1 {
		t.Errorf("recovered: %v (%v)", b.sid == a.sid, n1.Stats().Recoveries)
	}
}

// Late events of a command have the offset from before the command, except for the last one.
// If the last one does not come, because a leave precedes it, the client's offset does not say
// what it has received: it gets these events again, or is not recovered.
func TestLateEventsBeforeALeave(t *testing.T) {
	c := newSlowCluster(t)
	n1, n2, _, slow := c.two(t)
	group, room, own := c.room(0, 0), c.room(1, 0), c.room(1, 1)
	a := n2.member(t, group, own)
	slow.hold(0)
	must(t, n1.To(group).SocketsJoin(t.Context(), room))
	must(t, n1.To(room).Emit(t.Context(), "n", 1))
	must(t, n1.To(room).SocketsLeave(t.Context(), room))
	must(t, n1.To(own).Emit(t.Context(), "own"))
	a.want(`["own"]`)
	slow.release(0)
	if m := a.next(); !strings.HasPrefix(m, `42["n",1,`) { // it does not reach the client's handlers
		t.Fatalf("got %q", m)
	}
	must(t, n2.ToSocket(a.sid).SocketsLeave(t.Context(), "x")) // both have been executed
	eventually(t, "the client has left", func() bool { return !n2.Socket(a.sid).InRoom(room) })
	must(t, n2.Socket(a.sid).SetData(t.Context(), 1))
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n2.Len() == 0 })
	b := n1.back(t, a)
	if n1.Stats().Recoveries[refusedJoin] == 0 {
		b.want(numbered(1))
	}
}

// A command to a room that another command has just joined gives a client the events of its
// rooms, although its node has reached it before the other one: if the client is cut
// before, during or after it, and if it is not.
func TestACommandToARoomThatIsJoinedLate(t *testing.T) {
	for _, cut := range []string{"before", "amid it", "behind the events", "never"} {
		t.Run("cut "+cut, func(t *testing.T) {
			c := newSlowCluster(t)
			store := newStoring(c.sessions)
			c.sessions = store
			n1, n2, _, slow := c.two(t)
			group, room1, own1, room2, own2 := c.room(0, 0), c.room(1, 0), c.room(1, 1), c.room(2, 0), c.room(2, 1)
			a := n2.member(t, group, own1, own2)
			slow.hold(0)
			must(t, n1.To(group).SocketsJoin(t.Context(), room1))
			must(t, n1.To(room1).Emit(t.Context(), "n", 1))
			must(t, n1.To(room1).SocketsJoin(t.Context(), room2))
			must(t, n1.To(room2).Emit(t.Context(), "n", 2))
			must(t, n1.To(own1).Emit(t.Context(), "own", 1))
			a.want(`["own",1]`)
			must(t, n1.To(own2).Emit(t.Context(), "own", 2))
			a.want(`["own",2]`)
			switch cut {
			case "amid it": // the other one has been executed, and the events wait for that to be stored
				store.armed.Store(true)
				slow.release(0)
				<-store.stored
			case "behind the events", "never":
				slow.release(0)
				a.want(numbered(1), numbered(2))
			}
			if cut != "never" {
				a.cut()
				eventually(t, "the connection has ended", func() bool { return n2.Stats().Engine.WebSocket == 0 })
				if cut == "amid it" {
					close(store.release)
				}
				eventually(t, "the client is disconnected", func() bool { return n2.Len() == 0 })
				a = n1.back(t, a)
			}
			if cut == "before" || cut == "amid it" {
				a.want(numbered(1), numbered(2))
			}
			a.quiet()
			if n := n1.Stats().Recoveries[refusedJoin]; n != 0 {
				t.Error("not recovered")
			}
			slow.release(0)
		})
	}
}

// A copy of an event that the client has received does not come again, also if the client
// may no longer be in the room of the received copy.
func TestCopyOfAnEventInARoomThatIsNotKept(t *testing.T) {
	c := newSlowCluster(t)
	n1, n2, _, slow := c.two(t)
	first, second := c.room(1, 0), c.room(3, 0)
	keepRooms(n1.Namespace, func(room string) bool { return room != first })
	a := n2.member(t, first, second)
	slow.hold(3)
	must(t, n1.To(first, second).Emit(t.Context(), "n", 1))
	a.want(numbered(1))
	a.cut()
	must(t, n1.To(first).Emit(t.Context(), "n", 2))
	must(t, n1.To(second).Emit(t.Context(), "n", 3))
	b := n1.back(t, a)
	b.want(numbered(3))
	b.quiet()
	if b.sid != a.sid || n1.Socket(b.sid).InRoom(first) {
		t.Errorf("recovered: %v; still in the room: %v", b.sid == a.sid, n1.Socket(b.sid).InRoom(first))
	}
	slow.release(3)
}

// A leave that is older than a stay does not make the stay count earlier.
func TestLeaveBeforeAJoinInAReplay(t *testing.T) {
	c := newSlowCluster(t)
	n, _ := c.node(t, "a", Options{})
	group, room := c.room(2, 0), c.room(1, 0)
	a := n.member(t, group)
	must(t, n.ToSocket(a.sid).Emit(t.Context(), "n", 0))
	a.want(numbered(0))
	offset := a.offset
	must(t, n.SocketsLeave(t.Context(), room))
	must(t, n.Emit(t.Context(), "n", 1))
	nextMillisecond()
	must(t, n.To(group).Emit(t.Context(), "n", 2))
	nextMillisecond()
	must(t, n.To(group).SocketsJoin(t.Context(), room))
	a.joinedByCommand(n, room)
	a.cut()
	a.offset = offset
	b := n.back(t, a)
	b.want(numbered(1))
	b.cut()
	d := n.back(t, b)
	d.want(numbered(2))
	d.quiet()
	if d.sid != a.sid {
		t.Errorf("not recovered: %v", n.Stats().Recoveries)
	}
}

// joinedByCommand waits until a command has put the client into a room, and that is stored.
func (w *wire) joinedByCommand(n *testNode, room string) {
	w.t.Helper()
	eventually(w.t, "joined and stored", func() bool {
		s := n.Socket(w.sid)
		s.mu.Lock()
		defer s.mu.Unlock()
		st := s.rooms.current(room)
		return st != nil && !st.pending && st.commanded && s.gate.shut == 0
	})
}

// Events published after SocketsJoin has returned reach a client that has meanwhile joined
// the room by itself, or by another command, while its node had not received the first one.
func TestAJoinOvertakenByAnotherJoin(t *testing.T) {
	for _, by := range []string{"itself", "a command"} {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprintf("joined by %s, cut %v", by, cut), func(t *testing.T) {
				c := newSlowCluster(t)
				n1, n2, _, slow := c.two(t)
				group, other, room := c.room(0, 0), c.room(1, 0), c.room(2, 0)
				a := n2.member(t, group, other)
				must(t, n1.ToSocket(a.sid).Emit(t.Context(), "n", 0))
				a.want(numbered(0))
				slow.hold(0, 2)
				must(t, n1.To(group).SocketsJoin(t.Context(), room))
				must(t, n1.To(room).Emit(t.Context(), "n", 1))
				if by == "itself" {
					a.call(`["join","` + room + `"]`)
				} else {
					slow.release(2)
					must(t, n1.To(other).SocketsJoin(t.Context(), room))
					a.joinedByCommand(n2, room)
				}
				if cut {
					a.cut()
					a = n1.back(t, a)
				}
				slow.release(0, 2)
				a.want(numbered(1))
				a.quiet()
				if a.cut(); n1.back(t, a).sid != a.sid {
					t.Errorf("not recovered: %v", n1.Stats().Recoveries)
				}
			})
		}
	}
}

// unsubscribing records the rooms that its server unsubscribes.
type unsubscribing struct {
	adapter.Adapter
	mu    sync.Mutex
	rooms []rooms.Room
}

func (a *unsubscribing) Unsubscribe(list ...rooms.Room) {
	a.mu.Lock()
	a.rooms = append(a.rooms, list...)
	a.mu.Unlock()
	a.Adapter.Unsubscribe(list...)
}

func (a *unsubscribing) has(r rooms.Room) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.rooms, r)
}

// A socket that ends while a command's join waits for its turn does not unsubscribe rooms
// that it has not subscribed, because other sockets may use them.
func TestASocketThatEndsAmidAJoinUnsubscribesOnlyItsOwnRooms(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	inner, err := c.memory.Node("a")
	must(t, err)
	t.Cleanup(func() { _ = inner.Close() })
	a := &unsubscribing{Adapter: inner}
	n := start(t, Options{Adapter: a, Sessions: c.sessions})
	joining(n.Namespace)
	w, other := n.client(t), n.client(t)
	other.call(`["join","room"]`)
	w.call(`["join","own"]`)
	s := n.Socket(w.sid)
	done, err := s.change(t.Context()) // the join waits
	must(t, err)
	must(t, n.ToSocket(w.sid).SocketsJoin(t.Context(), "room"))
	eventually(t, "joining", func() bool { return s.InRoom("room") })
	s.unplace()
	if r := rooms.InNamed("/", "room"); a.has(r) {
		t.Error("unsubscribed a room that it had not subscribed")
	}
	if r := rooms.InNamed("/", "own"); !a.has(r) {
		t.Error("its own room stays subscribed")
	}
	done()
	must(t, n.To("room").Emit(t.Context(), "n", 1))
	other.want(numbered(1))
}

// slowSaves is a store that stores nothing until it is released.
type slowSaves struct {
	session.Store
	begun, release chan struct{}
}

func (s *slowSaves) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	s.begun <- struct{}{}
	<-s.release
	return s.Store.Save(ctx, v, ttl)
}

// Nothing is delivered behind a command that joins a room in which the socket already is,
// before the session contains that: an offset would hide the command from a recovery.
func TestNothingPassesACommandThatIsNotStored(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	a, err := c.memory.Node("a")
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	store := &slowSaves{c.sessions, make(chan struct{}, 10), make(chan struct{})}
	n := start(t, Options{Adapter: a, Sessions: store})
	n.Use(func(_ context.Context, r *ConnectRequest) error { return r.Join("room") })
	w := n.client(t)
	must(t, n.SocketsJoin(t.Context(), "room"))
	must(t, n.Emit(t.Context(), "n", 1))
	<-store.begun
	s := n.Socket(w.sid)
	eventually(t, "the event is held", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.gate.held) == 1
	})
	close(store.release)
	w.want(numbered(1))
}

// A socket may leave a room before a command that joined it earlier has its turn.
func TestLeavingARoomThatACommandJoinedEarlier(t *testing.T) {
	c := newSlowCluster(t)
	n1, n2, _, slow := c.two(t)
	room := c.room(2, 0)
	w := n2.client(t)
	slow.hold(0, 1, 2, 3)
	must(t, n1.SocketsJoin(t.Context(), room))
	w.call(`["join","` + room + `"]`)
	s := n2.Socket(w.sid)
	done, err := s.change(t.Context()) // the command waits
	must(t, err)
	slow.release(0, 1, 2, 3)
	eventually(t, "the command has come", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.gate.shut > 0
	})
	s.mu.Lock()
	left := s.leave([]string{room}, s.newestJoin)
	s.unlistLeft(left)
	s.mu.Unlock()
	s.endLeave(leaving{names: left})
	done()
	must(t, n1.ToSocket(w.sid).Emit(t.Context(), "n", 1))
	w.want(numbered(1))
}

// Commands may join a client to one room and remove it any number of times while it is
// disconnected: two passes determine the position from which the room must be read.
func TestManyCommandsOfOneRoomWhileAway(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			n := newCluster(adapter.MemoryOptions{Partitions: partitions}).node(t, "a", Options{})
			w := n.client(t)
			w.cut()
			eventually(t, "it has ended", func() bool { return n.Len() == 0 })
			const pairs = 50
			var want []string
			for i := range pairs {
				must(t, n.ToSocket(w.sid).SocketsJoin(t.Context(), "r"))
				must(t, n.To("r").Emit(t.Context(), "n", i))
				must(t, n.ToSocket(w.sid).SocketsLeave(t.Context(), "r"))
				must(t, n.To("r").Emit(t.Context(), "n", -1))
				want = append(want, numbered(i))
			}
			back := n.back(t, w)
			if back.sid != w.sid {
				t.Fatalf("refused: %v", n.Stats().Recoveries)
			}
			back.want(want...)
		})
	}
}

// A fetching adapter counts the calls of Fetch.
type fetching struct {
	adapter.Adapter
	calls atomic.Int32
}

func (a *fetching) Fetch(ctx context.Context, history adapter.Cursor, places []adapter.Place) ([]adapter.Event, error) {
	a.calls.Add(1)
	return a.Adapter.Fetch(ctx, history, places)
}

// Commands that a replay does not hold are read together: after the death of a node a call for
// each would take longer than a recovery may.
func TestCommandsThatAreNotHeldAreReadTogether(t *testing.T) {
	inner, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("a")
	must(t, err)
	t.Cleanup(func() { _ = inner.Close() })
	a := &fetching{Adapter: inner}
	n := start(t, Options{Adapter: a})
	n.replays.page = 1 // nothing is held
	w := n.client(t)
	w.cut()
	eventually(t, "it has ended", func() bool { return n.Len() == 0 })
	const rooms = 400
	for i := range rooms {
		must(t, n.ToSocket(w.sid).SocketsJoin(t.Context(), fmt.Sprint(i)))
	}
	if back := n.back(t, w); back.sid != w.sid || len(n.Socket(w.sid).Rooms()) != rooms {
		t.Fatalf("refused, or in other rooms: %v", n.Stats().Recoveries)
	}
	if calls := a.calls.Load(); calls != 4 { // two passes of 400 commands, 256 in a call
		t.Errorf("%d calls of Fetch, want 4", calls)
	}
}

// While a client is disconnected, each command is addressed to the room that the previous
// one has joined.
func TestCommandsFromRoomToRoomWhileAway(t *testing.T) {
	c := newCluster(adapter.MemoryOptions{})
	n := c.node(t, "a", Options{})
	joining(n.Namespace)
	a := n.client(t)
	a.call(`["join","r0"]`)
	a.cut()
	const rounds = 24
	for i := range rounds {
		from, to := fmt.Sprint("r", i), fmt.Sprint("r", i+1)
		must(t, n.To(from).SocketsJoin(t.Context(), to))
		must(t, n.To(to).SocketsLeave(t.Context(), from))
		must(t, n.To(to).Emit(t.Context(), "n", i))
	}
	b := n.back(t, a)
	for i := range rounds {
		b.want(numbered(i))
	}
	b.inRooms(n, fmt.Sprint("r", rounds))
}

// A replay does not know commands to rooms that commands have joined when it first reaches
// later events. It refuses nothing before it knows them.
func TestRefusalDependsOnCommandsNotYetRead(t *testing.T) {
	disconnect := func(b Broadcast) func(*testing.T) {
		return func(t *testing.T) { must(t, b.DisconnectSockets(t.Context(), false)) }
	}
	join := func(b Broadcast, room string) func(*testing.T) {
		return func(t *testing.T) { must(t, b.SocketsJoin(t.Context(), room)) }
	}
	leave := func(b Broadcast, room string) func(*testing.T) {
		return func(t *testing.T) { must(t, b.SocketsLeave(t.Context(), room)) }
	}
	for name, tt := range map[string]struct {
		commands func(n *testNode) []func(*testing.T)
		refused  string
	}{
		"excepted": {func(n *testNode) []func(*testing.T) {
			return []func(*testing.T){join(n.To("a"), "b"), join(n.To("b"), "d"), disconnect(n.To("a").Except("d"))}
		}, ""},
		"left before": {func(n *testNode) []func(*testing.T) {
			return []func(*testing.T){join(n.To("a"), "b"), leave(n.To("b"), "a"), disconnect(n.To("a"))}
		}, ""},
		"events": {func(n *testNode) []func(*testing.T) {
			return []func(*testing.T){join(n.To("a"), "b"), leave(n.To("b"), "a"), func(t *testing.T) {
				for i := range 10 {
					must(t, n.To("a").Emit(t.Context(), "n", i))
				}
			}}
		}, ""},
		"removed": {func(n *testNode) []func(*testing.T) {
			return []func(*testing.T){join(n.To("a"), "b"), join(n.To("b"), "d"), disconnect(n.To("d"))}
		}, refusedRemoved},
		"removed from the first room": {func(n *testNode) []func(*testing.T) {
			return []func(*testing.T){join(n.To("a"), "b"), join(n.To("b"), "d"), disconnect(n.To("a")), leave(n.To("d"), "a")}
		}, refusedRemoved},
		"too many events": {func(n *testNode) []func(*testing.T) {
			return []func(*testing.T){join(n.To("a"), "b"), join(n.To("b"), "d"), func(t *testing.T) {
				for i := range 10 {
					must(t, n.To("d").Emit(t.Context(), "n", i))
				}
			}}
		}, refusedLimit},
	} {
		for _, partitions := range []int{1, 4} {
			t.Run(fmt.Sprint(name, ", ", partitions, " partitions"), func(t *testing.T) {
				n := newCluster(adapter.MemoryOptions{Partitions: partitions}).node(t, "a", Options{ReplayLimit: 5})
				joining(n.Namespace)
				w := n.client(t)
				w.call(`["join","a"]`)
				w.cut()
				eventually(t, "it has ended", func() bool { return n.Len() == 0 })
				for _, command := range tt.commands(n) {
					command(t)
				}
				b := n.back(t, w)
				if refused := n.Stats().Recoveries; (b.sid == w.sid) != (tt.refused == "") || tt.refused != "" && refused[tt.refused] != 1 {
					t.Fatalf("recovered: %v, want %q: %v", b.sid == w.sid, tt.refused, refused)
				}
				if b.sid == w.sid {
					must(t, n.Emit(t.Context(), "end"))
					b.want(`["end"]`)
				}
			})
		}
	}
}
