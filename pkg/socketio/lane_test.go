package socketio

import (
	"slices"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A stand-in precedes its command, and nothing that was published after the command comes between the
// two: the cursor before the stand-in must not cover the events that the stand-in makes due.
func TestStandInTakesTheTurnOfItsCommand(t *testing.T) {
	at := func(partition uint16, seq uint64) adapter.Position {
		return adapter.Position{Ms: 100, Seq: seq, Partition: partition}
	}
	head := adapter.NewCursor("e", 1, []adapter.Position{at(0, 6), at(1, 3)})
	for name, read := range map[string]bool{"the command is read": true, "the command is not read": false} {
		t.Run(name, func(t *testing.T) {
			command := adapter.Event{
				Kind: kindJoin, Position: at(0, 7), Data: []byte(`["r"]`),
				Attachments: [][]byte{[]byte(head.String()), []byte(head.String())},
			}
			var all lanes
			want := []adapter.Event{{Kind: kindMarker, Position: at(0, 7)}}
			if read {
				all.queue(&command)
				want = append(want, adapter.Event{Kind: kindJoin, Position: at(0, 7)})
			}
			want = append(want, adapter.Event{Position: at(1, 4)}, adapter.Event{Position: at(1, 5)})
			for _, seq := range []uint64{4, 5} {
				all.queue(&adapter.Event{Position: at(1, seq)})
			}
			all.standIn(at(0, 7), head)
			var got []adapter.Event
			for len(all) > 0 {
				ev := all.take()
				got = append(got, adapter.Event{Kind: ev.Kind, Position: ev.Position})
			}
			same := func(a, b adapter.Event) bool { return a.Kind == b.Kind && a.Position == b.Position }
			if !slices.EqualFunc(got, want, same) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}
