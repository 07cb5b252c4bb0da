package redis

import (
	"fmt"
	"testing"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// TestDroppedMessagesAreCounted: messages of other nodes are dropped, and counted, if the node does not
// read its messages.
func TestDroppedMessagesAreCounted(t *testing.T) {
	server := redistest.Start(t)
	a, b := start(t, server.URL(), "a", Options{}), start(t, server.URL(), "b", Options{})
	for i := range inboxItems + 100 {
		if err := b.Send(deadline(t), "a", adapter.Message{Kind: 1, ID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "they are counted", func() bool { return a.Stats().MessagesDropped > 0 })
}
