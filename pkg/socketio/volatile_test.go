package socketio

import (
	"fmt"
	"testing"
)

// A client that reads gets every volatile event of a 60 Hz stream with ten events in
// each tick, as from Node.js.
func TestVolatileReachesReadingClient(t *testing.T) {
	n := start(t, Options{})
	w := n.client(t)
	for tick := range 60 {
		for i := range 10 {
			must(t, n.Volatile().Emit(t.Context(), "position", i, tick))
		}
		for i := range 10 {
			w.want(fmt.Sprintf(`["position",%d,%d]`, i, tick))
		}
	}
	if dropped := n.Stats().VolatileDropped; dropped != 0 {
		t.Errorf("got %d volatile events dropped, want 0", dropped)
	}
}
