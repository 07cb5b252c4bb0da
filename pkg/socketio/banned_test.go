package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A command that removes or disconnects a client, and came while the client was
// disconnected, finds it in its rooms at that time, although it may not keep them: a weaker
// token must not evade the command. Rooms that it may not keep give it no events.
func TestCommandsByARoomThatIsNotKept(t *testing.T) {
	type command func(t *testing.T, n *testNode) error
	disconnect := func(t *testing.T, n *testNode) error { return n.To("team").DisconnectSockets(t.Context(), false) }
	leave := func(rooms ...string) command {
		return func(t *testing.T, n *testNode) error { return n.To("team").SocketsLeave(t.Context(), rooms...) }
	}
	for _, tt := range []struct {
		name     string
		commands []command
		removed  bool
		rooms    []string
	}{
		{name: "none", rooms: []string{"secret"}},
		{name: "disconnect", commands: []command{disconnect}, removed: true},
		{name: "leave", commands: []command{leave("secret")}},
		{name: "leave and disconnect", commands: []command{leave("team"), disconnect}, rooms: []string{"secret"}},
		{name: "join", commands: []command{func(t *testing.T, n *testNode) error {
			return n.To("team").SocketsJoin(t.Context(), "more")
		}}, rooms: []string{"secret"}},
		{name: "except", commands: []command{func(t *testing.T, n *testNode) error {
			return n.Except("team").DisconnectSockets(t.Context(), false)
		}}, rooms: []string{"secret"}},
		{name: "joined again by a command", commands: []command{leave("team"), func(t *testing.T, n *testNode) error {
			return n.To("secret").SocketsJoin(t.Context(), "team")
		}, leave("secret")}, rooms: []string{"team"}},
	} {
		for _, partitions := range []int{1, 4} {
			t.Run(fmt.Sprint(tt.name, ", ", partitions, " partitions"), func(t *testing.T) {
				c := newCluster(adapter.MemoryOptions{Partitions: partitions})
				n := c.node(t, "aaaa", Options{})
				joining(n.Namespace)
				weaker := false
				keepRooms(n.Namespace, func(room string) bool { return !weaker || room != "team" })
				a := n.client(t)
				a.call(`["join","team"]`)
				must(t, n.ToSocket(a.sid).SocketsJoin(t.Context(), "secret"))
				must(t, n.ToSocket(a.sid).Emit(t.Context(), "n", 1))
				must(t, n.To("secret").Emit(t.Context(), "n", 2))
				a.event()
				a.event()
				a.cut()
				eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
				must(t, n.To("team").Emit(t.Context(), "n", 3))
				for _, command := range tt.commands {
					must(t, command(t, n))
				}
				weaker = true
				b := n.back(t, a)
				if removed := b.sid != a.sid; removed != tt.removed {
					t.Fatalf("removed: %t, want %t (%v)", removed, tt.removed, n.Stats().Recoveries)
				}
				if got := n.Socket(b.sid).Rooms(); !slices.Equal(got, tt.rooms) {
					t.Errorf("in %v, want %v", got, tt.rooms)
				}
				b.quiet()
			})
		}
	}
}

