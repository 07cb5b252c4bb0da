package socketio

import (
	"context"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// Only offsets made with the key prove anything; others still say which position their
// client assumes.
func TestOffsets(t *testing.T) {
	c := adapter.Cursor{Epoch: "EPOCH", At: adapter.Position{Ms: 1_700_000_000_000, Seq: 7}}
	keyed, other, plain := newOffsets([]byte("a key of the cluster")), newOffsets([]byte("another")), newOffsets(nil)
	given := keyed.format(c)
	if plain.format(c) != c.String() || !strings.HasPrefix(given, c.String()+"~") || plain.format(adapter.Cursor{}) != "" {
		t.Errorf("%q and %q", plain.format(c), given)
	}
	for offset, want := range map[string]bool{
		given:           true,
		other.format(c): false,
		c.String():      false,
		strings.Replace(given, "EPOCH", "EPOCK", 1): false,
	} {
		got, genuine, err := keyed.parse(offset)
		if err != nil || got.At != c.At || genuine != want {
			t.Errorf("%q: %v, genuine %v, %v; want %v", offset, got, genuine, err, want)
		}
	}
	if _, genuine, err := plain.parse(given); genuine || err != nil {
		t.Errorf("without a key: genuine %v, %v", genuine, err)
	}
	for _, bad := range []string{"", "~", "x", "~" + given, "a.b~c", c.String() + "~", given + "x", given + "~", given + " ", given[:len(given)-1] + "\n", given + "\n", given[:len(given)-1]} {
		if c, _, err := keyed.parse(bad); err == nil {
			t.Errorf("%q is the offset %v", bad, c)
		}
	}
}

// Only an offset of a node says what a client has received.
func TestReceived(t *testing.T) {
	at := func(epoch string, seq uint64) adapter.Cursor {
		return adapter.Cursor{Epoch: epoch, At: adapter.Position{Ms: 1_700_000_000_000, Seq: seq}}
	}
	two := adapter.NewCursor("EPOCH", 0, []adapter.Position{{Ms: 1_700_000_000_000}, {Ms: 1_700_000_000_001, Partition: 1}})
	keyed, other, plain := newOffsets([]byte("a key of the cluster")), newOffsets([]byte("another")), newOffsets(nil)
	quoted := func(s string) string { return `"` + s + `"` }
	now, seen := at("EPOCH", 9), at("EPOCH", 7)
	for _, tc := range []struct {
		name    string
		o       offsets
		offset  string
		want    adapter.Cursor
		genuine bool
		refused bool
	}{
		{"none", keyed, "", adapter.Cursor{}, false, false},
		{"null", keyed, "null", adapter.Cursor{}, false, false},
		{"ours", keyed, quoted(keyed.format(seen)), seen, true, false},
		{"ours without a key", plain, quoted(plain.format(seen)), seen, false, false},
		{"of a former key", keyed, quoted(other.format(seen)), seen, false, false},
		{"of an earlier history", keyed, quoted(keyed.format(at("EARLIER", 7))), adapter.Cursor{}, false, false},
		{"of an earlier history, without a key", plain, quoted("EARLIER.a.b"), adapter.Cursor{}, false, false},
		{"a version, which looks like one", keyed, `"1.2.3"`, adapter.Cursor{}, false, true},
		{"of an unknown history", keyed, quoted(other.format(at("EARLIER", 7))), adapter.Cursor{}, false, true},
		{"of other partitions", keyed, quoted(keyed.format(two)), adapter.Cursor{}, false, true},
		{"an address", plain, `"a b.example.org"`, adapter.Cursor{}, false, true},
		{"text", plain, `"hello"`, adapter.Cursor{}, false, true},
		{"empty", plain, `""`, adapter.Cursor{}, false, true},
		{"a number", plain, `7`, adapter.Cursor{}, false, true},
		{"an object", plain, `{}`, adapter.Cursor{}, false, true},
	} {
		got, genuine, err := tc.o.received([]byte(tc.offset), now)
		if got != tc.want || genuine != tc.genuine || (err != nil) != tc.refused {
			t.Errorf("%s: got %v, genuine %v, %v; want %v, genuine %v, an error %v",
				tc.name, got, genuine, err, tc.want, tc.genuine, tc.refused)
		}
	}
}

// Offsets are untrusted. A genuine one is exactly an offset that a node issues; any other
// is at most a position in a history.
func FuzzOffsets(f *testing.F) {
	keyed := newOffsets([]byte("a key of the cluster"))
	one := adapter.Cursor{Epoch: "EPOCH", At: adapter.Position{Ms: 1_700_000_000_000, Seq: 7}}
	several := adapter.NewCursor("EPOCH", 1, []adapter.Position{{Ms: 1_700_000_000_000}, {Ms: 1_700_000_000_001, Seq: 2, Partition: 1}})
	for _, s := range []string{"", "~", one.String(), keyed.format(one), keyed.format(several), keyed.format(several) + "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, genuine, err := keyed.parse(s)
		if err != nil {
			if genuine {
				t.Errorf("%q is genuine, and %v", s, err)
			}
			return
		}
		if given := keyed.format(c); genuine != (s == given) {
			t.Errorf("%q: genuine %v, but %q is given out, want %v", s, genuine, given, s == given)
		}
	})
}

// A laggingAdapter holds back the events of its node's feed.
type laggingAdapter struct {
	adapter.Adapter
	goOn chan struct{} // closed when it may continue
}

func (a *laggingAdapter) Next(ctx context.Context) (adapter.Event, error) {
	select {
	case <-a.goOn:
		return a.Adapter.Next(ctx)
	case <-ctx.Done():
		return adapter.Event{}, ctx.Err()
	}
}

// A replay may reach further than the node's feed. Until the feed has caught up, events
// sent to the client have no offset below the replay's.
func TestNoOffsetGoesBackWhileTheFeedLags(t *testing.T) {
	memory := adapter.NewMemory(adapter.MemoryOptions{})
	inner, err := memory.Node("aaaa")
	must(t, err)
	t.Cleanup(func() { _ = inner.Close() })
	lagging := &laggingAdapter{inner, make(chan struct{})}
	n := start(t, Options{Adapter: lagging})
	a := n.client(t)
	n.client(t) // because of which the node's feed gets all events
	a.cut()
	eventually(t, "the client is disconnected", func() bool { return n.Len() == 1 })
	must(t, n.Emit(t.Context(), "n", 1))
	b := n.back(t, a)
	if b.sid != a.sid {
		t.Fatal("not recovered")
	}
	b.want(numbered(1))
	last := b.offset
	follows := func(event string) {
		t.Helper()
		b.want(event)
		was, err := adapter.ParseCursor(last)
		must(t, err)
		is, err := adapter.ParseCursor(b.offset)
		must(t, err)
		if !is.Includes(was) {
			t.Errorf("%s has the offset %v after %v", event, is, was)
		}
		last = b.offset
	}
	must(t, n.Local().Emit(t.Context(), "local"))
	follows(`["local"]`)
	close(lagging.goOn)
	must(t, n.Emit(t.Context(), "n", 2))
	follows(numbered(2))
}
