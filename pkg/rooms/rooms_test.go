package rooms_test

import (
	"slices"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

func TestMatch(t *testing.T) {
	a, b, c := rooms.InNamed("/", "a"), rooms.InNamed("/", "b"), rooms.InNamed("/", "c")
	for _, c := range []struct {
		name   string
		target rooms.Target
		in     []rooms.Room
		want   bool
	}{
		{"an empty target is for nobody", rooms.Target{}, []rooms.Room{a}, false},
		{"nor is one that only spares", rooms.Target{Except: []rooms.Room{b}}, []rooms.Room{a}, false},
		{"a member of the room", rooms.Target{To: []rooms.Room{a}}, []rooms.Room{a, b}, true},
		{"a stranger", rooms.Target{To: []rooms.Room{a}}, []rooms.Room{b}, false},
		{"one room of several is enough", rooms.Target{To: []rooms.Room{a, b, c}}, []rooms.Room{c}, true},
		{"sparing wins", rooms.Target{To: []rooms.Room{a, b}, Except: []rooms.Room{c}}, []rooms.Room{a, c}, false},
		{"sparing the target itself", rooms.Target{To: []rooms.Room{a}, Except: []rooms.Room{a}}, []rooms.Room{a}, false},
		{"sparing strangers", rooms.Target{To: []rooms.Room{a}, Except: []rooms.Room{b}}, []rooms.Room{a}, true},
		{"a socket's own room is not the room of that name", rooms.Target{To: []rooms.Room{rooms.InOwn("/", "a")}}, []rooms.Room{a}, false},
		{"nor is the same name elsewhere", rooms.Target{To: []rooms.Room{rooms.InNamed("/x", "a")}}, []rooms.Room{a}, false},
	} {
		in := func(r rooms.Room) bool { return slices.Contains(c.in, r) }
		if got := c.target.Match(in); got != c.want {
			t.Errorf("%s: Match = %v, want %v", c.name, got, c.want)
		}
	}
}