// A client that was cut before it received the later copy of an event, because of which it
// was not given an earlier one, gets the earlier one if it may not keep the later one's
// room.
func TestACopyApartThatWasNotReceived(t *testing.T) {
	for _, keep := range []bool{true, false} {
		t.Run(fmt.Sprint("keep ", keep), func(t *testing.T) {
			c := newSlowCluster(t)
			n1, _ := c.node(t, "aaaa", Options{})
			n2, slow := c.node(t, "bbbb", Options{})
			group, first, second := c.room(0, 0), c.room(1, 0), c.room(3, 0)
			keepRooms(n1.Namespace, func(room string) bool { return keep || room != second })
			a := n2.client(t)
			a.call(fmt.Sprintf(`["join",%q]`, group))
			a.call(fmt.Sprintf(`["join",%q]`, second))
			must(t, n1.To(group).Emit(t.Context(), "n", 0))
			a.want(numbered(0))
			slow.hold(0)
			must(t, n1.To(group).SocketsJoin(t.Context(), first))
			must(t, n1.To(first, second).Emit(t.Context(), "n", 1))
			a.next() // it is sent, but the client does not get it: its offset stays
			slow.release(0)
			s := n2.Socket(a.sid)
			eventually(t, "the command is executed and stored", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.gate.shut == 0 && len(s.rooms.apart) > 0
			})
			a.cut()
			b := n1.back(t, a)
			if b.sid != a.sid {
				t.Fatalf("not recovered: %v", n1.Stats().Recoveries)
			}
			must(t, n1.To(first).Emit(t.Context(), "n", 2))
			b.want(numbered(1), numbered(2))
			b.quiet()
		})
	}
}

// A client is cut repeatedly, each time after one of its missed events, and its token
// becomes weaker after its first recovery. It gets every event of the room that a command
// had joined it to, once and in order, although the command is no longer for it.
func TestRecoveriesBehindACommandThatIsForgotten(t *testing.T) {
	for _, tokens := range []string{"strong", "then weak"} {
		for _, in := range [][3]uint16{{0, 1, 1}, {0, 1, 2}, {1, 0, 0}, {0, 0, 1}, {0, 1, 0}, {0, 0, 0}} {
			t.Run(fmt.Sprint(tokens, ", partitions ", in), func(t *testing.T) {
				t.Parallel()
				c := newSlowCluster(t)
				n, _ := c.node(t, "aaaa", Options{})
				team, secret, more := c.room(in[0], 0), c.room(in[1], 1), c.room(in[2], 2)
				weaker := false
				keepRooms(n.Namespace, func(room string) bool { return !weaker || room != team })
				w := n.client(t)
				w.call(fmt.Sprintf(`["join",%q]`, team))
				must(t, n.ToSocket(w.sid).SocketsJoin(t.Context(), secret))
				must(t, n.To(secret).Emit(t.Context(), "n", 0))
				w.want(numbered(0))
				cut := func() {
					w.cut()
					eventually(t, "the client is disconnected", func() bool { return n.Len() == 0 })
				}
				cut()
				must(t, n.To(secret).Emit(t.Context(), "n", 1))
				must(t, n.To(team).SocketsJoin(t.Context(), more))
				const last = 7
				for i := 2; i <= last; i++ {
					must(t, n.To([]string{more, secret}[i%2]).Emit(t.Context(), "n", i))
				}
				due := [2]int{2, 1} // of each room; between partitions there is no order
				for range last {
					back := n.back(t, w)
					if back.sid != w.sid {
						t.Fatalf("not recovered, with events %v due: %v", due, n.Stats().Recoveries)
					}
					w = back
					switch w.event() {
					case numbered(due[0]):
						due[0] += 2
					case numbered(due[1]):
						due[1] += 2
					default:
						t.Fatalf("want one of events %v", due)
					}
					cut()
					weaker = tokens != "strong"
				}
			})
		}
	}
}

// Packets in flight when the server disconnects a client from a namespace do not violate
// the protocol, even if that has happened in many namespaces before.
func TestDisconnectedFromManyNamespaces(t *testing.T) {
	n := start(t, Options{NamespacesPerConnection: 2 * maxEnded})
	n.OfFunc(func(context.Context, string, json.RawMessage) (bool, error) { return true, nil })
	w := n.client(t)
	for i := range maxEnded + 10 {
		ns := fmt.Sprintf("/game-%d", i)
		w.connect(ns, "")
		n.Of(ns).Socket(w.sid).Disconnect(false)
		w.write("42" + ns + `,["move"]`) // before it has read that
		if m := w.next(); m != "41"+ns+"," {
			t.Fatalf("%d: got %q, want %q", i, m, "41"+ns+",")
		}
	}
}
