package socketio

import (
	"fmt"
	"testing"
)

// The clocks of the partitions are not read at one instant. An event whose first copy is
// not covered by the positions read, and whose second copy is, reaches a client once.
func TestCopiesOnceWhereTheClocksAreReadApart(t *testing.T) {
	c := newSlowCluster(t)
	n1, n2, sender, slow := c.two(t)
	group, first, second := c.room(0, 0), c.room(1, 0), c.room(3, 0)
	a := n2.member(t, group, second)
	slow.hold(0)
	sender.readAmid(t, func() { must(t, n1.To(first, second).Emit(t.Context(), "n", 1)) }, 3)
	must(t, n1.To(group).SocketsJoin(t.Context(), first))
	a.want(numbered(1)) // as a member of the second room
	slow.release(0)
	eventually(t, "it has joined", func() bool { return n2.Socket(a.sid).InRoom(first) })
	must(t, n1.To(first).Emit(t.Context(), "n", 2))
	a.want(numbered(2))
	a.quiet()
}

// An event to two rooms in two partitions reaches a client once, also if a command
// joins it to the room of the first copy after it has received the second.
func TestCopiesOnceAroundSocketsJoin(t *testing.T) {
	for _, lag := range []string{"the command comes last", "the first copy comes last", "in a recovery", "same partition"} {
		t.Run(lag, func(t *testing.T) {
			c := newSlowCluster(t)
			n1, n2, _, slow := c.two(t)
			group, first, second := c.room(0, 0), c.room(1, 0), c.room(3, 0)
			if lag == "same partition" {
				second = c.room(1, 1)
			}
			a := n2.member(t, group, second)
			switch lag {
			case "the first copy comes last":
				n2.member(t, first) // so that the node hears the room
				slow.hold(0, 1)
			default:
				slow.hold(0)
			}
			must(t, n1.To(group).SocketsJoin(t.Context(), first))
			must(t, n1.To(first, second).Emit(t.Context(), "n", 1))
			must(t, n1.To(first).Emit(t.Context(), "n", 2))
			a.want(numbered(1)) // as a member of the second room
			switch lag {
			case "in a recovery":
				a.cut()
				a = n1.recovered(t, a)
			case "the first copy comes last":
				slow.release(0)
				eventually(t, "it has joined", func() bool { return n2.Socket(a.sid).InRoom(first) })
				slow.release(1)
			}
			slow.release(0)
			a.want(numbered(2))
			must(t, n1.To(first, second).Emit(t.Context(), "n", 3))
			a.want(numbered(3))
			a.quiet()
		})
	}
}

// A copy that a client did not get, because it had received another one before a command
// joined it to the room, is not in a recovery either that begins between the command and
// that copy.
func TestCopiesOnceIfTheClientIsCutBehindSocketsJoin(t *testing.T) {
	t.Run("live", func(t *testing.T) {
		c := newSlowCluster(t)
		n1, n2, _, slow := c.two(t)
		group, first, second := c.room(0, 0), c.room(1, 0), c.room(3, 0)
		a := n2.member(t, group, second)
		slow.hold(0, 1)
		must(t, n1.To(group).SocketsJoin(t.Context(), first))
		must(t, n1.To(first, second).Emit(t.Context(), "n", 1))
		a.want(numbered(1)) // as a member of the second room
		slow.release(0)
		s := n2.Socket(a.sid)
		eventually(t, "it is joining", func() bool { return s.InRoom(first) })
		must(t, n1.To(second).Emit(t.Context(), "n", 2))
		eventually(t, "an event is held", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.gate.held) == 1
		})
		slow.release(1)
		a.want(numbered(2))
		a.cut()
		b := n1.recovered(t, a)
		must(t, n1.To(first, second).Emit(t.Context(), "n", 3))
		b.want(numbered(3))
		b.quiet()
	})
	t.Run("in a recovery", func(t *testing.T) {
		c := newSlowCluster(t)
		n1, n2, _, slow := c.two(t)
		group, first, second, own := c.room(0, 0), c.room(1, 0), c.room(3, 0), c.room(2, 0)
		a := n2.member(t, group, second, own)
		slow.hold(0, 1, 2)
		must(t, n1.To(group).SocketsJoin(t.Context(), first))
		must(t, n1.To(own).Emit(t.Context(), "n", 0))
		nextMillisecond() // so that every recovery sorts these events in the same way
		must(t, n1.To(first, second).Emit(t.Context(), "n", 1))
		a.want(numbered(1))
		a.cut()
		b := n1.back(t, a)
		b.want(numbered(0))
		b.cut()
		d := n1.recovered(t, b)
		must(t, n1.To(first, second).Emit(t.Context(), "n", 3))
		d.want(numbered(3))
		d.quiet()
	})
}

// A copy that a recovery gave to a client counts although the node has not reached it, also
// if the socket has left the room meanwhile.
func TestCopiesOnceAroundLeaveRightAfterARecovery(t *testing.T) {
	c := newSlowCluster(t)
	n1, n2, fast, slow := c.two(t)
	first, second := c.room(1, 0), c.room(3, 0)
	other := n2.member(t, second)
	a := n1.member(t, first, second)
	a.cut()
	before, err := fast.Head(t.Context())
	must(t, err)
	slow.hold(1, 3)
	must(t, n1.To(first, second).Emit(t.Context(), "n", 1))
	after, err := fast.Head(t.Context())
	must(t, err)
	slow.fixHead(mixed(before, after, 1)) // read between the copies
	b := n2.back(t, a)
	b.want(numbered(1))
	must(t, n2.Socket(b.sid).Leave(t.Context(), first))
	slow.release(1, 3)
	other.want(numbered(1))
	must(t, n1.To(second).Emit(t.Context(), "n", 2))
	b.want(numbered(2))
	b.quiet()
}

