package socketio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// Events published after SocketsJoin has returned reach the joined sockets, and earlier
// ones do not, also if their node receives the command after these events.
func TestSocketsJoinOnANodeThatHearsOfItLate(t *testing.T) {
	for _, recovery := range []bool{true, false} {
		t.Run(fmt.Sprint("recovery ", recovery), func(t *testing.T) {
			c := newSlowCluster(t)
			var o Options
			if !recovery {
				o.RecoveryWindow = -1
			}
			n1, _ := c.node(t, "aaaa", o)
			n2, slow := c.node(t, "bbbb", o)
			group, room := c.room(0, 0), c.room(2, 0)
			other := n2.client(t) // so that the node is subscribed to the room
			other.call(`["join","` + room + `"]`)
			a := n2.member(t, group)
			slow.hold(0)
			must(t, n1.To(room).Emit(t.Context(), "n", 0))
			must(t, n1.To(group).SocketsJoin(t.Context(), room))
			must(t, n1.To(room).Emit(t.Context(), "n", 1))
			must(t, n1.To(room).Emit(t.Context(), "n", 2))
			other.want(numbered(0), numbered(1), numbered(2)) // the node has passed them
			slow.release(0)
			a.want(numbered(1), numbered(2))
			must(t, n1.To(room).Emit(t.Context(), "n", 3))
			a.want(numbered(3))
			a.quiet()
		})
	}
}

// The same holds for a client that is recovered, although its offset covers events
// published after the command, and not the command.
func TestRecoveryOfAClientThatHasNotComeToSocketsJoin(t *testing.T) {
	c := newSlowCluster(t)
	n1, n2, _, slow := c.two(t)
	group, room, own := c.room(0, 0), c.room(2, 0), c.room(2, 1)
	a := n2.member(t, group, own)
	slow.hold(0)
	must(t, n1.To(room).Emit(t.Context(), "n", 0))
	must(t, n1.To(group).SocketsJoin(t.Context(), room))
	must(t, n1.To(room).Emit(t.Context(), "n", 1))
	must(t, n1.To(room).Emit(t.Context(), "n", 2))
	must(t, n1.To(own).Emit(t.Context(), "n", 3))
	a.want(numbered(3)) // the offset is beyond 1 and 2
	a.cut()
	must(t, n1.To(room, own).Emit(t.Context(), "n", 4))
	b := n1.recovered(t, a)
	b.want(numbered(1), numbered(2), numbered(4))
	must(t, n1.To(room).Emit(t.Context(), "n", 5))
	b.want(numbered(5))
	b.quiet()
	b.cut() // and again, from the same place and from the newest
	d := n1.back(t, b)
	d.quiet()
	slow.release(0)
}

// A client that is cut in the middle of late events of SocketsJoin is recovered if its
// received events are known, and otherwise refused.
func TestACutAmidWhatSocketsJoinGivesLate(t *testing.T) {
	for _, late := range []int{1, 2} {
		for read := range late + 1 {
			t.Run(fmt.Sprint(read, " of ", late), func(t *testing.T) {
				c := newSlowCluster(t)
				n1, n2, _, slow := c.two(t)
				group, room, own := c.room(0, 0), c.room(2, 0), c.room(2, 1)
				a := n2.member(t, group, own)
				slow.hold(0)
				must(t, n1.To(group).SocketsJoin(t.Context(), room))
				var want []string
				for i := range late {
					must(t, n1.To(room).Emit(t.Context(), "n", i))
					want = append(want, numbered(i))
				}
				must(t, n1.To(own).Emit(t.Context(), "own", 0))
				a.want(`["own",0]`)
				slow.release(0)
				for i := range late {
					if m := a.next(); i < read {
						if got := a.hear(m); got != want[i] {
							t.Fatalf("got %s, want %s", got, want[i])
						}
					}
				}
				a.cut()
				b := n1.back(t, a)
				if recovered := b.sid == a.sid; recovered != (late == 1 || read == late) {
					t.Fatalf("recovered: %v, want %v", recovered, late == 1 || read == late)
				} else if recovered {
					b.want(want[read:]...)
				}
				b.quiet()
			})
		}
	}
}

