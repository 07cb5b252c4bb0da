package socketio

import "testing"

// A client whose socket is owed the earlier copy of an event is back on the same node before the session
// says so. A SocketsLeave whose clocks were read before the event takes it out of that copy's room.
func TestOwedCopiesAndReturnToTheNode(t *testing.T) {
	for _, end := range []string{"half-open", "cut, back immediately", "cut and away"} {
		t.Run(end, func(t *testing.T) {
			c := newSlowCluster(t)
			n1, n2, sender, slow := c.two(t)
			group, first, second := c.room(0, 0), c.room(1, 0), c.room(3, 0)
			a := n2.member(t, group, first, second)
			early, err := sender.Adapter.Head(t.Context())
			must(t, err)
			slow.hold(0, 1)
			must(t, n1.To(first, second).Emit(t.Context(), "n", 1))
			must(t, n1.To(second).Emit(t.Context(), "n", 2))
			a.want(numbered(2))
			sender.fixHead(early)
			must(t, n1.To(group).SocketsLeave(t.Context(), first))
			sender.setHead(nil)
			if end != "half-open" {
				a.cut()
			}
			if end == "cut and away" {
				eventually(t, "the client is away", func() bool { return n2.Len() == 0 })
			}
			b := n2.back(t, a)
			if b.sid != a.sid {
				t.Fatalf("not recovered: %v", n2.Stats().Recoveries)
			}
			slow.release(0, 1)
			must(t, n1.To(second).Emit(t.Context(), "n", 3))
			b.want(numbered(1), numbered(3))
		})
	}
}
