package socketio

import (
	"context"
	"errors"
	"sync"
	"testing"
)

// A Close that gives up leaves connections open, which may start goroutines while it still
// waits.
func TestTasksStartAfterCloseGaveUp(t *testing.T) {
	n := start(t, Options{})
	handling, finish := make(chan struct{}), make(chan struct{})
	n.On("hang", func(context.Context, *Event) error {
		close(handling)
		<-finish
		return nil
	})
	w := n.client(t)
	w.write(`42["hang"]`)
	<-handling
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v, want %v", err, context.Canceled)
	}
	close(finish)
	for range 1000 { // some of them when nothing else runs
		var ran sync.WaitGroup
		ran.Add(1)
		n.spawn(ran.Done)
		ran.Wait()
	}
}
