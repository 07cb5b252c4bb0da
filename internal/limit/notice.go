package limit

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// noticeInterval is the least time between two log lines with the same text.
const noticeInterval = 10 * time.Second

// A notice logs that a limit was reached, not more often than the interval, and how many
// times it has not.
type notice struct {
	log *zap.Logger

	mu    sync.Mutex
	texts map[string]*silence // few: they are constants
}

type silence struct {
	until   time.Time
	skipped int
}

func (n *notice) warn(text string, fields ...zap.Field) {
	now := time.Now()
	n.mu.Lock()
	s := n.texts[text]
	if s == nil {
		if n.texts == nil {
			n.texts = make(map[string]*silence)
		}
		s = new(silence)
		n.texts[text] = s
	}
	if now.Before(s.until) {
		s.skipped++
		n.mu.Unlock()
		return
	}
	skipped := s.skipped
	s.until, s.skipped = now.Add(noticeInterval), 0
	n.mu.Unlock()
	n.log.Warn(text, append(fields, zap.Int("not_logged", skipped))...)
}