// Events published before SocketsLeave is called reach the members, also if their node
// receives the command first, and later ones do not.
func TestSocketsLeaveOnANodeThatHearsOfItEarly(t *testing.T) {
	c := newSlowCluster(t)
	n1, n2, _, slow := c.two(t)
	group, room := c.room(0, 0), c.room(2, 0)
	a := n2.member(t, group, room)
	slow.hold(2)
	must(t, n1.To(room).Emit(t.Context(), "n", 1))
	must(t, n1.To(group).SocketsLeave(t.Context(), room))
	s := n2.Socket(a.sid)
	eventually(t, "it has left", func() bool { return !s.InRoom(room) })
	must(t, n1.To(room).Emit(t.Context(), "n", 2))
	must(t, n1.To(room, group).Emit(t.Context(), "n", 3))
	must(t, n1.To(room).Emit(t.Context(), "n", 4))
	slow.release(2)
	got := []string{a.event(), a.event()} // in any order, because they are in two partitions
	slices.Sort(got)
	if want := []string{numbered(1), numbered(3)}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	a.quiet()
	eventually(t, "it is out of the index", func() bool { return n2.index.Len(rooms.InNamed("/", room)) == 0 })
	a.call(`["join","` + room + `"]`)
	must(t, n1.To(room).Emit(t.Context(), "n", 5))
	a.want(numbered(5))
	a.quiet()
}

// The same holds for a client that was disconnected.
func TestRecoveryAfterSocketsLeave(t *testing.T) {
	c := newSlowCluster(t)
	n, _ := c.node(t, "aaaa", Options{})
	for partition := range uint16(slowPartitions) {
		group, room := c.room(1, 0), c.room(partition, 1)
		a := n.member(t, group, room)
		must(t, n.To(room).Emit(t.Context(), "n", 1))
		a.want(numbered(1))
		a.cut()
		eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
		must(t, n.To(room).Emit(t.Context(), "n", 2))
		must(t, n.To(group).SocketsLeave(t.Context(), room))
		must(t, n.To(room).Emit(t.Context(), "n", 3))
		b := n.back(t, a)
		b.want(numbered(2))
		b.quiet()
		b.cut()
		eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	}
}

// A recovery may have given a client events that its node has not reached yet. The client
// does not get them again, even if a command gives it late events meanwhile.
func TestSocketsJoinRightAfterARecovery(t *testing.T) {
	c := newSlowCluster(t)
	n1, n2, _, slow := c.two(t)
	group, room, own := c.room(0, 0), c.room(2, 0), c.room(3, 0)
	other := n2.member(t, own, room)
	a := n1.member(t, group, own)
	a.cut()
	slow.hold(0, 3)
	must(t, n1.To(own).Emit(t.Context(), "n", 1))
	b := n2.back(t, a)
	b.want(numbered(1))
	must(t, n1.To(group).SocketsJoin(t.Context(), room))
	must(t, n1.To(room).Emit(t.Context(), "n", 2))
	other.want(numbered(2))
	slow.release(0)
	b.want(numbered(2))
	slow.release(3)
	other.want(numbered(1))
	must(t, n1.To(own).Emit(t.Context(), "n", 3))
	b.want(numbered(3))
	b.quiet()
}

// A client that is cut in the middle of a command's late events is refused, also if an earlier
// command in the replay, which the node had not reached, joins it to the same room or to another
// one with the same events.
func TestACutAmidWhatTwoCommandsGive(t *testing.T) {
	for _, same := range []bool{true, false} {
		t.Run(fmt.Sprint("same=", same), func(t *testing.T) {
			c := newSlowCluster(t)
			n1, n2, _, slow := c.two(t)
			group, earlier, room, own := c.room(0, 0), c.room(2, 0), c.room(1, 0), c.room(1, 1)
			other := room
			if !same {
				other = c.room(1, 2)
			}
			a := n2.member(t, group, earlier, own)
			slow.hold(0, 2)
			must(t, n1.To(earlier).SocketsJoin(t.Context(), other))
			must(t, n1.To(group).SocketsJoin(t.Context(), room))
			must(t, n1.To(room, other).Emit(t.Context(), "n", 1))
			must(t, n1.To(room, other).Emit(t.Context(), "n", 2))
			must(t, n1.To(own).Emit(t.Context(), "n", 3))
			a.want(numbered(3)) // the offset is beyond 1 and 2
			slow.release(0)
			a.want(numbered(1))
			a.next() // 2, which it does not receive
			a.cut()
			b := n1.back(t, a)
			if b.sid == a.sid {
				t.Error("recovered")
			}
			b.quiet()
			slow.release(2)
		})
	}
}

// A command joins a client to a room, and through this room a second command, which the node
// reached earlier, joins it to another room. The late events of the second command come with the
// first one, although the second was published when its clock had advanced: a client with that
// offset does not get them again.
func TestRecoveryBehindACommandThatCameLate(t *testing.T) {
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprint("again=", again), func(t *testing.T) {
			c := newSlowCluster(t)
			n1, n2, _, slow := c.two(t)
			group, first, second := c.room(0, 0), c.room(1, 0), c.room(3, 0)
			other := n2.member(t, first, second)
			a := n2.member(t, group)
			slow.hold(0)
			must(t, n1.To(group).SocketsJoin(t.Context(), first))
			must(t, n1.To(c.room(0, 1)).Emit(t.Context(), "elsewhere"))
			must(t, n1.To(first).SocketsJoin(t.Context(), second))
			must(t, n1.To(second).Emit(t.Context(), "n", 1))
			other.want(numbered(1)) // the node has passed it
			slow.release(0)
			a.want(numbered(1))
			for range 2 {
				a.cut()
				b := n1.recovered(t, a)
				b.quiet()
				if a = b; !again {
					break
				}
			}
			must(t, n1.To(second).Emit(t.Context(), "n", 2))
			a.want(numbered(2))
			a.quiet()
		})
	}
}

