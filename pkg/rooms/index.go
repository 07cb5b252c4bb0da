package rooms

import (
	"hash/maphash"
	"iter"
	"sync"
)

// shards is the number of locks that the rooms of an Index share.
const shards = 64

// An Index holds the members of every room of one node. The zero Index is empty and ready to use;
// it must not be copied. All methods are safe for concurrent use.
//
// Reads use a snapshot: iterating over it holds no lock, so joins and leaves never wait for a
// fan-out. A member that is in the room throughout is seen once; one that joins or leaves meanwhile
// may or may not be seen. A room exists while it has members, and costs nothing afterwards.
type Index[M comparable] struct {
	shards [shards]shard[M]
}

// A shard holds some of the rooms. A room is created, changed and dropped under the lock of its
// shard, so a member cannot join a room that is being dropped.
type shard[M comparable] struct {
	mu   sync.Mutex
	sets map[Room]*set[M]
}

// Add adds m to a room and reports whether it was absent.
func (x *Index[M]) Add(room Room, m M) bool {
	sh := x.shard(room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.sets[room]
	if s == nil {
		if sh.sets == nil {
			sh.sets = make(map[Room]*set[M])
		}
		s = newSet[M]()
		sh.sets[room] = s
	}
	return s.add(m)
}

// Remove removes m from a room and reports whether it was present.
func (x *Index[M]) Remove(room Room, m M) bool {
	sh := x.shard(room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.sets[room]
	if s == nil || !s.remove(m) {
		return false
	}
	if s.n == 0 {
		delete(sh.sets, room)
	}
	return true
}

// Len returns the number of members of a room.
func (x *Index[M]) Len(room Room) int {
	sh := x.shard(room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.sets[room]; s != nil {
		return s.n
	}
	return 0
}

// Members returns a room's members at the time of the call, in no order.
func (x *Index[M]) Members(room Room) iter.Seq[M] {
	v := x.view(room)
	return func(yield func(M) bool) { v.all(yield) }
}

// Candidates returns the members of any room in t.To at the time of the call, each once and in no
// order. It does not apply t.Except: the caller calls [Target.Match] for each of them. The rooms
// are examined one after another, so a member that moves between two of them during the call may be
// missed.
func (x *Index[M]) Candidates(t Target) iter.Seq[M] {
	if len(t.To) == 1 {
		return x.Members(t.To[0])
	}
	var views []view[M]
	for _, room := range t.To {
		if v := x.view(room); len(v) > 0 {
			views = append(views, v)
		}
	}
	if len(views) > manyRooms {
		return distinct(views)
	}
	return func(yield func(M) bool) {
		for i, v := range views {
			first := func(m M) bool {
				return seen(views[:i], m) || yield(m)
			}
			if !v.all(first) {
				return
			}
		}
	}
}

// manyRooms is the number of rooms up to which all are searched for each candidate. With more rooms
// the candidates are remembered, so that the work grows only with their number.
const manyRooms = 8

// distinct returns the members of many rooms, each once.
func distinct[M comparable](views []view[M]) iter.Seq[M] {
	return func(yield func(M) bool) {
		yielded := make(map[M]struct{})
		first := func(m M) bool {
			if _, ok := yielded[m]; ok {
				return true
			}
			yielded[m] = struct{}{}
			return yield(m)
		}
		for _, v := range views {
			if !v.all(first) {
				return
			}
		}
	}
}

func seen[M comparable](views []view[M], m M) bool {
	if len(views) == 0 {
		return false
	}
	h := maphash.Comparable(seed, m)
	for _, v := range views {
		if v.has(m, h) {
			return true
		}
	}
	return false
}

// Rooms returns every room that has members, with their number, in no order. It examines a part of
// the rooms at a time: a room that exists throughout is seen once.
func (x *Index[M]) Rooms() iter.Seq2[Room, int] {
	return func(yield func(Room, int) bool) {
		for i := range x.shards {
			for room, n := range x.shards[i].sizes() {
				if !yield(room, n) {
					return
				}
			}
		}
	}
}

func (sh *shard[M]) sizes() map[Room]int {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sizes := make(map[Room]int, len(sh.sets))
	for room, s := range sh.sets {
		sizes[room] = s.n
	}
	return sizes
}

func (x *Index[M]) view(room Room) view[M] {
	sh := x.shard(room)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.sets[room]; s != nil {
		return s.view()
	}
	return nil
}

func (x *Index[M]) shard(room Room) *shard[M] {
	return &x.shards[maphash.Comparable(seed, room)%shards]
}
