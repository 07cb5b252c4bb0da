package integration

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// TestStockRetries: a stock client with retries and ackTimeout that puts its events into "once" sends
// each of them once, in its order, while connections are cut and nodes are killed, with a recovered
// session or a new one.
func TestStockRetries(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ partitions, window string }{{"1", "2m"}, {"1", "0s"}, {"5", "2m"}} {
		t.Run(fmt.Sprintf("%s partitions, recovery window %s", tt.partitions, tt.window), func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, 2, "REJOIN_PARTITIONS="+tt.partitions, "REJOIN_RECOVERY_WINDOW="+tt.window, "REJOIN_REDIS_TIMEOUT=1s")
			a, b := c.nodes[0], c.nodes[1]
			way := startRelay(t, a.node)
			d := startDriver(t)
			ann := d.open("ann", newest, b.url(), transports["websocket"])
			ann.call("join", []string{"x", "y", "z"})
			bob := d.open("bob", newest, way.url(), map[string]any{"transports": []string{"websocket"}, "retries": 100, "ackTimeout": 1000})
			events := int(lasting(2000, 400))
			send := func(i int) []any {
				return []any{"once", fmt.Sprintf("3c1a4e1e-0b7f-4c55-%012d", i), "to", []string{"x", "y", "z"}, "news", i}
			}
			for i := range events {
				bob.emit(send(i)...)
			}
			for i := range events { // each once, in order
				if got := ann.next("news"); string(got.Args[0]) != fmt.Sprint(i) {
					t.Fatalf("got event %s, want %d", got.Args[0], i)
				}
				switch i {
				case events / 8, events * 7 / 8:
					way.cut()
				case events / 4, events * 3 / 4:
					way.move(b.public)
					a.kill()
					a.restart()
				case events / 2: // back to the restarted node
					way.move(a.public)
					way.cut()
				}
			}
			answer := bob.ask(send(events - 1)...)
			var again struct{ OK, Repeated bool }
			if len(answer) != 2 || string(answer[0]) != "null" || json.Unmarshal(answer[1], &again) != nil || !again.OK || !again.Repeated {
				t.Errorf("the last event again: %s", answer)
			}
			bob.ask("to", "x", "end")
			ann.next("end")
		})
	}
}

// TestStockRetriesWithoutAckTimeout: a stock client with retries and without ackTimeout takes the first
// argument of an ack for an error, and sends every event that is acked again. Inside once this does not
// matter.
func TestStockRetriesWithoutAckTimeout(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	d := startDriver(t)
	ann := d.open("ann", newest, c.nodes[0].url(), transports["websocket"])
	ann.call("join", "x")
	bob := d.open("bob", newest, c.nodes[0].url(), map[string]any{"transports": []string{"websocket"}, "retries": 2})
	bob.emit("to", "x", "thrice")
	for range 3 {
		ann.hears("thrice")
	}
	bob.emit("once", "3c1a4e1e-0b7f-4c55-9d5a-7f3f6f0f3a11", "to", "x", "single")
	bob.emit("once", "3c1a4e1e-0b7f-4c55-9d5a-7f3f6f0f3a12", "to", "x", "end")
	ann.hears("single")
	ann.hears("end")
	time.Sleep(300 * time.Millisecond) // for the tries of the last one
	ann.emit("self", "last")
	ann.hears("last")
}