// A handler joins its client to a room by a command that waits in the gate, and queries the
// room and another one: the query precedes the handler's ack.
func TestAckFollowsAQueryToARoomThatIsBeingJoined(t *testing.T) {
	c := newSlowCluster(t)
	n, slow := c.node(t, "aaaa", Options{})
	partition := func(kind uint8, to rooms.Room) uint16 {
		r, err := n.adapter.Publish(t.Context(), adapter.Event{Kind: kind, Target: rooms.Target{To: []rooms.Room{to}}})
		must(t, err)
		return r.Cursor.At.Partition
	}
	nodes := partition(kindMarker, rooms.InNodes())
	a := n.client(t)
	own := partition(kindMarker, rooms.InOwn("/", a.sid))
	for own == nodes { // must differ from the query's own ack
		a = n.client(t)
		own = partition(kindMarker, rooms.InOwn("/", a.sid))
	}
	var other uint16
	for other == own || other == nodes {
		other++
	}
	blocker, room, second := c.room(other, 0), c.room(own, 0), c.room(own, 1)
	acked := make(chan struct{})
	n.On("go", func(ctx context.Context, e *Event) error {
		defer close(acked)
		if err := e.Socket().Self().SocketsJoin(ctx, room); err != nil {
			t.Error(err)
		}
		if _, err := n.To(room, second).EmitWithAck(ctx, "question"); err != nil {
			t.Error(err)
		}
		return e.Ack("done")
	})
	slow.hold(other)
	must(t, n.ToSocket(a.sid).SocketsJoin(t.Context(), blocker)) // shuts the gate
	slow.hold(nodes)
	ack := a.ask(`["go"]`)
	<-acked
	s := n.Socket(a.sid)
	slow.release(other)
	eventually(t, "it is in the room", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.rooms.current(room) != nil
	})
	slow.release(nodes)
	if m := a.next(); !strings.Contains(m, `["question"]`) {
		t.Fatalf("got %q, want the question", m)
	}
	a.wantAck(ack)
}

// A storing store waits in the next Save, once it is armed.
type storing struct {
	session.Store
	armed           atomic.Bool
	stored, release chan struct{}
	err             error
}

func newStoring(inner session.Store) *storing {
	return &storing{Store: inner, stored: make(chan struct{}), release: make(chan struct{})}
}

func (s *storing) Save(ctx context.Context, v session.Session, ttl time.Duration) error {
	if s.armed.CompareAndSwap(true, false) {
		close(s.stored)
		<-s.release
		if s.err != nil {
			return s.err
		}
	}
	return s.Store.Save(ctx, v, ttl)
}

// The connection ends while a Leave is being stored, or because that has failed. If the client
// is still in the room, it has received all its events, and those of other rooms, once.
func TestCutAmidALeave(t *testing.T) {
	for _, failed := range []bool{false, true} {
		t.Run(fmt.Sprint("failed=", failed), func(t *testing.T) {
			c := newSlowCluster(t)
			store := newStoring(c.sessions)
			n1, _ := c.node(t, "aaaa", Options{})
			c.sessions = store
			n2, slow := c.node(t, "bbbb", Options{})
			first, second := c.room(2, 0), c.room(3, 0)
			a := n2.member(t, first, second)
			other := n2.member(t, second)
			slow.hold(2)
			store.armed.Store(true)
			a.ask(`["leave","` + first + `"]`)
			<-store.stored
			must(t, n1.To(first, second).Emit(t.Context(), "n", 1))
			must(t, n1.To(first).Emit(t.Context(), "n", 2))
			must(t, n1.To(second).Emit(t.Context(), "n", 3))
			other.want(numbered(1), numbered(3))
			if failed {
				store.err = errors.New("away")
				close(store.release)
				<-a.closed
			} else {
				a.cut()
				defer close(store.release)
			}
			b := n1.recovered(t, a)
			must(t, n1.To(first).Emit(t.Context(), "n", 4))
			for len(a.in) > 0 { // the events before the end
				if m := <-a.in; strings.Contains(m, `["n"`) {
					t.Error("received while the leave was being stored")
				}
			}
			if n1.Socket(b.sid).InRoom(first) {
				got := []string{b.event(), b.event(), b.event()} // in any order, because they are in two partitions
				slices.Sort(got)
				if want := []string{numbered(1), numbered(2), numbered(3)}; !slices.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
				}
				b.want(numbered(4))
			} else { // the end of the connection was stored, with the leave
				b.want(numbered(1), numbered(3))
			}
			b.quiet()
			slow.release(2)
		})
	}
}

