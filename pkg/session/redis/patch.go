package redis

import (
	"bytes"
	"context"
	"sync"
	"time"
)

const (
	// patchFrom is the size of a session from which its writes are sent as the difference to the
	// value in Redis. Below it a whole value costs less.
	patchFrom = 4 << 10
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

// known remembers the values of large sessions in Redis, as written by this store. It may be wrong,
// because Redis compares heads before it applies a patch.
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
	for other, v := range k.values { // any: a session whose value is forgotten is written whole once
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
	args := difference(old, value)
	if args == nil {
		return false, nil
	}
	it := patch.give(ctx, key, asked, ttl, append([]any{old[:headSize]}, args...)...)
	if err := s.do(ctx, len(value), it); err != nil { // which is held until it is sent
		return true, err
	}
	switch verdict, _, err := it.answer(); {
	case err != nil:
		return true, err
	case verdict == fenced:
		return false, nil
	case verdict == late:
		return true, errLate
	}
	return true, nil
}

// difference returns the arguments of patch that turn old into value, or nil if they carry more
// than half of the value. Rooms come last in a value, after their number: differences are searched
// before the rooms and among them.
func difference(old, value []byte) (args []any) {
	was, is := roomsAt(old), roomsAt(value)
	if was < 0 || is < 0 {
		return nil
	}
	args = []any{1, 0, value[:headSize]}
	size := headSize
	for _, part := range [...]struct{ from, to, newFrom, newTo int }{
		{headSize, was, headSize, is}, {was, len(old), is, len(value)},
	} {
		a, b := old[part.from:part.to], value[part.newFrom:part.newTo]
		same := sharedBytes(a, b)
		end := sharedEnd(a[same:], b[same:])
		literal := b[same : len(b)-end]
		size += len(literal)
		args = append(args, part.from+1, part.from+same, literal, part.to-end+1, part.to, "")
	}
	if size > len(value)/2 {
		return nil
	}
	return args
}

// roomsAt returns the offset of a value's rooms, after their number, or -1.
func roomsAt(value []byte) int {
	if len(value) <= headSize {
		return -1
	}
	d := decoder{rest: value[headSize+1:]}
	for range 6 { // five strings and the data
		n := d.number()
		if n > uint64(len(d.rest)) {
			return -1
		}
		d.rest = d.rest[n:]
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
	n, most := 0, min(len(a), len(b))
	for n+compared <= most && bytes.Equal(a[n:n+compared], b[n:n+compared]) {
		n += compared
	}
	for n < most && a[n] == b[n] {
		n++
	}
	return n
}

func sharedEnd(a, b []byte) int {
	n, most := 0, min(len(a), len(b))
	a, b = a[len(a)-most:], b[len(b)-most:]
	for n+compared <= most && bytes.Equal(a[most-n-compared:most-n], b[most-n-compared:most-n]) {
		n += compared
	}
	for n < most && a[most-1-n] == b[most-1-n] {
		n++
	}
	return n
}
