package socketio

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// Small acks of several namespaces that become due together do not cut a client that reads: those that
// wait take the memory of their packets, and no goroutine each.
func TestSmallAcksThatAreDueTogether(t *testing.T) {
	const spaces, events = 16, 60
	n, feed := startDelayed(t, Options{AckTimeout: time.Hour, Engine: engineio.Options{SendQueueBytes: 64 << 10}})
	var acked atomic.Int64
	w := n.dial(t)
	for i := range spaces {
		name := fmt.Sprintf("/%d", i)
		n.Of(name).On("state", func(ctx context.Context, e *Event) error {
			defer acked.Add(1)
			if e.ackID == "1" {
				if err := e.Socket().Emit(ctx, "state"); err != nil {
					return err
				}
			}
			return e.Ack(strings.Repeat("a", 200))
		})
		w.connect(name, "")
	}
	release := feed.shut()
	for i := range spaces {
		for k := range events {
			w.write(fmt.Sprintf(`42/%d,%d["state"]`, i, k+1))
		}
	}
	eventually(t, "all acks are held", func() bool { return acked.Load() == spaces*events })
	release()
	acks := 0
	for acks < spaces*events {
		if strings.HasPrefix(w.next(), "43") {
			acks++
		}
	}
}
