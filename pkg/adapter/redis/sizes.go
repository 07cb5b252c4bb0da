package redis

import (
	"strconv"
	"sync/atomic"
	"time"
)

// sizes holds the size of the largest event that a node has seen and that backlogs can still
// contain, so that reads of small events need no script. The zero value is ready for use.
//
// Redis knows the events in rooms without members on the node: the publish script keeps the size of
// the largest one, by periods of a backlog's lifetime. Each read of the clock also reads that size,
// and everything that is replayed was published before such a read. Versions before 0.5 do not
// maintain it.
type sizes struct {
	now, former atomic.Int64 // bytes, in this period and in the one before
	turned      atomic.Int64 // Unix time in nanoseconds
}

// leastEvent is the minimum size that is recorded, in bytes. Smaller events take about as much with
// Redis' overhead.
const leastEvent = 256

func (s *sizes) saw(bytes int) {
	bytes = max(bytes, leastEvent)
	for known := s.now.Load(); int64(bytes) > known; known = s.now.Load() {
		if s.now.CompareAndSwap(known, int64(bytes)) {
			return
		}
	}
}

// read takes the sizes that Redis keeps.
func (s *sizes) read(byPeriod map[string]string) {
	s.saw(0)
	for _, size := range byPeriod {
		if n, err := strconv.Atoi(size); err == nil {
			s.saw(n)
		}
	}
}

// largest returns the size of the largest event that was seen within backlogTTL, or up to twice as long
// ago; 0 if none was.
func (s *sizes) largest(backlogTTL time.Duration) int {
	now := time.Now().UnixNano()
	if turned := s.turned.Load(); now-turned >= int64(backlogTTL) && s.turned.CompareAndSwap(turned, now) {
		s.former.Store(s.now.Swap(0))
	}
	return int(max(s.now.Load(), s.former.Load()))
}
