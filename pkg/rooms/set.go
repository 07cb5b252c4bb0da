package rooms

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

// load is the average number of members of a bucket at which the table grows. A join to a set of n
// during an iteration copies one bucket and a table of n/load pointers, so load is near the square
// root of the sizes that matter.
const load = 128

var seed = maphash.MakeSeed()

// A set is one room's members, as a hash table that can be iterated while it changes. view returns
// the table itself. Later changes copy the parts that they touch, once for each view, instead of
// changing them in place. The table grows and shrinks by one bucket at a time (linear hashing), so
// that no single join ever moves more than a bucket.
//
// A set is not safe for concurrent use; its views are.
type set[M comparable] struct {
	n     int
	table view[M]

	// gen grows with every view. A part with the current gen was made since the last view, is
	// reachable only from here, and may be changed in place.
	gen      uint64
	tableGen uint64
}

// A view is a snapshot of a set. It never changes.
type view[M comparable] []*bucket[M]

type bucket[M comparable] struct {
	gen     uint64
	members []M
}

// newSet returns an empty set. The memory of its first member is allocated with it, because most
// rooms have few members and clients join hundreds of them.
func newSet[M comparable]() *set[M] {
	first := new(struct {
		set     set[M]
		bucket  bucket[M]
		table   [1]*bucket[M]
		members [1]M
	})
	first.bucket.members = first.members[:0]
	first.table[0] = &first.bucket
	first.set.table = first.table[:]
	return &first.set
}

func (s *set[M]) view() view[M] {
	s.gen++
	return s.table
}

// add adds m and reports whether it was absent.
func (s *set[M]) add(m M) bool {
	h := maphash.Comparable(seed, m)
	if s.table.has(m, h) {
		return false
	}
	if s.n == len(s.table)*load {
		s.split()
	}
	b := s.own(s.table.at(h))
	b.members = append(b.members, m)
	s.n++
	return true
}

// remove removes m and reports whether it was present.
func (s *set[M]) remove(m M) bool {
	h := maphash.Comparable(seed, m)
	if !s.table.has(m, h) {
		return false
	}
	b := s.own(s.table.at(h))
	i, last := slices.Index(b.members, m), len(b.members)-1
	b.members[i] = b.members[last]
	clear(b.members[last:]) // members that left are not kept alive
	b.members = b.members[:last]
	s.n--
	// Well below the point at which it was split, so that a room near that size does not split and
	// merge all the time.
	if len(s.table) > 1 && s.n < len(s.table)*load/4 {
		s.merge()
	}
	return true
}

// split appends a bucket and moves to it, from the one that held them so far,
// the members that belong there now.
func (s *set[M]) split() {
	s.ownTable()
	added := &bucket[M]{gen: s.gen}
	s.table = append(s.table, added)
	last := len(s.table) - 1
	if last == 0 {
		return
	}
	from := s.own(sibling(last))
	stay := from.members[:0]
	for _, m := range from.members {
		if s.table.at(maphash.Comparable(seed, m)) == last {
			added.members = append(added.members, m)
		} else {
			stay = append(stay, m)
		}
	}
	clear(from.members[len(stay):])
	from.members = stay
}

// merge undoes the last split.
func (s *set[M]) merge() {
	s.ownTable()
	last := len(s.table) - 1
	into := s.own(sibling(last))
	into.members = append(into.members, s.table[last].members...)
	s.table[last] = nil
	s.table = s.table[:last]
}

// own makes the i-th bucket writable and returns it.
func (s *set[M]) own(i int) *bucket[M] {
	b := s.table[i]
	if b.gen != s.gen {
		s.ownTable()
		b = &bucket[M]{gen: s.gen, members: slices.Clone(b.members)}
		s.table[i] = b
	}
	return b
}

func (s *set[M]) ownTable() {
	if s.tableGen != s.gen {
		s.table = slices.Clone(s.table)
		s.tableGen = s.gen
	}
}

// at returns the index of the bucket for a hash: its lowest bits, as many as needed to number all
// buckets, or one fewer if that bucket does not exist yet.
func (v view[M]) at(hash uint64) int {
	mask := 1<<bits.Len(uint(len(v)-1)) - 1
	i := int(hash) & mask
	if i >= len(v) {
		i &= mask >> 1
	}
	return i
}

// sibling returns the bucket that the i-th one was split from.
func sibling(i int) int { return i &^ (1 << (bits.Len(uint(i)) - 1)) }

func (v view[M]) has(m M, hash uint64) bool {
	return len(v) > 0 && slices.Contains(v[v.at(hash)].members, m)
}

// all calls yield for each member until it returns false, and reports whether it never returned
// false.
func (v view[M]) all(yield func(M) bool) bool {
	for _, b := range v {
		for _, m := range b.members {
			if !yield(m) {
				return false
			}
		}
	}
	return true
}