// A client that must be cut, because its node cannot determine the place of a SocketsLeave
// in another partition, gets nothing more: events of the room before the command may be
// missing.
func TestLeaveWithoutAMarker(t *testing.T) {
	c := newSlowCluster(t)
	n1, n2, _, slow := c.two(t)
	left, kept := c.room(2, 0), c.room(3, 0)
	a, other := n2.client(t), n2.client(t)
	for _, w := range []*wire{a, other} {
		w.call(`["join","` + left + `"]`)
		w.call(`["join","` + kept + `"]`)
	}
	slow.hold(2)
	must(t, n1.To(left).Emit(t.Context(), "n", 1))
	slow.mu.Lock()
	slow.unmarked = make(chan struct{})
	slow.mu.Unlock()
	must(t, n1.To(kept).ExceptSocket(other.sid).SocketsLeave(t.Context(), left))
	<-slow.unmarked
	slow.release(2)
	must(t, n1.To(kept).Emit(t.Context(), "n", 2))
	other.want(numbered(1), numbered(2)) // the node has passed both
	<-slow.unmarked
	<-a.closed
	for len(a.in) > 0 {
		a.hear(<-a.in)
	}
	b := n1.recovered(t, a)
	b.want(numbered(1), numbered(2))
	b.quiet()
}

// awaited waits until a caller waits for the feed.
func (n *testNode) awaited(t *testing.T) {
	t.Helper()
	eventually(t, "a caller waits for the feed", func() bool {
		n.feed.mu.Lock()
		defer n.feed.mu.Unlock()
		return n.feed.waits.n > 0
	})
}

// A socket that is disconnected gets the events that its handlers have published to it before, also
// if its node receives the disconnect first.
func TestDisconnectFollowsEventsInOtherPartitions(t *testing.T) {
	c := newSlowCluster(t)
	n, slow := c.node(t, "aaaa", Options{})
	n.On("tell all", func(ctx context.Context, e *Event) error {
		for p := range uint16(slowPartitions) {
			if err := n.To(c.room(p, 0)).Emit(ctx, "n", int(p)); err != nil {
				return err
			}
		}
		return e.Ack()
	})
	for p := range uint16(slowPartitions) {
		w := n.member(t, c.room(p, 0))
		slow.hold(p) // one of them is that of the socket's own room
		w.write(`42["tell all"]`)
		eventually(t, "it has been published", func() bool {
			s := n.Socket(w.sid)
			s.mu.Lock()
			defer s.mu.Unlock()
			o := s.order.Load()
			return o != nil && len(o.published) > 0
		})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			n.Socket(w.sid).Disconnect(false)
		}()
		n.awaited(t)
		slow.release(p)
		w.want(numbered(int(p)))
		if m := w.next(); m != "41" {
			t.Errorf(`partition %d: got %q after it, want "41"`, p, m)
		}
		<-ended
	}
}

// A member of two rooms that leaves one of them gets an event to both that was published before, also
// if its node has received only the copy in the other room, which the member passes over for the
// earlier one.
func TestLeaveBetweenTwoCopies(t *testing.T) {
	c := newSlowCluster(t)
	n, other, slow, _ := c.two(t)
	first, second := c.room(0, 0), c.room(1, 0)
	w, witness := n.member(t, first, second), n.member(t, second)
	slow.hold(0)
	must(t, other.To(first, second).Emit(t.Context(), "n", 1))
	witness.want(numbered(1)) // so the node has received the second copy
	left := make(chan error, 1)
	go func() { left <- n.Socket(w.sid).Leave(t.Context(), first) }()
	n.awaited(t)
	slow.release(0)
	must(t, <-left)
	w.want(numbered(1))
	must(t, other.To(first, second).Emit(t.Context(), "n", 2))
	must(t, other.To(first).Emit(t.Context(), "n", 3))
	w.want(numbered(2))
	w.quiet()
	back := other.back(t, w)
	back.quiet()
}

// The same holds if a command removes it from the room, although the command's position in the other
// partition was read before the event was published.
func TestSocketsLeaveBetweenTwoCopies(t *testing.T) {
	c := newSlowCluster(t)
	n, other, slow, others := c.two(t)
	first, second := c.room(0, 0), c.room(1, 0)
	w, witness := n.member(t, first, second), n.member(t, second)
	before, err := others.Head(t.Context())
	must(t, err)
	others.fixHead(before)
	slow.hold(0)
	must(t, other.To(first, second).Emit(t.Context(), "n", 1))
	must(t, other.To(second).SocketsLeave(t.Context(), first))
	must(t, other.To(second).Emit(t.Context(), "n", 2))
	witness.want(numbered(1), numbered(2)) // so the node has received the second copy and the command
	slow.release(0)
	first1, second1 := w.event(), w.event() // which are in different partitions
	if want := []string{numbered(1), numbered(2)}; !slices.Contains(want, first1) || !slices.Contains(want, second1) || first1 == second1 {
		t.Errorf("got %s and %s", first1, second1)
	}
	eventually(t, "it has left", func() bool { return n.Socket(w.sid).RoomCount() == 1 })
	must(t, other.To(first).Emit(t.Context(), "n", 3))
	w.quiet()
	back := other.back(t, w)
	back.quiet()
}

