package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A Directory resolves the addresses of a cluster's nodes. Its method is safe for concurrent use.
type Directory interface {
	// Address returns the host:port at which other nodes reach a node's internal port. A node that
	// the directory does not know, or knows at the address stale ("" for none), is looked up in the
	// cluster first. Clients can make up ids, so implementations must limit the rate of look-ups.
	// The error wraps adapter.ErrNoNode if the cluster has answered that it has no such node; any
	// other error leaves open whether the node exists.
	Address(ctx context.Context, node adapter.NodeID, stale string) (string, error)
}

// lookupTimeout bounds the wait for the directory. A request can wait that long,
// because any answer other than the owner's ends its session at a stock client.
const lookupTimeout = 5 * time.Second

// errUndecided means that the directory or the owner could not be reached, so that it is unknown
// whether the session exists.
var errUndecided = errors.New("forward: session owner unavailable")

// locate returns the address of a session's owner. Its error wraps either
// adapter.ErrNoNode or errUndecided.
func (f *Forwarder) locate(ctx context.Context, owner, stale string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addr, err := f.o.Directory.Address(ctx, adapter.NodeID(owner), stale)
	if err != nil && !errors.Is(err, adapter.ErrNoNode) {
		err = fmt.Errorf("%w: %w", errUndecided, err)
	}
	return addr, err
}
