package engineio

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// tooLargeInterval is the minimum interval between two log lines about messages that are too large.
const tooLargeInterval = 10 * time.Second

// An oversizeLog logs messages that exceed the maximum payload, at most once per interval, with the
// number of those that it has left out.
type oversizeLog struct {
	mu      sync.Mutex
	next    time.Time
	skipped int
}

// tooLarge counts and logs a message that exceeds the maximum payload. size is its length in bytes
// if known, otherwise one more than the limit.
func (s *Server) tooLarge(transport, remote string, size int64) {
	s.counts.tooLarge.Add(1)
	l := &s.oversize
	now := time.Now()
	l.mu.Lock()
	if now.Before(l.next) {
		l.skipped++
		l.mu.Unlock()
		return
	}
	skipped := l.skipped
	l.next, l.skipped = now.Add(tooLargeInterval), 0
	l.mu.Unlock()
	s.log.Warn("message exceeds the maximum payload",
		zap.String("transport", transport), zap.String("remote", remote),
		zap.Int64("at_least_bytes", size), zap.Int("max_payload", s.o.MaxPayload), zap.Int("not_logged", skipped))
}
