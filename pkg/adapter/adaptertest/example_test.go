package adaptertest_test

import (
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/adaptertest"
)

// The test of an implementation with one order of events. Use RunPartitions for several.
func ExampleRun() {
	newCluster := func(_ *testing.T, o adaptertest.Options) adaptertest.Cluster {
		return adapter.NewMemory(adapter.MemoryOptions{BacklogLimit: o.BacklogLimit, BacklogTTL: o.BacklogTTL})
	}
	testContract := func(t *testing.T) { adaptertest.Run(t, newCluster) } // TestContract in its own tests
	_ = testContract
}