// The same holds for a client that is disconnected when both are published.
func TestSocketsLeaveBetweenTwoCopiesOfAMissedEvent(t *testing.T) {
	c := newSlowCluster(t)
	n, other, _, others := c.two(t)
	first, second := c.room(0, 0), c.room(1, 0)
	w := n.member(t, first, second)
	w.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	before, err := others.Head(t.Context())
	must(t, err)
	others.fixHead(before)
	must(t, other.To(first, second).Emit(t.Context(), "n", 1))
	must(t, other.To(second).SocketsLeave(t.Context(), first))
	must(t, other.To(first).Emit(t.Context(), "n", 2))
	back := n.back(t, w)
	back.want(numbered(1))
	back.quiet()
}

// An ack does not wait for the copy of an event that its handler has not published.
func TestAckOverACopyThatComesLate(t *testing.T) {
	c := newSlowCluster(t)
	n, slow := c.node(t, "aaaa", Options{AckTimeout: time.Hour})
	other, _ := c.node(t, "bbbb", Options{})
	first, second := c.room(0, 0), c.room(1, 0)
	w, witness := n.member(t, first, second), n.member(t, second)
	slow.hold(0)
	must(t, other.To(first, second).Emit(t.Context(), "n", 1))
	witness.want(numbered(1)) // so the socket has passed over the second copy
	w.quiet()
	slow.release(0)
	w.want(numbered(1))
}

// backAmid recovers a client on a node. The end of its replay is read during an action: after it in the
// late partitions, and before it in the others.
func (n *testNode) backAmid(t *testing.T, slow *slowAdapter, w *wire, happens func(), late ...uint16) *wire {
	t.Helper()
	slow.readAmid(t, happens, late...) // the second read is the end of the replay
	back := n.recovered(t, w)
	slow.setHead(nil)
	return back
}

// The same holds for an event that is published while its member is recovered, if the end of the replay
// covers the later copy only.
func TestLeaveBetweenTwoCopiesRightAfterARecovery(t *testing.T) {
	ways := map[string]func(t *testing.T, sock *Socket, other *testNode, others *slowAdapter, before adapter.Cursor, first, second string){
		"Leave": func(t *testing.T, sock *Socket, _ *testNode, _ *slowAdapter, _ adapter.Cursor, first, _ string) {
			must(t, sock.Leave(t.Context(), first))
		},
		"SocketsLeave": func(t *testing.T, sock *Socket, other *testNode, others *slowAdapter, before adapter.Cursor, first, second string) {
			others.fixHead(before) // it was called then
			must(t, other.To(second).SocketsLeave(t.Context(), first))
			eventually(t, "it has left", func() bool { return !sock.InRoom(first) })
		},
	}
	for name, leave := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newSlowCluster(t)
			n, other, slow, others := c.two(t)
			first, second := c.room(0, 0), c.room(1, 0)
			w := n.member(t, first, second)
			w.cut()
			eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
			var before adapter.Cursor
			back := n.backAmid(t, slow, w, func() {
				var err error
				before, err = others.Adapter.Head(t.Context())
				must(t, err)
				slow.hold(0)
				must(t, other.To(first, second).Emit(t.Context(), "n", 1))
				now, err := others.Adapter.Head(t.Context())
				must(t, err)
				n.awaitFeed(t.Context(), now.In(1)) // so the later copy is held, and dropped after the replay
			}, 1)
			left := make(chan struct{})
			go func() {
				defer close(left)
				leave(t, n.Socket(back.sid), other, others, before, first, second)
			}()
			if name == "Leave" {
				n.awaited(t)
			} else {
				<-left
			}
			slow.release(0)
			<-left
			back.want(numbered(1)) // it has never left the second
			back.quiet()
		})
	}
}

