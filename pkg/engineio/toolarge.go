package engineio

import (
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// A logLimit limits a log line to one in ten seconds.
type logLimit struct {
	mu      sync.Mutex
	next    time.Time
	skipped int
}

// write logs the line if it may be logged now, with the number of those that were not since the last.
func (l *logLimit) write(log *zap.Logger, level zapcore.Level, text string, fields ...zap.Field) {
	l.mu.Lock()
	now, skipped := time.Now(), l.skipped
	quiet := now.Before(l.next)
	if quiet {
		l.skipped++
	} else {
		l.next, l.skipped = now.Add(10*time.Second), 0
	}
	l.mu.Unlock()
	if !quiet {
		log.Log(level, text, append(fields, zap.Int("not_logged", skipped))...)
	}
}

// tooLarge counts and logs a message that exceeds the maximum payload. size is its length in bytes
// if known, otherwise one more than the limit.
func (s *Server) tooLarge(transport, remote string, size int64) {
	s.counts.tooLarge.Add(1)
	s.oversize.write(s.log, zap.WarnLevel, "message exceeds the maximum payload", zap.String("transport", transport), zap.String("remote", remote),
		zap.Int64("at_least_bytes", size), zap.Int("max_payload", s.o.MaxPayload))
}
