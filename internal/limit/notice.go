package limit

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// noticeInterval is the minimum interval between two log lines about the same limit.
const noticeInterval = 10 * time.Second

// A notice logs that a limit was reached, at most once per interval, with the number of suppressed
// lines.
type notice struct {
	log *zap.Logger

	mu    sync.Mutex
	about map[string]*silence // few: they are constants
}

type silence struct {
	until   time.Time
	skipped int
}

func (n *notice) warn(about, text string, fields ...zap.Field) {
	now := time.Now()
	n.mu.Lock()
	s := n.about[about]
	if s == nil {
		if n.about == nil {
			n.about = make(map[string]*silence)
		}
		s = new(silence)
		n.about[about] = s
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
