package adapter_test

import (
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/adaptertest"
)

func TestContract(t *testing.T) {
	adaptertest.Run(t, func(_ *testing.T, o adaptertest.Options) adaptertest.Cluster {
		return adapter.NewMemory(adapter.MemoryOptions{BacklogLimit: o.BacklogLimit, BacklogTTL: o.BacklogTTL})
	})
}

// Several partitions differ in the order of events, and in nothing else.
func TestContractInPartitions(t *testing.T) {
	adaptertest.RunPartitions(t, func(_ *testing.T, o adaptertest.Options) adaptertest.Cluster {
		return adapter.NewMemory(adapter.MemoryOptions{BacklogLimit: o.BacklogLimit, BacklogTTL: o.BacklogTTL, Partitions: 3})
	})
}
