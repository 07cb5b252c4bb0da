package limit

import "sync"

// leastSweep is the number of entries from which a table is swept.
const leastSweep = 1024

// A table holds the state of keys that have used some of their limits. Unused keys are forgotten,
// in sweeps whose cost is spread over the entries that were added since the last sweep. So the
// table has at most twice as many entries as are in use, plus leastSweep.
type table[K comparable, V any] struct {
	idle func(*V) bool // equivalent to a new one

	mu      sync.Mutex
	entries map[K]*V
	sweepAt int
}

func newTable[K comparable, V any](idle func(*V) bool) *table[K, V] {
	return &table[K, V]{idle: idle, entries: make(map[K]*V), sweepAt: leastSweep}
}

// with calls f with the state of a key. The table's lock is held.
func (t *table[K, V]) with(key K, f func(*V)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, known := t.entries[key]
	if !known {
		if len(t.entries) >= t.sweepAt {
			t.sweep()
		}
		v = new(V)
		t.entries[key] = v
	}
	f(v)
}

// sweep forgets idle entries. t.mu is held.
func (t *table[K, V]) sweep() {
	for key, v := range t.entries {
		if t.idle(v) {
			delete(t.entries, key)
		}
	}
	t.sweepAt = max(leastSweep, 2*len(t.entries))
}
