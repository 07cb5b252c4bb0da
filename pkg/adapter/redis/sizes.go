package redis

import (
	"sync/atomic"
	"time"
)

// sizes remember the largest event that a node has come across while backlogs can hold
// it, so that reads of small ones need no script. Their zero value is ready for use.
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

// largest returns the size of the largest event that was seen within a time, and up to
// twice as long ago; 0 if none was.
func (s *sizes) largest(life time.Duration) int {
	now := time.Now().UnixNano()
	if turned := s.turned.Load(); now-turned >= int64(life) && s.turned.CompareAndSwap(turned, now) {
		s.former.Store(s.now.Swap(0))
	}
	return int(max(s.now.Load(), s.former.Load()))
}
