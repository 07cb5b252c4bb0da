// Package inbox lets a test wait for items of other goroutines.
package inbox

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// An Inbox holds the items that were not taken yet, in order. It is safe for
// concurrent use.
type Inbox[T any] struct {
	mu      sync.Mutex
	items   []T
	changed chan struct{} // closed with the next item; nil unless awaited
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

// Take waits for the first item that matches and removes it. The error lists the
// other items.
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

// Drain removes and returns all items.
func (b *Inbox[T]) Drain() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items = nil
	return items
}

// String lists the items, one a line; only the last ones if they are many.
func (b *Inbox[T]) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var s strings.Builder
	for _, item := range b.items[max(0, len(b.items)-20):] {
		fmt.Fprintf(&s, "  %v\n", item)
	}
	return s.String()
}
