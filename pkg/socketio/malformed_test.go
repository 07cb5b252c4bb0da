package socketio

import (
	"fmt"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// An event or command that no node has published, as somebody may write it to Redis, is a gap for the
// members of its room, live and in a replay, and nothing to everybody else.
func TestMalformedEventsAreGaps(t *testing.T) {
	malformed := make(map[string]adapter.Event)
	for _, data := range []string{"", "x", "[", "[]", `["n"`, `{"n":1}`} {
		malformed[fmt.Sprintf("event %q", data)] = adapter.Event{Kind: kindEmit, Data: []byte(data)}
	}
	for _, data := range []string{"", "x", "[", "[1]", `["n"`, `{"n":1}`} {
		malformed[fmt.Sprintf("join %q", data)] = adapter.Event{Kind: kindJoin, Data: []byte(data)}
		malformed[fmt.Sprintf("leave %q", data)] = adapter.Event{Kind: kindLeave, Data: []byte(data)}
	}
	for name, ev := range malformed {
		ev.Stored, ev.Target.To = true, []rooms.Room{rooms.InNamed("/", "r")}
		t.Run(name, func(t *testing.T) {
			n := start(t, Options{})
			joining(n.Namespace)
			forge := func() {
				_, err := n.adapter.Publish(t.Context(), ev)
				must(t, err)
			}
			other := n.client(t)
			for _, how := range []string{"connected", "away"} {
				w := n.client(t)
				w.call(`["join","r"]`)
				if how == "connected" {
					forge()
					<-w.closed
				} else {
					w.cut()
				}
				eventually(t, "the member has gone", func() bool { return n.Len() == 1 })
				if how == "away" {
					forge()
				}
				back := n.back(t, w)
				if got := n.Stats().Recoveries[refusedCoding]; back.sid == w.sid || got == 0 {
					t.Errorf("%s: recovered: %v", how, n.Stats().Recoveries)
				}
				must(t, n.Emit(t.Context(), "n", 1))
				other.want(numbered(1))
				back.want(numbered(1))
				back.cut()
				eventually(t, "the member has gone again", func() bool { return n.Len() == 1 })
			}
		})
	}
}

// A replay that is not held finds out what is malformed when it comes to it. Its client is
// cut, and not recovered again.
func TestMalformedEventsInLargeReplays(t *testing.T) {
	for name, ev := range map[string]adapter.Event{
		"event": {Kind: kindEmit, Data: []byte("xxxx")}, "join": {Kind: kindJoin, Data: []byte("xxxx")}, "leave": {Kind: kindLeave, Data: []byte(`{"n":1}`)},
	} {
		ev.Stored, ev.Target.To = true, []rooms.Room{rooms.InNamed("/", "r")}
		t.Run(name, func(t *testing.T) {
			n := start(t, Options{})
			n.replays.page = 1 // nothing is held
			joining(n.Namespace)
			w := n.client(t)
			w.call(`["join","r"]`)
			w.cut()
			_, err := n.adapter.Publish(t.Context(), ev)
			must(t, err)
			back := n.back(t, w)
			if name == "event" { // which is read behind CONNECT
				<-back.closed
				back = n.back(t, w)
			}
			if back.sid == w.sid {
				t.Error("recovered")
			}
		})
	}
}
