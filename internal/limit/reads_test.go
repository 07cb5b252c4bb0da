package limit

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestConcurrentReads(t *testing.T) {
	r := NewReads()
	r.wait = 10 * time.Millisecond
	var leave []func()
	for range concurrentHistory {
		done, err := r.Enter(t.Context(), "history")
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, done)
	}
	if _, err := r.Enter(t.Context(), "history"); !errors.Is(err, ErrBusy) {
		t.Errorf("one more: %v, want ErrBusy", err)
	}
	if got := r.Refused()[ConcurrentReads]; got != 1 {
		t.Errorf("%d refused, want 1", got)
	}
	if done, err := r.Enter(t.Context(), "members"); err != nil {
		t.Errorf("another kind: %v", err)
	} else {
		done()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Enter(ctx, "history"); err == nil {
		t.Error("entered after the end of the context")
	}

	r.wait = time.Hour
	entered := make(chan error)
	go func() {
		_, err := r.Enter(t.Context(), "history")
		entered <- err
	}()
	leave[0]()
	if err := <-entered; err != nil {
		t.Errorf("after one has left: %v", err)
	}
}
