package socketio

import (
	"context"
	"errors"
	"testing"
)

// Sockets with many rooms take turns, for as long as they are patient; those with few do not.
func TestTurns(t *testing.T) {
	turns := make(turns, 1)
	ended, err := turns.take(t.Context(), turnRooms)
	must(t, err)
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.take(impatient, turnRooms); !errors.Is(err, context.Canceled) {
		t.Errorf("a second turn: %v, want it to wait", err)
	}
	few, err := turns.take(impatient, turnRooms-1)
	must(t, err)
	few()
	next := make(chan error, 1)
	go func() {
		_, err := turns.take(t.Context(), turnRooms)
		next <- err
	}()
	ended()
	ended() // which changes nothing
	must(t, <-next)
	if _, err := turns.take(impatient, turnRooms); !errors.Is(err, context.Canceled) {
		t.Errorf("a third turn: %v, want it to wait", err)
	}
}
