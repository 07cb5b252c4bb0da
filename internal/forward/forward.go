// Package forward makes sticky sessions unnecessary. A request of an engine session may reach any
// node; a node that does not own the session forwards the request to the owner's internal port, and
// returns the owner's answer. This includes polls, POSTs and upgrades, whose WebSockets then run
// through both nodes. Before a node shuts down it asks the owners of these WebSockets to disconnect
// the clients, which reconnect through another node.
//
// Each request between nodes is signed with the cluster's secret, which itself is never sent. The
// signature covers the method, the path and query, both nodes, the client's address and the time.
// So it proves that a node of this cluster has forwarded the request, to this node and no other,
// within the last seconds, for the client that it names; none of that can be altered.
//
// It does not cover bodies, and a request that is replayed to the same node within those seconds is
// not detected. Neither would help an attacker: with access to the traffic between the nodes an
// attacker sees session ids, and with a session id it can act as the client at the public port. The
// internal port needs a trusted network on which its traffic cannot be read.
package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rejoin-io/rejoin/internal/limit"
)

// Prefix begins a forwarded request's path at the internal port. LeavePath is the path of requests
// to disconnect a session's client.
const (
	Prefix    = "/internal/forward"
	LeavePath = "/internal/leave"
)

// Options configure a [Forwarder]. All fields are required, except Logger and those that may be
// nil.
type Options struct {
	// Node is this node's id, with which its session ids begin.
	Node string
	// Secret is the same on all nodes of the cluster.
	Secret string
	// Directory resolves the nodes' internal addresses.
	Directory Directory
	// Timeout is the maximum time that an owner may be silent while a request or WebSocket data
	// waits for it, and the maximum time for a client to read data. A poll is answered and a
	// WebSocket is pinged at the latest after ping interval and ping timeout, so Timeout must be
	// longer. It is the same on all nodes of the cluster.
	Timeout time.Duration
	// Outgoing bounds the requests that this node forwards, and Incoming those that it receives.
	// Nil means no bound. The server of Handler must listen on a [limit.Port], which sees the end
	// of WebSockets.
	Outgoing, Incoming *limit.Forwarded
	// Logger is optional.
	Logger *zap.Logger
}

// A Forwarder forwards requests and receives those that other nodes forward. All its methods are
// safe for concurrent use.
type Forwarder struct {
	o         Options
	log       *zap.Logger
	transport *http.Transport
	errors    *log.Logger // the proxy's
	now       func() time.Time
	patience  time.Duration // retryTimeout

	tasks    sync.WaitGroup // passages; none is added once closing
	finished chan struct{}  // closed when the last has ended

	mu       sync.Mutex
	draining bool // no new WebSockets are accepted
	closing  bool
	passages map[*passage]struct{}
	empty    chan struct{} // closed when there are no passages; nil unless awaited
	outcomes map[Outcome]uint64
	refusals map[Refusal]uint64
}

// New returns a Forwarder. Close ends it.
func New(o Options) (*Forwarder, error) {
	switch {
	case o.Secret == "":
		return nil, errors.New("forward: missing cluster secret")
	case o.Node == "" || o.Directory == nil:
		return nil, errors.New("forward: missing node id or directory")
	case o.Timeout <= 0:
		return nil, fmt.Errorf("forward: invalid timeout %v", o.Timeout)
	}
	o.Logger = cmp.Or(o.Logger, zap.NewNop())
	o.Outgoing = cmp.Or(o.Outgoing, limit.NewForwarded(limit.Quota{}))
	o.Incoming = cmp.Or(o.Incoming, limit.NewForwarded(limit.Quota{}))
	proxyLog, err := zap.NewStdLogAt(o.Logger, zap.DebugLevel) // peers that disconnect while they are answered
	if err != nil {
		return nil, err
	}
	f := &Forwarder{
		o: o,
		// An error of one client usually affects many.
		log: o.Logger.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(c, time.Minute, 1, 0)
		})),
		now:       time.Now,
		patience:  retryTimeout,
		transport: newTransport(o.Timeout, dialTimeout),
		errors:    proxyLog,
		finished:  make(chan struct{}),
		passages:  make(map[*passage]struct{}),
		outcomes:  map[Outcome]uint64{OK: 0, NoOwner: 0, Failed: 0, Gone: 0, Undecided: 0},
		refusals:  map[Refusal]uint64{Unsigned: 0, Forged: 0, Misdirected: 0, Stale: 0},
	}
	if maximum := o.Outgoing.Max(); maximum > 0 { // idle connections use descriptors, too
		f.transport.MaxIdleConns = max(1, maximum/32)
	}
	return f, nil
}

// Close stops forwarding, cuts the requests in flight and waits for their end. A poll that is cut
// is answered as one of an unknown session, because the cut ends the session; engineio answers
// later ones as undecided. When ctx ends Close returns its cause.
func (f *Forwarder) Close(ctx context.Context) error {
	f.mu.Lock()
	first := !f.closing
	f.closing = true
	for p := range f.passages {
		p.cancel(errClosed)
	}
	f.mu.Unlock()
	if first {
		go func() { // until the last passage has ended
			f.tasks.Wait()
			f.transport.CloseIdleConnections()
			close(f.finished)
		}()
	}
	select {
	case <-f.finished:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// enter registers a passage, unless the Forwarder is closing, or is draining and the passage is an
// upgrade.
func (f *Forwarder) enter(p *passage) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closing || f.draining && p.upgrade {
		return false
	}
	f.passages[p] = struct{}{}
	f.tasks.Add(1)
	return true
}

func (f *Forwarder) leave(p *passage) {
	p.cancel(nil)
	f.mu.Lock()
	delete(f.passages, p)
	if len(f.passages) == 0 && f.empty != nil {
		close(f.empty)
		f.empty = nil
	}
	f.mu.Unlock()
	f.tasks.Done()
}

// strip removes the headers that only nodes may set.
func strip(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, headerPrefix) {
			delete(h, name)
		}
	}
}
