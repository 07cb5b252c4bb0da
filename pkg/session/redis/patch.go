package redis

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/session"
)

const (
	// patchFrom is the size of a session from which its writes are sent as the difference to the
	// value in Redis. Below it a whole value costs less.
	patchFrom = 1 << 10
	// smallStretch is the number of bytes that are sent without searching them for rooms that have
	// not changed.
	smallStretch = 512
	maxStretches = 64
	stretchSize  = 40 // approximate size of a kept stretch in a command
	// knownBytes bounds the remembered values from which differences are computed.
	knownBytes = 32 << 20
)

// patch: asked, ttl, the head that Redis must have, then repeatedly the start and end of a kept
// range of the old value, counted from 1, and the bytes that follow it.
var patch = newScript(life + `
if redis.call('GETRANGE', KEYS[1], 0, 31) ~= ARGV[3] then return {1, now} end
local old, parts = redis.call('GET', KEYS[1]), {}
for i = 4, #ARGV, 3 do
	parts[#parts + 1] = string.sub(old, ARGV[i], ARGV[i + 1])
	parts[#parts + 1] = ARGV[i + 2]
end
redis.call('SET', KEYS[1], table.concat(parts), 'PX', life)
return {2, now}`)

// known remembers the values of large sessions in Redis, as written by this store. It may be out of
// date, because Redis compares heads before it applies a patch.
type known struct {
	mu     sync.Mutex
	values map[string][]byte
	bytes  int
}

func (k *known) get(key string) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.values[key]
}

// put remembers a value, or forgets the key's if value is nil.
func (k *known) put(key string, value []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old, ok := k.values[key]; ok {
		k.bytes -= len(old)
		delete(k.values, key)
	}
	if value == nil {
		return
	}
	if k.values == nil {
		k.values = make(map[string][]byte)
	}
	k.values[key] = value
	k.bytes += len(value)
	for other, v := range k.values { // in random order: a session whose value is forgotten is written whole once
		if k.bytes <= knownBytes {
			break
		}
		if other != key {
			k.bytes -= len(v)
			delete(k.values, other)
		}
	}
}

// wrote remembers the result of a write, if it is large and has succeeded.
func (s *Store) wrote(key string, value []byte, err error) {
	if err != nil || len(value) < s.patchFrom {
		value = nil
	}
	s.known.put(key, value)
}

// tryPatch writes a value as the difference to an older one. It reports false if that is not
// worthwhile, or if Redis has another value than the older one.
func (s *Store) tryPatch(ctx context.Context, key string, asked time.Time, ttl time.Duration, old, value []byte) (bool, error) {
	if len(value) < s.patchFrom || len(old) <= headSize {
		return false, nil
	}
	args, size := difference(old, value)
	if args == nil {
		return false, nil
	}
	session.CountWrite(ctx, size+commandSize)
	it := patch.give(ctx, key, asked, ttl, append([]any{old[:headSize]}, args...)...)
	err := s.write(ctx, len(value), it) // the value is held until it is sent
	if errors.Is(err, session.ErrFenced) {
		return false, nil
	}
	return true, err
}

// difference returns the arguments of patch that turn old into value, and their size, or nil if they
// carry more than half of the value. Rooms come last in a value, after their number: differences are
// searched before the rooms and among them.
func difference(old, value []byte) (args []any, size int) {
	was, is := roomsAt(old), roomsAt(value)
	if was < 0 || is < 0 {
		return nil, 0
	}
	e := edit{args: []any{1, 0, value[:headSize]}, size: headSize}
	e.stretch(old[:was], headSize, value[headSize:is])
	e.stretch(old, was, value[is:])
	if e.size > len(value)/2 {
		return nil, 0
	}
	return e.args, e.size + len(e.args)/3*stretchSize
}

// An edit is a list of arguments of patch.
type edit struct {
	args []any
	size int // of the bytes that it carries
}

// keep adds old[from:to].
func (e *edit) keep(from, to int) { e.args = append(e.args, from+1, to, "") }

// add adds bytes.
func (e *edit) add(b []byte) {
	e.args[len(e.args)-1] = b
	e.size += len(b)
}

