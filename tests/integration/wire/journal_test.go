package wire

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// A journal holds what a server's application saw, for conversations to check.
type journal struct {
	mu      sync.Mutex
	lines   []string
	changed chan struct{} // closed and replaced with every line
}

func newJournal() *journal { return &journal{changed: make(chan struct{})} }

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
	close(j.changed)
	j.changed = make(chan struct{})
}

// await waits for a line and removes it, so that each line is seen once.
func (j *journal) await(match func(line string) bool) error {
	deadline := time.After(patience)
	for {
		j.mu.Lock()
		for i, line := range j.lines {
			if match(line) {
				j.lines = append(j.lines[:i], j.lines[i+1:]...)
				j.mu.Unlock()
				return nil
			}
		}
		seen, changed := strings.Join(j.lines, "\n"), j.changed
		j.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			return fmt.Errorf("the server has seen only:\n%s", seen)
		}
	}
}
