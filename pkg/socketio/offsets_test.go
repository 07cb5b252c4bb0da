package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// An event that a middleware emits must leave the client's offset as it is: the client then
// delivers the missed events to its application, and no event that it has delivered before.
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
			n.Use(func(_ context.Context, r *ConnectRequest) error { return r.Emit("hello", tc.args...) })
			a := n.client(t)
			if a.offset != "" {
				t.Errorf(`the event before CONNECT made the offset %q, want ""`, a.offset)
			}
			a.cut()
			must(t, n.Emit(t.Context(), "n", 1))
			b := n.back(t, a) // has received nothing yet, with an event before CONNECT
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

// An event before CONNECT has no offset, and no placeholder if there is no offset to
// protect.
func TestEventBeforeConnectIsCleanWithoutRecovery(t *testing.T) {
	for auth, window := range map[string]time.Duration{``: -1, `{"recovery":false}`: 0} {
		n := start(t, Options{RecoveryWindow: window})
		n.Use(func(_ context.Context, r *ConnectRequest) error { return r.Emit("hello", "you") })
		a := n.dial(t).connect("/", auth)
		if len(a.early) != 1 || a.early[0] != `42["hello","you"]` {
			t.Errorf("got %q before CONNECT", a.early)
		}
	}
}

// An offset that no node has issued does not say what the client has received: the client
// gets a new session, and no event of the old one.
func TestMalformedOffsetIsRefused(t *testing.T) {
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

// Clients do not reset their offset when they get a new session: one of an earlier history,
// or none at all, means that the client has received nothing in this session.
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

// A client presents its own private ID with an offset that is not its own. With one of
// another client it gets every event of its room that the offset does not cover, once. With
// one of a position that has not been reached, of another history or of another number of
// partitions it gets a new session. No other client is cut, and the history continues.
func TestForeignOffsets(t *testing.T) {
	for _, partitions := range []int{1, 2} {
		for _, key := range []string{"", "the key of the cluster"} {
			for _, presented := range []string{"own", "older", "newer", "newest", "future", "between events", "history", "partitions"} {
				t.Run(fmt.Sprintf("%s, %d partitions, key %q", presented, partitions, key), func(t *testing.T) {
					presentForeignOffset(t, partitions, key, presented)
				})
			}
		}
	}
}

func presentForeignOffset(t *testing.T, partitions int, key, presented string) {
	c := newCluster(adapter.MemoryOptions{Partitions: partitions})
	one, two := c.node(t, "one", Options{OffsetKey: []byte(key)}), c.node(t, "two", Options{OffsetKey: []byte(key)})
	joining(one.Namespace)
	joining(two.Namespace)
	emit := func(room string, n int) { must(t, two.To(room).Emit(t.Context(), "n", n)) }
	// want expects an event with a number, and returns its offset.
	want := func(w *wire, want int) (offset string) {
		t.Helper()
		var n int
		m := w.next()
		if _, err := fmt.Sscanf(m, `42["n",%d,%q]`, &n, &offset); err != nil || n != want {
			t.Fatalf("got %q, want event %d", m, want)
		}
		return offset
	}
	client, witness, other := one.client(t), one.client(t), two.client(t)
	client.call(`["join","mine"]`)
	witness.call(`["join","mine"]`)
	other.call(`["join","other"]`)
	emit("other", 1)
	offsets := map[string]string{"older": want(other, 1)}
	positions := make(map[int]adapter.Position)
	publish := func(n int) {
		t.Helper()
		emit("mine", n)
		seen, _, err := one.offsets.parse(want(witness, n))
		must(t, err)
		positions[n] = seen.At
	}
	publish(1)
	offsets["own"] = want(client, 1)
	client.cut()
	eventually(t, "the client is disconnected", func() bool { return one.Len() == 1 })
	publish(2)
	emit("other", 2)
	offsets["newer"] = want(other, 2)
	publish(3)
	emit("other", 3)
	offsets["newest"] = want(other, 3)

	head, err := one.adapter.Head(t.Context())
	must(t, err)
	forge := func(change func(all []adapter.Position) []adapter.Position, epoch string) string {
		all := make([]adapter.Position, partitions)
		for i := range all {
			all[i] = head.At
			all[i].Partition = uint16(i)
		}
		return adapter.NewCursor(epoch, head.At.Partition, change(all)).String()
	}
	each := func(f func(*adapter.Position)) func([]adapter.Position) []adapter.Position {
		return func(all []adapter.Position) []adapter.Position {
			for i := range all {
				f(&all[i])
			}
			return all
		}
	}
	offsets["future"] = forge(each(func(p *adapter.Position) { p.Ms += 3_600_000 }), head.Epoch)
	offsets["between events"] = forge(each(func(p *adapter.Position) { p.Ms, p.Seq = positions[2].Ms, positions[2].Seq+1000 }), head.Epoch)
	offsets["history"] = forge(each(func(*adapter.Position) {}), "EARLIER")
	offsets["partitions"] = forge(func(all []adapter.Position) []adapter.Position {
		return append(all, adapter.Position{Ms: head.At.Ms, Partition: uint16(partitions)})
	}, head.Epoch)

	offset := offsets[presented]
	back := two.dial(t).connect("/", fmt.Sprintf(`{"pid":%q,"offset":%q}`, client.pid, offset))
	recovered := back.sid == client.sid
	genuine := slices.Contains([]string{"own", "older", "newer", "newest"}, presented)
	earlier := presented == "history" && key == "" // then it is unknown whether a node has issued it
	either := presented == "between events"        // which is harmless in a history that cannot lose a part
	if recovered != (genuine || earlier) && !either {
		t.Fatalf("recovered is %v: %v", recovered, two.Stats().Recoveries)
	}
	if recovered {
		seen, _, err := two.offsets.parse(offset)
		must(t, err)
		for n := 1; n <= 3; n++ {
			if seen.Epoch != head.Epoch || !seen.Covers(positions[n]) {
				want(back, n)
			}
		}
	} else {
		if back.pid == client.pid || back.pid == "" {
			t.Errorf("the private ID is %q", back.pid)
		}
		back.call(`["join","mine"]`)
	}
	publish(4)
	want(back, 4)
	back.quiet()
	emit("other", 4)
	want(other, 4)
	for _, w := range []*wire{witness, other} {
		w.quiet()
	}
	if now, err := one.adapter.Head(t.Context()); err != nil || now.Epoch != head.Epoch {
		t.Errorf("the history is %q now, %v; want %q", now.Epoch, err, head.Epoch)
	}
}

// Fields of the application in the payload whose names differ from the protocol's in
// their case only are not taken for those.
func TestRecoveryBesideFieldsOfTheApplication(t *testing.T) {
	for _, own := range []string{`"PID":"patient 7"`, `"Pid":7`, `"Offset":100`, `"OFFSET":"a","data":{"PID":1}`} {
		t.Run(own, func(t *testing.T) {
			n := start(t, Options{})
			joining(n.Namespace)
			a := n.dial(t).connect("/", "{"+own+"}")
			must(t, n.Emit(t.Context(), "n", 1))
			a.want(numbered(1))
			a.cut()
			must(t, n.Emit(t.Context(), "n", 2))
			b := n.dial(t).connect("/", fmt.Sprintf(`{"pid":%q,"offset":%q,%s}`, a.pid, a.offset, own))
			if b.sid != a.sid {
				t.Fatalf("not recovered: %v", n.Stats().Recoveries)
			}
			b.want(numbered(2))
			b.quiet()
			if got := n.Stats().Recoveries["unknown_session"]; got != 0 {
				t.Errorf("%d unknown sessions were requested, want 0", got)
			}
		})
	}
}