// An event published before SocketsLeave was called reaches the member, also if the end of its replay
// covers the command and not the event.
func TestRecoveryThatEndsBehindSocketsLeave(t *testing.T) {
	c := newSlowCluster(t)
	n, other, slow, _ := c.two(t)
	group, room := c.room(0, 0), c.room(1, 0)
	w := n.member(t, group, room)
	w.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	back := n.backAmid(t, slow, w, func() {
		must(t, other.To(room).Emit(t.Context(), "n", 1))
		must(t, other.To(group).SocketsLeave(t.Context(), room))
	}, 0)
	must(t, other.To(group).Emit(t.Context(), "n", 2))
	back.want(numbered(1), numbered(2))
	if n.Socket(back.sid).InRoom(room) {
		t.Error("it is still in the room")
	}
	in := rooms.InNamed("/", room)
	eventually(t, "it is not listed any more", func() bool {
		for range n.index.Candidates(rooms.Target{To: []rooms.Room{in}}) {
			return false
		}
		return true
	})
	must(t, other.To(room).Emit(t.Context(), "n", 3))
	must(t, other.To(group).Emit(t.Context(), "n", 4))
	back.want(numbered(4))
}

// The same holds if the missed events are read twice, because more came meanwhile than may be held: the
// first end covers the later copy only, and the command is in the second part.
func TestRecoveryThatReadsTwiceAroundSocketsLeave(t *testing.T) {
	c := newSlowCluster(t)
	n, slow := c.node(t, "aaaa", Options{Engine: engineio.Options{SendQueueBytes: 8000}})
	other, others := c.node(t, "bbbb", Options{})
	group, first, second := c.room(0, 0), c.room(1, 0), c.room(3, 0)
	w := n.member(t, group, first, second)
	w.cut()
	eventually(t, "it is away", func() bool { return n.Len() == 0 })
	back := n.backAmid(t, slow, w, func() {
		before, err := others.Adapter.Head(t.Context())
		must(t, err)
		must(t, other.To(first, second).Emit(t.Context(), "n", 1))
		others.fixHead(before) // SocketsLeave was called then
		must(t, other.To(group).SocketsLeave(t.Context(), first))
		others.setHead(nil)
		for range 4 {
			must(t, other.To(group).Emit(t.Context(), "large", strings.Repeat("x", 1500)))
		}
		now, err := others.Adapter.Head(t.Context())
		must(t, err)
		n.awaitFeed(t.Context(), now.In(0)) // so its gate has spilled
	}, 3)
	must(t, other.To(second).Emit(t.Context(), "n", 2))
	for got := []string{}; len(got) < 2; {
		if m := back.next(); strings.HasPrefix(m, `42["n"`) {
			if got = append(got, m); !strings.HasPrefix(m, fmt.Sprintf(`42["n",%d,`, len(got))) {
				t.Fatalf("got %q", got)
			}
		}
	}
}

// An ack follows the event that its handler published, also if a SocketsLeave that was published later
// is executed before the publication is known to have succeeded.
func TestAckFollowsAnEventBeforeSocketsLeave(t *testing.T) {
	c := newSlowCluster(t)
	n, other, slow, _ := c.two(t)
	group, room := c.room(0, 0), c.room(1, 0)
	n.On("emit", func(ctx context.Context, e *Event) error {
		if err := n.To(room).Emit(ctx, "n", 1); err != nil {
			return err
		}
		err := e.Ack("done")
		slow.release(1)
		return err
	})
	w := n.member(t, group, room)
	sock := n.Socket(w.sid)
	slow.emitted = func() {
		must(t, other.To(group).SocketsLeave(t.Context(), room))
		eventually(t, "it has left", func() bool {
			sock.mu.Lock()
			defer sock.mu.Unlock()
			return sock.rooms.current(room) == nil && sock.gate.shut == 0
		})
	}
	slow.hold(1)
	w.write(`427["emit"]`)
	if got := [2]string{w.next(), w.next()}; !strings.Contains(got[0], numbered(1)[:4]) || got[1] != `437["done"]` {
		t.Errorf("got %s", got)
	}
}

// A member is owed a copy of an event that its node has not reached, and no other event that is
// published to a room behind a SocketsLeave.
func TestSocketsLeaveWhileACopyIsOwed(t *testing.T) {
	c := newSlowCluster(t)
	n, other, slow, _ := c.two(t)
	group, first := c.room(0, 0), c.room(0, 1)
	second, own := c.room(1, 0), c.room(1, 1)
	for _, room := range []string{group, first, second, own} {
		n.client(t).call(`["join","` + room + `"]`) // so that its node receives every event
	}
	w := n.member(t, group, first, second, own)
	slow.hold(0)
	must(t, other.To(group).SocketsLeave(t.Context(), first))
	must(t, other.To(first).Emit(t.Context(), "secret"))
	must(t, other.To(group, second).Emit(t.Context(), "n", 1)) // the later copy comes first, and is passed over
	must(t, other.To(own).Emit(t.Context(), "n", 2))
	w.want(numbered(2))
	slow.release(0)
	w.want(numbered(1))
	w.quiet()
}

