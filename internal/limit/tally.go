package limit

import (
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"
)

// noticeInterval is the minimum interval between two log lines about the same limit.
const noticeInterval = 10 * time.Second

// A Tally counts and logs what the limits of a node refuse, drop, delay or close. Its methods are
// safe for concurrent use.
type Tally struct {
	log *zap.Logger

	mu      sync.Mutex
	counts  map[string]uint64
	notices map[string]notice // few: they are constants and addresses of ports
}

// A notice is the last log line about a limit.
type notice struct {
	next    time.Time // of the next line
	skipped int
}

// NewTally returns a tally in which every limit has zero.
func NewTally(log *zap.Logger) *Tally {
	t := &Tally{log: log, counts: make(map[string]uint64), notices: make(map[string]notice)}
	for _, name := range names {
		t.counts[name] = 0
	}
	return t
}

// Refused returns the counts by limit.
func (t *Tally) Refused() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.counts)
}

func (t *Tally) count(limit string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[limit]++
}

// Refuse counts and logs that a limit outside this package was reached, which must be one of its names.
func (t *Tally) Refuse(limit, text string, fields ...zap.Field) { t.refuse(limit, text, fields...) }

// refuse counts and logs that a limit was reached.
func (t *Tally) refuse(limit, text string, fields ...zap.Field) {
	t.count(limit)
	t.warn(limit, text, append(fields, zap.String("limit", limit))...)
}

// warn logs a line about something, at most once per interval, with the number of suppressed lines.
func (t *Tally) warn(about, text string, fields ...zap.Field) {
	now := time.Now()
	t.mu.Lock()
	n := t.notices[about]
	quiet, skipped := now.Before(n.next), n.skipped
	if quiet {
		n.skipped++
	} else {
		n = notice{next: now.Add(noticeInterval)}
	}
	t.notices[about] = n
	t.mu.Unlock()
	if !quiet {
		t.log.Warn(text, append(fields, zap.Int("not_logged", skipped))...)
	}
}