// A command joins the client again to a room that it has left, and an earlier command joins
// it to a room with other copies of the events received there: it does not receive them
// twice.
func TestCopiesOnceWhereTheClientIsJoinedAgain(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprint("away=", away), func(t *testing.T) {
			c := newSlowCluster(t)
			n1, n2, _, slow := c.two(t)
			group, first, second := c.room(0, 0), c.room(2, 0), c.room(3, 0)
			a := n2.member(t, group, second)
			slow.hold(0, 2)
			must(t, n1.To(group).SocketsJoin(t.Context(), first))
			must(t, n1.To(first, second).Emit(t.Context(), "n", 1))
			a.want(numbered(1)) // by the second copy
			a.call(`["leave","` + second + `"]`)
			if away {
				a.cut()
				eventually(t, "the client is disconnected", func() bool { return n2.Len() == 0 })
			}
			must(t, n1.To(group).SocketsJoin(t.Context(), second))
			if !away {
				a.cut()
			}
			b := n1.recovered(t, a)
			must(t, n1.To(first).Emit(t.Context(), "n", 2))
			must(t, n1.To(second).Emit(t.Context(), "n", 3))
			b.want(numbered(2))
			b.want(numbered(3))
			b.quiet()
			slow.release(0, 2)
		})
	}
}

// The client has joined a room and left it again before its node has reached an earlier command that joins
// it there. Events from that command count, with their other copies, for the next command.
func TestCopiesOnceWhereACommandIsOlderThanAStay(t *testing.T) {
	c := newSlowCluster(t)
	n1, n2, _, slow := c.two(t)
	group, later, first, second := c.room(0, 0), c.room(2, 0), c.room(1, 0), c.room(3, 0)
	a := n2.member(t, group, later)
	slow.hold(0, 2)
	must(t, n1.To(group).SocketsJoin(t.Context(), second))
	must(t, n1.To(later).SocketsJoin(t.Context(), first))
	must(t, n1.To(first, second).Emit(t.Context(), "n", 1))
	a.call(`["join","` + second + `"]`)
	a.call(`["leave","` + second + `"]`)
	slow.release(0)
	a.want(numbered(1)) // by the second copy
	slow.release(2)
	eventually(t, "it has joined", func() bool { return n2.Socket(a.sid).InRoom(first) })
	must(t, n1.To(second).Emit(t.Context(), "n", 2))
	a.want(numbered(2))
	a.quiet()
}

// The end of a recovery covers the second copy of an event and not the first one. So do the
// positions of the command that joins the client to the room of the first copy.
func TestCopiesOnceWhereTheEndOfARecoveryIsReadApart(t *testing.T) {
	c := newSlowCluster(t)
	n1, n2, sender, slow := c.two(t)
	group, first, second := c.room(0, 0), c.room(1, 0), c.room(3, 0)
	other := n2.member(t, first)
	a := n1.member(t, group, second)
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n1.Len() == 0 })
	slow.hold(1)
	early, err := sender.Adapter.Head(t.Context())
	must(t, err)
	sender.readAmid(t, func() { must(t, n1.To(first, second).Emit(t.Context(), "n", 1)) }, 3)
	must(t, n1.To(group).SocketsJoin(t.Context(), first))
	sender.setHead(nil)
	now, err := sender.Head(t.Context())
	must(t, err)
	slow.fixHead(mixed(early, now, 0, 3))
	b := n2.back(t, a)
	b.want(numbered(1)) // by the second copy
	slow.release(1)
	other.want(numbered(1))
	must(t, n1.To(first).Emit(t.Context(), "n", 2))
	b.want(numbered(2))
	b.quiet()
}

// An event to two rooms in two partitions excepts a room that a command joins, and the clocks that the
// command carries were read around the two copies: the client is in the excepted room at the first
// copy only. It receives the event once, as it did before it came to the command.
func TestCopiesOnceAroundSocketsJoinOfAnExceptedRoom(t *testing.T) {
	for _, recovers := range []bool{false, true} {
		t.Run(fmt.Sprint("recovers=", recovers), func(t *testing.T) {
			c := newSlowCluster(t)
			n1, n2, sender, slow := c.two(t)
			group, first, second, excepted := c.room(0, 0), c.room(1, 0), c.room(3, 0), c.room(2, 0)
			a := n2.member(t, group, first, second)
			slow.hold(0)
			sender.readAmid(t, func() { must(t, n1.To(first, second).Except(excepted).Emit(t.Context(), "n", 1)) }, 3)
			must(t, n1.To(group).SocketsJoin(t.Context(), excepted))
			a.want(numbered(1))
			if recovers {
				a.cut()
				a = n1.recovered(t, a)
			} else {
				slow.release(0)
				eventually(t, "it has joined", func() bool { return n2.Socket(a.sid).InRoom(excepted) })
			}
			must(t, n1.To(first, second).Except(excepted).Emit(t.Context(), "n", 2))
			must(t, n1.To(first).Emit(t.Context(), "n", 3))
			a.want(numbered(3))
			a.quiet()
		})
	}
}
