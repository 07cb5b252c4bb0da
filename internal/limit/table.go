package limit

import (
	"sync"

	"golang.org/x/time/rate"
)

// perSecond returns a limiter of n in a second, all of which may come at once; one that
// allows everything if n is 0.
func perSecond(n int) *rate.Limiter {
	if n == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(n), n)
}

// leastSweep is how many entries a table has before it is first swept.
const leastSweep = 1024

// A table holds the state of those who have used some of what they may. The others
// are as good as new and are forgotten, in sweeps whose cost is spread over the
// entries that were added since the last: so it has at most twice as many entries
// as there are in use, and leastSweep.
type table[K comparable, V any] struct {
	fresh func() V
	idle  func(v V) bool // as good as fresh

	mu      sync.Mutex
	entries map[K]V
	sweepAt int
}

func newTable[K comparable, V any](fresh func() V, idle func(V) bool) *table[K, V] {
	return &table[K, V]{fresh: fresh, idle: idle, entries: make(map[K]V), sweepAt: leastSweep}
}

// with calls f with the state of a key, and with the table's lock held.
func (t *table[K, V]) with(key K, f func(V)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, known := t.entries[key]
	if !known {
		if len(t.entries) >= t.sweepAt {
			t.sweep()
		}
		v = t.fresh()
		t.entries[key] = v
	}
	f(v)
}

// sweep forgets what is idle. t.mu is held.
func (t *table[K, V]) sweep() {
	for key, v := range t.entries {
		if t.idle(v) {
			delete(t.entries, key)
		}
	}
	t.sweepAt = max(leastSweep, 2*len(t.entries))
}
