package socketio

import (
	"fmt"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// A client leaves a room, is sent nothing for longer than memberships are remembered, and does not
// receive the event after that. Its recovery, from the last event that it has received, gives it nothing
// that its former membership kept from it: events that excepted the room, and other copies of events that
// it has received.
func TestFormerRoomsOfASilentClient(t *testing.T) {
	t.Parallel()
	o := Options{RecoveryWindow: time.Second, Engine: engineio.Options{PingInterval: time.Second, PingTimeout: 3 * time.Second}}
	var checks []func()
	var memory time.Duration
	left := func(what string, n, other *testNode, r, x string, a *wire) {
		a.call(`["leave","` + x + `"]`)
		memory = n.opts.memory()
		checks = append(checks, func() {
			was := a.offset
			must(t, n.To(r).Emit(t.Context(), "n", 2))
			a.want(numbered(2))
			a.offset = was // lost on the way
			a.cut()
			eventually(t, "the client is away", func() bool { return n.Socket(a.sid) == nil })
			b := other.recovered(t, a)
			if got := b.event(); got != numbered(2) {
				t.Errorf("%s: got %s, want %s", what, got, numbered(2))
			}
		})
	}
	for _, partitions := range []int{1, 4} {
		c := newCluster(adapter.MemoryOptions{Partitions: partitions})
		n, other := c.node(t, "aaaa", o), c.node(t, "bbbb", o)
		joining(n.Namespace)
		for i := range 8 { // rooms of different partitions, in both orders
			for _, excepted := range []bool{true, false} {
				r, x := fmt.Sprint("r", i, excepted), fmt.Sprint("x", i, excepted)
				a := n.member(t, r, x)
				must(t, n.To(r).Emit(t.Context(), "n", 0))
				a.want(numbered(0))
				if excepted {
					must(t, n.To(r).Except(x).Emit(t.Context(), "n", 1))
					head, err := n.adapter.Head(t.Context())
					must(t, err)
					eventually(t, "the node has reached it", func() bool { return n.feed.now().Includes(head) }) // before the leave
				} else {
					must(t, n.To(r, x).Emit(t.Context(), "n", 1))
					a.want(numbered(1))
				}
				left(fmt.Sprint(partitions, " partitions, excepted: ", excepted), n, other, r, x, a)
			}
		}
	}
	c := newSlowCluster(t)
	other, _ := c.node(t, "aaaa", o)
	n, slow := c.node(t, "bbbb", o)
	x, r := c.room(0, 0), c.room(2, 0)
	a := n.member(t, x, r)
	slow.hold(2)
	must(t, other.To(x, r).Emit(t.Context(), "n", 1))
	a.want(numbered(1))
	left("left before the later copy", n, other, r, x, a)
	slow.release(2)
	time.Sleep(memory + o.Engine.PingInterval + time.Second)
	for _, check := range checks {
		check()
	}
}
