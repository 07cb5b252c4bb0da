package redis

import (
	"strconv"
	"sync/atomic"
	"time"
)

// sizes remember the largest event that a node has come across while backlogs can hold
// it, so that reads of small ones need no script. Their zero value is ready for use.
//
// Of events in rooms that nobody on the node is in, Redis knows: the publish script keeps the size of
// the largest one, by periods of a backlog's life. Each look at the clock reads it, and what is
// replayed was published before such a look. Versions before 0.5 do not keep it.
type sizes struct {
	now, former atomic.Int64 // bytes, in this period and in the one before
	turned      atomic.Int64 // Unix time in nanoseconds
}

// leastEvent is the size from which on events are told apart, in bytes. Others take about as
// much with what Redis sends beside them.
const leastEvent = 256

func (s *sizes) saw(bytes int) {
	bytes = max(bytes, leastEvent)
	for known := s.now.Load(); int64(bytes) > known; known = s.now.Load() {
		if s.now.CompareAndSwap(known, int64(bytes)) {
			return
		}
	}
}

// read takes what Redis says.
func (s *sizes) read(byPeriod map[string]string) {
	s.saw(0)
	for _, size := range byPeriod {
		if n, err := strconv.Atoi(size); err == nil {
			s.saw(n)
		}
	}
}

// largest returns the size of the largest event that was seen within a time, and up to
// twice as long ago; 0 if none was.
func (s *sizes) largest(life time.Duration) int {
	now := time.Now().UnixNano()
	if turned := s.turned.Load(); now-turned >= int64(life) && s.turned.CompareAndSwap(turned, now) {
		s.former.Store(s.now.Swap(0))
	}
	return int(max(s.now.Load(), s.former.Load()))
}
