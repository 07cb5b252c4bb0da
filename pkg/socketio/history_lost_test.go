package socketio

import (
	"slices"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// newHistory returns a node whose cluster has lost its history and whose feed has had no
// event since. A client of it was cut before events 1 to 3 came to its room r.
func newHistory(t *testing.T) (*testNode, *wire) {
	t.Helper()
	c := newCluster(adapter.MemoryOptions{})
	n := c.node(t, "a", Options{})
	joining(n.Namespace)
	first := n.client(t)
	must(t, n.Emit(t.Context(), "n", 0))
	first.want(numbered(0))
	c.memory.Reset()
	<-first.closed
	eventually(t, "the client is cut", func() bool { return n.Len() == 0 })
	w := n.client(t)
	w.call(`["join","r"]`)
	w.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	for i := 1; i < 4; i++ {
		must(t, n.To("r").Emit(t.Context(), "n", i)) // which the node is not subscribed to
	}
	return n, w
}

// backAgain cuts a client, recovers it and returns the events that it gets.
func (n *testNode) backAgain(t *testing.T, w *wire) (events []string) {
	t.Helper()
	w.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
	back := n.back(t, w)
	if back.sid != w.sid {
		t.Errorf("not recovered: %v", n.Stats().Recoveries)
	}
	must(t, n.Emit(t.Context(), "end"))
	for e := back.event(); e != `["end"]`; e = back.event() {
		events = append(events, e)
	}
	return events
}

// A local event has the offset of the events that the client has been given, although the
// node's feed has had no event of the new history.
func TestLocalEventsInANewHistory(t *testing.T) {
	n, w := newHistory(t)
	w = n.back(t, w)
	w.want(numbered(1), numbered(2), numbered(3))
	must(t, n.Local().Emit(t.Context(), "local"))
	w.want(`["local"]`)
	if again := n.backAgain(t, w); len(again) > 0 {
		t.Errorf("got %v again", again)
	}
}

// A membership ends at the same position if the client leaves the room.
func TestLeavingInANewHistory(t *testing.T) {
	n, w := newHistory(t)
	w = n.back(t, w)
	w.want(numbered(1))
	w.next() // 2 and 3 are sent, but the client does not get them
	w.next()
	must(t, n.Socket(w.sid).Leave(t.Context(), "r"))
	if got, want := n.backAgain(t, w), []string{numbered(2), numbered(3)}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A client that connects in a new history that its node does not know yet has no offset of
// the old one, and is cut when the node detects the new history.
func TestOffsetsAreOfTheHistoryOfTheirSession(t *testing.T) {
	old, born := adapter.Cursor{Epoch: "old", At: at(9).At}, adapter.Cursor{Epoch: "new", At: at(5).At}
	var g gate
	if got := *g.stamp(&old, &born); got != born {
		t.Errorf("stamped %v, want %v", got, born)
	}
	floor := adapter.Cursor{Epoch: "new", At: at(7).At}
	g.discard(floor)
	for _, tt := range []struct{ own, want adapter.Cursor }{
		{old, floor}, {born, floor}, {old, floor},
		{adapter.Cursor{Epoch: "new", At: at(8).At}, adapter.Cursor{Epoch: "new", At: at(8).At}},
	} {
		if got := g.given(tt.own, born); got != tt.want {
			t.Errorf("given %v, want %v", got, tt.want)
		}
		if got := *g.stamp(&tt.own, &born); got != tt.want {
			t.Errorf("%v stamped %v, want %v", tt.own, got, tt.want)
		}
	}
}
