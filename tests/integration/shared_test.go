package integration

import (
	"fmt"
	"testing"
)

// TestRecoveredSocketsShareTheirPackets: with several partitions, a recovered socket gets
// separate packets only until its node has received a probe of each, even if no event
// goes to any other partition. The offsets show this: shared packets have the same
// offset.
func TestRecoveredSocketsShareTheirPackets(t *testing.T) {
	t.Parallel()
	const clients = 5
	c := startCluster(t, 2, "REJOIN_PARTITIONS=5")
	var listeners []*listener
	connect := func() *listener {
		l := listen(c.nodes[0].node)
		t.Cleanup(l.Cut)
		if err := l.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		return l
	}
	first := connect() // which is not recovered
	for range clients {
		connect()
	}
	for _, l := range listeners[1:] {
		l.Cut()
		if err := l.Connect(t.Context()); err != nil || !l.Recovered() {
			t.Fatalf("recovered %v: %v", l.Recovered(), err)
		}
	}
	number := 0
	eventually(t, "recovered sockets have packets of their own", func() error {
		number++
		if _, err := call(t.Context(), first.Client, "all", "n", number); err != nil {
			return err
		}
		offsets := make(map[string]int)
		for _, l := range listeners {
			if _, err := l.all(t.Context(), number); err != nil {
				return err
			}
			offsets[l.Offset()]++
		}
		if len(offsets) > 1 {
			return fmt.Errorf("offsets of the event to all: %v", offsets)
		}
		return nil
	})
}
