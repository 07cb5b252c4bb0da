package engineio

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// A logLimit limits a log line to one in ten seconds.
type logLimit struct {
	mu      sync.Mutex
	next    time.Time
	skipped int
}

// allow reports whether the line may be logged now, and how many lines were suppressed since
// the last one.
func (l *logLimit) allow() (skipped int, allowed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Before(l.next) {
		l.skipped++
		return 0, false
	}
	skipped = l.skipped
	l.next, l.skipped = now.Add(10*time.Second), 0
	return skipped, true
}

// tooLarge counts and logs a message that exceeds the maximum payload. size is its length in bytes
// if known, otherwise one more than the limit.
func (s *Server) tooLarge(transport, remote string, size int64) {
	s.counts.tooLarge.Add(1)
	if skipped, allowed := s.oversize.allow(); allowed {
		s.log.Warn("message exceeds the maximum payload",
			zap.String("transport", transport), zap.String("remote", remote),
			zap.Int64("at_least_bytes", size), zap.Int("max_payload", s.o.MaxPayload), zap.Int("not_logged", skipped))
	}
}
