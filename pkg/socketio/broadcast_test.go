package socketio

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// Each method returns a changed copy that is independent of other copies.
func TestBroadcastsAreValues(t *testing.T) {
	n := start(t, Options{}).Namespace
	type value struct {
		b    Broadcast
		want rooms.Target
	}
	names := rapid.SliceOfN(rapid.StringMatching("[a-z]"), 0, 3)
	rapid.Check(t, func(rt *rapid.T) {
		values := []value{{b: n.Everyone()}}
		for range rapid.IntRange(0, 30).Draw(rt, "calls") {
			v := values[rapid.IntRange(0, len(values)-1).Draw(rt, "of")]
			list := names.Draw(rt, "names")
			switch rapid.IntRange(0, 3).Draw(rt, "method") {
			case 0:
				v = value{v.b.To(list...), rooms.Target{To: slices.Concat(v.want.To, inNamed("/", list)), Except: v.want.Except}}
			case 1:
				v = value{v.b.ToSocket(list...), rooms.Target{To: slices.Concat(v.want.To, inOwn("/", list)), Except: v.want.Except}}
			case 2:
				v = value{v.b.Except(list...), rooms.Target{To: v.want.To, Except: slices.Concat(v.want.Except, inNamed("/", list))}}
			case 3:
				v = value{v.b.ExceptSocket(list...), rooms.Target{To: v.want.To, Except: slices.Concat(v.want.Except, inOwn("/", list))}}
			}
			values = append(values, v)
		}
		for _, v := range values {
			if !v.b.aimed {
				v.want.To = []rooms.Room{rooms.InEveryone("/")}
			}
			got, err := v.b.target(0)
			if err != nil || !slices.Equal(got.To, v.want.To) || !slices.Equal(got.Except, v.want.Except) {
				rt.Fatalf("got %v (%v), want %v", got, err, v.want)
			}
		}
	})
}

// The cost of naming rooms one by one is linear in their number.
func TestChainedRoomsCostLinearWork(t *testing.T) {
	n := start(t, Options{}).Namespace
	for name, add := range map[string]func(Broadcast, string) Broadcast{
		"To":           func(b Broadcast, name string) Broadcast { return b.To(name) },
		"ToSocket":     func(b Broadcast, name string) Broadcast { return b.ToSocket(name) },
		"Except":       func(b Broadcast, name string) Broadcast { return b.Except(name) },
		"ExceptSocket": func(b Broadcast, name string) Broadcast { return b.ExceptSocket(name) },
	} {
		allocated := func(calls int) uint64 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			b := n.Everyone()
			for i := range calls {
				b = add(b, fmt.Sprint(i))
			}
			if _, err := b.target(0); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			return after.TotalAlloc - before.TotalAlloc
		}
		if one, four := allocated(1000), allocated(4000); four > 6*one {
			t.Errorf("%s: 1,000 calls allocate %d bytes, 4,000 calls %d, want at most %d", name, one, four, 6*one)
		}
	}
}
