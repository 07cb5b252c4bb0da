package socketio

import (
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A gate that has lost events stays closed, for any reason to be shut: a later event would
// hide the loss from a recovery.
func TestASpilledGateStaysClosed(t *testing.T) {
	g := gate{shut: 1}
	n := &Namespace{srv: new(Server)}
	event := func() *delivery { return n.newDelivery(&adapter.Event{Data: make([]byte, 100)}) }
	for range 10 {
		g.hold(event(), 500)
	}
	g.open(func(*delivery) { t.Error("an event has passed") })
	if held, _ := g.hold(event(), 500); !held {
		t.Error("an event passes behind a loss")
	}
	g.restart()
	if held, _ := g.hold(event(), 500); held {
		t.Error("closed after a recovery has read the lost events")
	}
}
