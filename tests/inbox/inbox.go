// Package inbox lets a test wait for what others tell it.
package inbox

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// An Inbox holds what arrived and was not taken yet, in order. Any number of
// goroutines may put and take.
type Inbox[T any] struct {
	mu      sync.Mutex
	items   []T
	changed chan struct{} // closed with the next item; nil while nobody waits
}

// Put adds an item. It does not wait.
func (b *Inbox[T]) Put(item T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.items = append(b.items, item)
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// Take waits for the first item that matches and removes it. The error says what
// is there instead.
func (b *Inbox[T]) Take(patience time.Duration, match func(T) bool) (T, error) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		b.mu.Lock()
		if i := slices.IndexFunc(b.items, match); i >= 0 {
			item := b.items[i]
			b.items = slices.Delete(b.items, i, i+1)
			b.mu.Unlock()
			return item, nil
		}
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-deadline.C:
			var none T
			return none, fmt.Errorf("timed out after %v; got:\n%s", patience, b)
		}
	}
}

// Next waits for an item and removes it.
func (b *Inbox[T]) Next(patience time.Duration) (T, error) {
	return b.Take(patience, func(T) bool { return true })
}

// Drain removes and returns what is there.
func (b *Inbox[T]) Drain() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items = nil
	return items
}

// String shows what is there, an item a line, the last ones if they are many.
func (b *Inbox[T]) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var s strings.Builder
	for _, item := range b.items[max(0, len(b.items)-20):] {
		fmt.Fprintf(&s, "  %v\n", item)
	}
	return s.String()
}