// A member that is joined again to a room is in it, regardless of owed copies.
func TestSocketsJoinAfterSocketsLeaveWhileACopyIsOwed(t *testing.T) {
	for name, first := range map[string]uint16{"in another partition": 2, "in the same partition": 0} {
		t.Run(name, func(t *testing.T) {
			c := newSlowCluster(t)
			n, other, slow, _ := c.two(t)
			group, room := c.room(0, 0), c.room(first, 2)
			second, own := c.room(1, 0), c.room(1, 1)
			w := n.member(t, group, room, second, own)
			slow.hold(0)
			must(t, other.To(group).SocketsLeave(t.Context(), room))
			must(t, other.To(group).SocketsJoin(t.Context(), room))
			must(t, other.To(group, second).Emit(t.Context(), "n", 1))
			must(t, other.To(own).Emit(t.Context(), "n", 2))
			w.want(numbered(2))
			w.cut()
			back := other.recovered(t, w)
			back.want(numbered(1))
			must(t, other.To(room).Emit(t.Context(), "n", 3))
			back.want(numbered(3))
			slow.release(0)
		})
	}
}

// A client that is cut between two copies gets the event, also if it is removed meanwhile from the room
// of the copy that it has not received.
func TestCutBetweenTwoCopies(t *testing.T) {
	for name, owed := range map[string]int{"one event": 1, "several": 3} {
		t.Run(name, func(t *testing.T) {
			c := newSlowCluster(t)
			n, other, slow, others := c.two(t)
			first, second, own := c.room(0, 0), c.room(1, 0), c.room(1, 1)
			w := n.member(t, first, second, own)
			before, err := others.Adapter.Head(t.Context())
			must(t, err)
			slow.hold(0)
			for i := range owed {
				must(t, other.To(first, second).Emit(t.Context(), "n", i))
				must(t, other.To(first).Emit(t.Context(), "secret")) // behind the SocketsLeave
			}
			must(t, other.To(own).Emit(t.Context(), "n", owed))
			w.want(numbered(owed)) // its offset covers the later copies
			w.cut()
			eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
			others.fixHead(before) // it was called then
			must(t, other.To(second).SocketsLeave(t.Context(), first))
			others.setHead(nil)
			back := other.recovered(t, w)
			for i := range owed {
				back.want(numbered(i))
			}
			back.quiet()
			slow.release(0)
		})
	}
}

// The same if the end of the replay covers the SocketsLeave and not the owed copy.
func TestReplayedSocketsLeaveBetweenTwoCopies(t *testing.T) {
	c := newSlowCluster(t)
	n, other, slow, others := c.two(t)
	first, second, group := c.room(0, 0), c.room(1, 0), c.room(1, 1)
	w := n.member(t, first, second, group)
	w.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	back := n.backAmid(t, slow, w, func() {
		before, err := others.Adapter.Head(t.Context())
		must(t, err)
		must(t, other.To(first, second).Emit(t.Context(), "n", 1))
		others.fixHead(before)
		must(t, other.To(group).SocketsLeave(t.Context(), first))
		others.setHead(nil)
	}, 1)
	must(t, other.To(second).Emit(t.Context(), "n", 2))
	back.want(numbered(1), numbered(2)) // it has never left the second
	back.quiet()
}

// A stay of one copy holds it and nothing else, and survives its session.
func TestOwedCopies(t *testing.T) {
	for _, at := range []adapter.Position{{Ms: 7, Seq: 3, Partition: 1}, {Ms: 7, Partition: 1}} {
		base := adapter.NewCursor("e", 0, []adapter.Position{{Ms: 5, Partition: 0}, {Ms: 5, Partition: 1}})
		m := memberships{born: base}
		m.enter("a")
		m.confirm("a", base)
		m.command([]string{"a"})
		m.leave("a", base)
		if !m.owe([]owedCopy{{at, "a"}, {at, "a"}, {at, ""}}, base) || m.count != 2 {
			t.Errorf("%v: %d stays", at, m.count)
		}
		again, _, err := restore(m.save())
		must(t, err)
		for name, m := range map[string]*memberships{"itself": &m, "restored": &again} {
			for _, p := range []adapter.Position{preceding(at), at, {Ms: at.Ms, Seq: at.Seq + 1, Partition: 1}} {
				if got := m.in(rooms.InNamed("/", "a"), "id", p); got != (p == at) {
					t.Errorf("%v, %s: %v is held: %v, want %v", at, name, p, got, p == at)
				}
			}
			if !m.named["a"][0].commanded {
				t.Errorf("%v, %s: a client that may not keep the room would lose it", at, name)
			}
			if m.current("a") != nil || m.named["a"][len(m.named["a"])-1].leave != base {
				t.Errorf("%v, %s: %+v", at, name, m.named["a"])
			}
		}
	}
}

