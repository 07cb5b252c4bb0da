package socketio

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// countedHistory counts the reads of History.
type countedHistory struct {
	adapter.Adapter
	reads atomic.Int32
}

func (c *countedHistory) History(ctx context.Context, room rooms.Room, page adapter.Page) ([]adapter.Event, bool, error) {
	c.reads.Add(1)
	return c.Adapter.History(ctx, room, page)
}

// A call of History reads a bounded number of entries, although a backlog may have any number that
// are not events, and reports the bytes that it has read.
func TestHistoryOfOtherEntries(t *testing.T) {
	garbage := "[x" + strings.Repeat("y", 100) + "]"
	for _, c := range []struct {
		name    string
		events  int
		kind    uint8
		data    string
		entries int
		limit   int
		past    int
		more    bool
	}{
		{"no others", 1, kindJoin, "", 0, 50, 1, false},
		{"commands", 1, kindJoin, `["r"]`, 2000, 1, 1, false},
		{"commands, all wanted", 1, kindJoin, `["r"]`, 2000, 200, 1, false},
		{"more events than wanted", 10, kindJoin, `["r"]`, 3, 3, 3, true},
		{"many entries", 1, kindEmit, garbage, 20_000, 200, 0, true},
		{"many small entries", 1, kindEmit, "[x]", 20_000, 200, 0, true},
		{"large entries", 1, kindEmit, "[x" + strings.Repeat("y", HistoryBytes) + "]", 9, 200, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			node, err := adapter.NewMemory(adapter.MemoryOptions{BacklogLimit: 100_000}).Node("a")
			must(t, err)
			counted := &countedHistory{Adapter: node}
			n := start(t, Options{Adapter: counted})
			for i := range c.events {
				must(t, n.To("r").Emit(t.Context(), "n", i))
			}
			for range c.entries {
				_, err := node.Publish(t.Context(), adapter.Event{
					Kind: c.kind, Target: rooms.Target{To: []rooms.Room{rooms.InNamed("/", "r")}}, Data: []byte(c.data), Stored: true,
				})
				must(t, err)
			}
			bytes := 0
			ctx := adapter.OnRead(t.Context(), func(n int) { bytes += n })
			past, more, err := n.History(ctx, "r", "", c.limit)
			must(t, err)
			if len(past) != c.past || more != c.more {
				t.Errorf("%d events, more %v; want %d, %v", len(past), more, c.past, c.more)
			}
			if len(past) > 0 && string(past[len(past)-1].Raw(0)) != strconv.Itoa(c.events-1) {
				t.Errorf("the last event is %s", past[len(past)-1].Raw(0))
			}
			if reads := counted.reads.Load(); reads > historyReads {
				t.Errorf("got %d reads, want at most %d", reads, historyReads)
			}
			if least := min(c.entries, historyEntries) * (pastBytes + len(c.data)); bytes < min(least, HistoryBytes) || bytes > 4*HistoryBytes {
				t.Errorf("%d bytes reported", bytes)
			}
		})
	}
}
