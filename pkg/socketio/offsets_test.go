package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// An event that a middleware emits must leave the client's offset as it is: the
// client shows its application what it missed, and nothing that it has seen.
func TestEventBeforeConnectLeavesTheOffset(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []any
	}{
		{"no argument", nil}, // the event's name is the last string
		{"string last", []any{7, "welcome"}},
		{"number last", []any{7}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := start(t, Options{})
			joining(n.Namespace)
			n.Use(func(ctx context.Context, s *Socket) error { return s.Emit(ctx, "hello", tc.args...) })
			a := n.client(t)
			if a.offset != "" {
				t.Errorf("the event before CONNECT made the offset %q", a.offset)
			}
			a.cut()
			must(t, n.Emit(t.Context(), "n", 1))
			b := n.back(t, a) // has got nothing yet, with an event before CONNECT
			if b.sid != a.sid {
				t.Fatalf("not recovered: %v", n.Stats().Recoveries)
			}
			b.want(numbered(1))
			seen := b.offset
			b.cut()
			must(t, n.Emit(t.Context(), "n", 2))
			c := n.back(t, b) // and is cut right behind CONNECT
			if c.sid != a.sid || c.offset != seen {
				t.Fatalf("recovered %v with the offset %q, want %q", c.sid == a.sid, c.offset, seen)
			}
			c.cut()
			d := n.back(t, c)
			if d.sid != a.sid {
				t.Fatalf("not recovered: %v", n.Stats().Recoveries)
			}
			d.want(numbered(2))
			d.quiet()
		})
	}
}

// An event before CONNECT has no offset and no placeholder where there is none to
// protect.
func TestEventBeforeConnectIsCleanWithoutRecovery(t *testing.T) {
	for auth, window := range map[string]time.Duration{``: -1, `{"recovery":false}`: 0} {
		n := start(t, Options{RecoveryWindow: window})
		n.Use(func(ctx context.Context, s *Socket) error { return s.Emit(ctx, "hello", "you") })
		a := n.dial(t).connect("/", auth)
		if len(a.early) != 1 || a.early[0] != `42["hello","you"]` {
			t.Errorf("got %q before CONNECT", a.early)
		}
	}
}

// An offset that no node has given out says nothing about what the client has: it
// gets a new session, and no event of the old one.
func TestMalformedOffsetIsARefusal(t *testing.T) {
	for _, offset := range []any{
		"a string of the application", "", "hello", "a.b", "a.b.c.d.e", "E.-1.0", 7, true,
		map[string]int{}, []string{"a"},
		"partitions", // replaced by an offset of another number of partitions
	} {
		text, err := json.Marshal(offset)
		must(t, err)
		t.Run(string(text), func(t *testing.T) {
			n := start(t, Options{})
			joining(n.Namespace)
			a := n.client(t)
			must(t, n.Emit(t.Context(), "n", 1))
			a.want(numbered(1))
			a.cut()
			eventually(t, "the socket is gone", func() bool { return n.Len() == 0 })
			must(t, n.Emit(t.Context(), "n", 2))
			if offset == "partitions" {
				head, err := n.adapter.Head(t.Context())
				must(t, err)
				two := adapter.NewCursor(head.Epoch, 0, []adapter.Position{head.At, {Ms: head.At.Ms, Partition: 1}})
				text, _ = json.Marshal(two.String())
			}
			b := n.dial(t).connect("/", fmt.Sprintf(`{"pid":%q,"offset":%s}`, a.pid, text))
			if b.sid == a.sid || b.pid == a.pid || b.pid == "" {
				t.Fatalf("recovered as %s with the offset %s", b.sid, text)
			}
			if got := n.Stats().Recoveries["malformed_offset"]; got != 1 {
				t.Errorf("recoveries %v, want one malformed_offset", n.Stats().Recoveries)
			}
			must(t, n.Emit(t.Context(), "n", 3))
			b.want(numbered(3))
			b.quiet()
			b.cut()
			if c := n.back(t, b); c.sid != b.sid {
				t.Error("the new session is not recovered")
			}
		})
	}
}

// Clients do not reset their offset when they get a new session: one of an earlier
// history, or none at all, means that the client has got nothing in this session.
func TestOffsetThatPredatesTheSession(t *testing.T) {
	for name, offset := range map[string]string{
		"none":            ``,
		"null":            `,"offset":null`,
		"another history": `,"offset":"EARLIER.abc.1"`,
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, Options{})
			joining(n.Namespace)
			a := n.client(t)
			a.cut()
			must(t, n.Emit(t.Context(), "n", 1))
			b := n.dial(t).connect("/", fmt.Sprintf(`{"pid":%q%s}`, a.pid, offset))
			if b.sid != a.sid {
				t.Fatalf("not recovered: %v", n.Stats().Recoveries)
			}
			b.want(numbered(1))
			b.quiet()
		})
	}
}
