package adaptertest

import (
	"context"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A member may get an event before its publisher gets the receipt. The last such events
// count, too.
func TestEventsMayPrecedeTheirReceipts(t *testing.T) {
	replayAndFeedMeet(t, func(_ *testing.T, o Options) Cluster {
		return mutantCluster{adapter.NewMemory(adapter.MemoryOptions{BacklogLimit: o.BacklogLimit, BacklogTTL: o.BacklogTTL}), func(n *mutantNode) {
			n.publish = func(ctx context.Context, e adapter.Event) (adapter.Receipt, error) {
				r, err := n.Adapter.Publish(ctx, e)
				if e.Stored { // no marker of a member
					time.Sleep(time.Millisecond) // widens the window
				}
				return r, err
			}
		}}
	})
}
