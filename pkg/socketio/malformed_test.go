package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A malformed event or command, written to Redis by another program, is a gap for the members of its
// room, live and in a replay, and does not affect others.
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
				eventually(t, "the member has left", func() bool { return n.Len() == 1 })
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
				eventually(t, "the member has left again", func() bool { return n.Len() == 1 })
			}
		})
	}
}

// A replay that is not held detects a malformed event when it reaches it. Its client is
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

// A garbledStore has sessions that this version cannot decode.
type garbledStore struct {
	session.Store
	garbled atomic.Bool
}

func (g *garbledStore) Claim(ctx context.Context, pid, by string, ttl time.Duration, check func(session.Session) error) (session.Session, string, error) {
	if g.garbled.Load() {
		return session.Session{}, "", fmt.Errorf("claim: %w", session.ErrUndecodable)
	}
	return g.Store.Claim(ctx, pid, by, ttl, check)
}

// A session that cannot be decoded is not recovered, now or later: its client gets a new one.
func TestUndecodableSessionIsRefused(t *testing.T) {
	store := &garbledStore{Store: session.NewMemory()}
	n := start(t, Options{Sessions: store})
	joining(n.Namespace)
	w := n.client(t)
	w.call(`["join","r"]`)
	w.cut()
	store.garbled.Store(true)
	if back := n.back(t, w); back.sid == w.sid || n.Stats().Recoveries[refusedCoding] != 1 {
		t.Errorf("recovered: %v", n.Stats().Recoveries)
	}
}

// The length of a namespace's name is checked before any function is called with it.
func TestNamesOfNamespacesAreBounded(t *testing.T) {
	n := start(t, Options{})
	var asked atomic.Int32
	n.OfFunc(func(context.Context, string, json.RawMessage) (bool, error) { asked.Add(1); return true, nil })
	w := n.dial(t)
	long := "/" + strings.Repeat("a", maxNamespaceName-1)
	w.write("40" + long + "b,")
	if got, want := w.next(), "44"+long+`b,{"message":"Invalid namespace"}`; got != want || asked.Load() != 0 {
		t.Errorf("got %s; asked %d times, want %s, 0", got, asked.Load(), want)
	}
	w.connect(long, "")
	if asked.Load() != 1 {
		t.Errorf("asked %d times, want 1", asked.Load())
	}
}