// A command that joins a socket to the room of the later copy, after its node has reached that copy,
// makes the socket pass it over as well.
func TestSocketsLeaveAfterSocketsJoinBetweenTwoCopies(t *testing.T) {
	c := newSlowCluster(t)
	n, other, slow, _ := c.two(t)
	group, first, second := c.room(0, 0), c.room(1, 0), c.room(2, 0)
	member := n.member(t, second) // so that its node receives it
	w := n.member(t, group, first)
	slow.hold(0, 1)
	must(t, other.To(group).SocketsJoin(t.Context(), second))
	must(t, other.To(group).SocketsLeave(t.Context(), first))
	must(t, other.To(first, second).Emit(t.Context(), "n", 1))
	member.want(numbered(1))
	slow.release(0)
	sock := n.Socket(w.sid)
	eventually(t, "the commands are executed", func() bool { return sock.InRoom(second) && !sock.InRoom(first) })
	slow.release(1)
	w.want(numbered(1))
	w.quiet()
}

// A copy that a client is owed when it is cut does not hide a SocketsJoin that is older than its own
// join of the room: the events between the two are for it.
func TestSocketsJoinBeforeACopyThatIsOwed(t *testing.T) {
	c := newSlowCluster(t)
	n, other, slow, _ := c.two(t)
	group, room, second, own := c.room(0, 0), c.room(1, 0), c.room(2, 0), c.room(2, 1)
	w := n.member(t, group, second, own)
	slow.hold(0)
	must(t, other.To(group).SocketsJoin(t.Context(), room))
	must(t, other.To(room).Emit(t.Context(), "n", 1))
	must(t, n.Socket(w.sid).Join(t.Context(), room))
	slow.hold(1)
	must(t, other.To(room, second).Emit(t.Context(), "n", 2))
	must(t, other.To(own).Emit(t.Context(), "n", 3))
	w.want(numbered(3)) // its offset covers the later copy
	w.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	back := other.recovered(t, w)
	back.want(numbered(1), numbered(2))
	back.quiet()
	slow.release(0, 1)
}

// A member leaves one of two busy rooms without a wait, and loses nothing of the other one.
func TestLeaveInAFlow(t *testing.T) {
	c := newSlowCluster(t)
	n, other, slow, _ := c.two(t)
	first, second := c.room(0, 0), c.room(1, 0)
	w := n.member(t, first, second)
	slow.hold(0)
	const events = 20
	for i := range events {
		must(t, other.To(first, second).Emit(t.Context(), "n", i))
		must(t, other.To(first).Emit(t.Context(), "before")) // while it is in the room, but its node learns of it later
	}
	head, err := other.adapter.Head(t.Context())
	must(t, err)
	n.awaitFeed(t.Context(), head.In(1)) // it has passed over the later copies
	left := make(chan error, 1)
	go func() { left <- n.Socket(w.sid).Leave(t.Context(), first) }()
	must(t, receive(t, left)) // although no event of the first partition arrives
	slow.release(0)
	for i := range events {
		w.want(numbered(i))
	}
	w.quiet()
}

// Copies that a client has received do not stay in its session, where they would count as
// memberships.
func TestOwedCopiesEndWithTheRecovery(t *testing.T) {
	c := newSlowCluster(t)
	n, other, slow, _ := c.two(t)
	first, second, own := c.room(0, 0), c.room(1, 0), c.room(1, 1)
	w := n.member(t, first, second, own)
	slow.hold(0)
	for i := range 20 {
		must(t, other.To(first, second).Emit(t.Context(), "n", i))
	}
	must(t, other.To(own).Emit(t.Context(), "n", 20))
	w.want(numbered(20))
	w.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	back := other.back(t, w)
	for i := range 20 {
		back.want(numbered(i))
	}
	if got := other.Stats().MembershipBytes; got != 3*int(stayCost(first)+2*4*16) {
		t.Errorf("its memberships take %d bytes", got)
	}
	slow.release(0)
}

// A member that leaves the rooms of both copies gets the event: its node had reached the later one before.
func TestLeaveOfBothCopies(t *testing.T) {
	c := newSlowCluster(t)
	n, other, slow, _ := c.two(t)
	first, second, own := c.room(0, 0), c.room(1, 0), c.room(1, 1)
	for _, room := range []string{first, second} {
		n.client(t).call(`["join","` + room + `"]`) // so that its node receives them
	}
	w := n.member(t, first, second, own)
	slow.hold(0)
	must(t, other.To(first, second).Emit(t.Context(), "n", 1))
	must(t, other.To(own).Emit(t.Context(), "n", 2))
	w.want(numbered(2)) // it has passed over the later copy
	must(t, n.Socket(w.sid).Leave(t.Context(), first, second))
	slow.release(0)
	must(t, other.ToSocket(w.sid).Emit(t.Context(), "n", 3))
	got := map[string]bool{w.event(): true, w.event(): true} // between partitions there is no order
	if !got[numbered(1)] || !got[numbered(3)] {
		t.Errorf("got %v", got)
	}
	w.quiet()
}
