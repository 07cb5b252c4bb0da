package adapter

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// An index of a target decides as the target does.
func TestTargetIndexDecidesAsTheEvent(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(most int) (list []rooms.Room) {
		for range rng.IntN(most + 1) {
			list = append(list, room(fmt.Sprint(rng.IntN(100))))
		}
		return list
	}
	decided := make(map[bool]int)
	for range 5000 {
		e := &Event{Target: rooms.Target{To: pick(60), Except: pick(6)}, Position: Position{Ms: uint64(rng.IntN(9))}}
		for range rng.IntN(3) {
			e.Earlier = append(e.Earlier, Copy{Position{Ms: uint64(rng.IntN(9))}, pick(30)})
		}
		joined := make(map[rooms.Room]uint64)
		for _, r := range pick(8) {
			joined[r] = uint64(rng.IntN(9))
		}
		in := func(r rooms.Room, at Position) bool { ms, ok := joined[r]; return ok && ms < at.Ms }
		own := iter.Seq[rooms.Room](maps.Keys(joined))
		x := NewTargetIndex(e)
		if x == nil {
			continue
		}
		want := e.For(in)
		if got := x.For(in, own); got != want {
			t.Fatalf("%+v for a member of %v: %v, want %v", e, joined, got, want)
		}
		decided[want]++
	}
	if decided[true] < 100 || decided[false] < 100 {
		t.Errorf("decided %v: this proves little", decided)
	}
}

// A member takes one copy of an event, and none at which it was in an excepted room. Once commands have
// joined it to further rooms, at positions before some of the copies, it must not take a later one.
func TestJoinsTakeNoLaterCopy(t *testing.T) {
	const n = 3
	copies := make([]*Event, n)
	var earlier []Copy
	for i := range copies {
		at, to := Position{Partition: uint16(i), Ms: 1}, []rooms.Room{room(fmt.Sprint(i))}
		copies[i] = &Event{Target: rooms.Target{To: to, Except: []rooms.Room{room("excepted")}}, Position: at, Earlier: slices.Clip(earlier)}
		earlier = append(earlier, Copy{at, to})
	}
	// A bit for each copy says whether the member was in its room, and n bits higher whether it was in
	// the excepted one.
	taken := func(stays int) (index int) {
		in := func(r rooms.Room, at Position) bool {
			if r == room("excepted") {
				return stays>>n>>at.Partition&1 > 0
			}
			return stays>>at.Partition&1 > 0
		}
		index = n
		for i, c := range copies {
			excepted := in(room("excepted"), c.Position)
			switch {
			case !c.For(in):
			case index < n || excepted:
				t.Fatalf("stays %06b: takes copy %d, and copy %d (excepted: %v)", stays, index, i, excepted)
			default:
				index = i
			}
		}
		return index
	}
	for was := range 1 << (2 * n) {
		for joined := range 1 << (2 * n) {
			before, after := taken(was), taken(was|joined)
			if before < after && after < n {
				t.Fatalf("stays %06b and then %06b: takes copy %d and then %d", was, was|joined, before, after)
			}
		}
	}
}

func TestMergeUnitesCopies(t *testing.T) {
	at := func(ms uint64, names ...string) *Event {
		e := &Event{Position: Position{Ms: ms}, Data: []byte(fmt.Sprint(ms))}
		for _, n := range names {
			e.Target.To = append(e.Target.To, room(n))
		}
		return e
	}
	first := at(1, "r")
	got := ""
	for e := range Merge([][]*Event{{first, at(3, "r")}, {at(1, "s"), at(2, "s")}, {at(1, "r"), at(3, "t", "u")}}) {
		var names []string
		for _, r := range e.Target.To {
			names = append(names, r.Name)
		}
		slices.Sort(names)
		got += fmt.Sprint(e.Position.Ms, names)
	}
	if want := "1 [r s]2 [s]3 [r t u]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(first.Target.To) != 1 {
		t.Errorf("an event of the parts has changed: %v", first.Target)
	}
}

func TestCheckSize(t *testing.T) {
	many := func(n int) []rooms.Room { return slices.Repeat([]rooms.Room{room("r")}, n) }
	for _, tt := range []struct {
		to, except, bytes int
		refused           bool
	}{
		{MaxRooms, 0, 1, false},
		{1, MaxRooms + 1, 1, false}, // everyone, but not the sender
		{2, MaxRooms + 1, 1, true},
		{MaxRooms + 3, 0, 1, true},
		{MaxRooms / 2, MaxRooms / 2, 1, false},
		{1, 0, MaxCopies + 1, false},
		{2, 0, MaxCopies / 2, false},
		{2, 0, MaxCopies/2 + 1, true},
	} {
		e := Event{Target: rooms.Target{To: many(tt.to), Except: many(tt.except)}, Attachments: [][]byte{make([]byte, tt.bytes)}}
		if err := e.CheckSize(); errors.Is(err, ErrTooLarge) != tt.refused || tt.refused != (err != nil) {
			t.Errorf("%+v: got %v", tt, err)
		}
	}
}