// stretch adds the edits that turn old[from:] into value: one if they differ in one place, or room
// by room if in several.
func (e *edit) stretch(old []byte, from int, value []byte) {
	a := old[from:]
	same := sharedBytes(a, value)
	end := sharedEnd(a[same:], value[same:])
	if changed := value[same : len(value)-end]; len(changed) <= smallStretch || !e.rooms(old, from, value) {
		e.keep(from, from+same)
		e.add(changed)
		e.keep(len(old)-end, len(old))
	}
}

// rooms adds the edits that turn old[from:], a list of rooms, into another list, value. Rooms in
// both lists are kept, in any order. It reports false, and adds nothing, if there are too many
// differences.
func (e *edit) rooms(old []byte, from int, value []byte) bool {
	was, is := roomOffsets(old[from:]), roomOffsets(value)
	if was == nil || is == nil {
		return false
	}
	in := func(b []byte, offsets []int, i int) []byte { return b[offsets[i]:offsets[i+1]] }
	alike := func(i, j int) bool { return bytes.Equal(in(old[from:], was, i), in(value, is, j)) }
	firstWas, firstIs, lastWas, lastIs := 0, 0, len(was)-1, len(is)-1
	for firstWas < lastWas && firstIs < lastIs && alike(firstWas, firstIs) {
		firstWas, firstIs = firstWas+1, firstIs+1
	}
	for firstWas < lastWas && firstIs < lastIs && alike(lastWas-1, lastIs-1) {
		lastWas, lastIs = lastWas-1, lastIs-1
	}
	seed := maphash.MakeSeed()
	at := make(map[uint64]int, lastWas-firstWas)
	for i := firstWas; i < lastWas; i++ {
		at[maphash.Bytes(seed, in(old[from:], was, i))] = i
	}
	before := *e
	e.keep(from, from+was[firstWas])
	written := firstIs // the rooms in front of it are done
	for j := firstIs; j < lastIs; {
		i, known := at[maphash.Bytes(seed, in(value, is, j))]
		if !known || !alike(i, j) {
			j++
			continue
		}
		e.add(value[is[written]:is[j]])
		begin := i
		for i < lastWas && j < lastIs && alike(i, j) {
			i, j = i+1, j+1
		}
		e.keep(from+was[begin], from+was[i])
		written = j
	}
	e.add(value[is[written]:is[lastIs]])
	e.keep(from+was[lastWas], len(old))
	if len(e.args) > len(before.args)+3*maxStretches {
		*e = before
		return false
	}
	return true
}

// roomOffsets returns where each room of a list begins, and then its end, or nil if it is not a list
// of rooms.
func roomOffsets(list []byte) []int {
	d := decoder{rest: list}
	var offsets []int
	for len(d.rest) > 0 {
		offsets = append(offsets, len(list)-len(d.rest))
		d.byte()
		d.skip()
		d.number()
		d.skip()
		d.skip()
	}
	if d.failed {
		return nil
	}
	return append(offsets, len(list))
}

// roomsAt returns the offset of a value's rooms, after their number, or -1.
func roomsAt(value []byte) int {
	if len(value) <= headSize {
		return -1
	}
	d := decoder{rest: value[headSize+1:]}
	for range 6 { // five strings and the data
		d.skip()
	}
	d.number()
	if d.failed {
		return -1
	}
	return len(value) - len(d.rest)
}

// compared is the number of bytes compared in one step, which is much faster than single bytes.
const compared = 256

// sharedBytes returns the length of the common prefix of two slices, and sharedEnd that of their
// common suffix.
func sharedBytes(a, b []byte) int {
	n, maximum := 0, min(len(a), len(b))
	for n+compared <= maximum && bytes.Equal(a[n:n+compared], b[n:n+compared]) {
		n += compared
	}
	for n < maximum && a[n] == b[n] {
		n++
	}
	return n
}

func sharedEnd(a, b []byte) int {
	n, maximum := 0, min(len(a), len(b))
	a, b = a[len(a)-maximum:], b[len(b)-maximum:]
	for n+compared <= maximum && bytes.Equal(a[maximum-n-compared:maximum-n], b[maximum-n-compared:maximum-n]) {
		n += compared
	}
	for n < maximum && a[maximum-1-n] == b[maximum-1-n] {
		n++
	}
	return n
}
