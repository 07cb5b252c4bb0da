package forward

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A Directory knows where the nodes of a cluster are. Its method may be called
// by any number of goroutines at once.
type Directory interface {
	// Address returns the host:port at which other nodes reach a node's internal
	// port. The error wraps adapter.ErrNoNode if the cluster has no such node now;
	// any other says nothing about the node.
	Address(ctx context.Context, node adapter.NodeID) (string, error)
}

const (
	lookupTimeout = time.Second
	// addressLife is how long an answer of the directory is used again.
	addressLife = time.Second
	// maxAddresses bounds what clients that make up session ids can fill. Nodes that
	// there are, or were, do not count: they are few.
	maxAddresses = 4096
)

// addresses asks a directory once for all who want to know the same at about the
// same time.
type addresses struct {
	directory Directory
	now       func() time.Time

	mu    sync.Mutex
	known map[string]*lookup
}

// A lookup is one question to the directory.
type lookup struct {
	asked time.Time
	done  chan struct{} // closed when addr and err are set
	addr  string
	err   error
}

// failed reports whether the directory has not found the node.
func (l *lookup) failed() bool {
	select {
	case <-l.done:
		return l.err != nil
	default:
		return false
	}
}

func newAddresses(d Directory) *addresses {
	return &addresses{directory: d, now: time.Now, known: make(map[string]*lookup)}
}

// of returns a node's address. If the directory does not answer, what it last
// said still holds: clients stay connected while Redis is away.
func (a *addresses) of(ctx context.Context, node string) (string, error) {
	now := a.now()
	a.mu.Lock()
	last := a.known[node]
	if last != nil && now.Sub(last.asked) < addressLife {
		a.mu.Unlock()
		select {
		case <-last.done:
			return last.addr, last.err
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	if len(a.known) >= maxAddresses {
		maps.DeleteFunc(a.known, func(_ string, l *lookup) bool { return l.failed() })
	}
	l := &lookup{asked: now, done: make(chan struct{})}
	a.known[node] = l
	a.mu.Unlock()

	defer close(l.done)
	// Others wait for the answer, even if this request's client goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
	defer cancel()
	l.addr, l.err = a.directory.Address(ctx, adapter.NodeID(node))
	if l.err != nil && last != nil && !errors.Is(l.err, adapter.ErrNoNode) {
		<-last.done // asked longer ago than a question may take
		l.addr, l.err = last.addr, last.err
	}
	return l.addr, l.err
}
