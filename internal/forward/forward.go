// Package forward makes sticky sessions unnecessary. A request of an engine
// session may reach any node; one that does not own the session passes the
// request on to the owner's internal port, and the owner's answer back. That
// holds for polls, for POSTs and for upgrades, whose WebSockets then run through
// both nodes. Before a node goes away it asks the owners of those to send the
// clients away, who come back by another.
//
// Each request between nodes is signed with the cluster's secret, which itself is
// never sent. The signature covers the method, the path and query, both nodes,
// the client's address and the time. So it says that a node of this cluster has
// passed the request on, to this node and not another, within the last seconds,
// for the client that it names; none of that can be altered.
//
// It does not cover bodies, nor is a request that is played again to the same
// node within those seconds found out. Neither would gain anything: whoever can
// read or change what runs between the nodes sees session ids, and who knows one
// can speak as the client at the public port. The internal port's traffic needs a
// network that is trusted not to be read.
package forward

import (
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

// At the internal port, Prefix is what a forwarded request's path begins with, and
// LeavePath where a node asks for a session's client to be sent away.
const (
	Prefix    = "/internal/forward"
	LeavePath = "/internal/leave"
)

// Options configure a [Forwarder]. All but the logger are needed.
type Options struct {
	// Node is this node's id, with which its session ids begin.
	Node string
	// Secret is the same on all nodes of the cluster.
	Secret string
	// Directory knows the nodes' internal addresses.
	Directory Directory
	// Timeout is how long an owner may be silent while a request or what a WebSocket
	// brings waits for it, and how long a client may take to take what it is sent. A poll
	// is answered and a WebSocket is pinged after ping interval and ping timeout at the
	// latest, so it must be longer. It is the same on all nodes of the cluster.
	Timeout time.Duration
	// Outgoing bounds what this node forwards, and Incoming what it receives. Nil is no
	// bound. The server of Handler must listen on a [limit.Port], which sees the end of
	// WebSockets.
	Outgoing, Incoming *limit.Forwarded
	// Logger is none.
	Logger *zap.Logger
}

// A Forwarder passes requests on and takes in those that others pass on. All
// its methods may be called at once.
type Forwarder struct {
	o         Options
	log       *zap.Logger
	transport *http.Transport
	errors    *log.Logger // the proxy's
	now       func() time.Time
	patience  time.Duration // retryTimeout
	stats     counters

	tasks    sync.WaitGroup // passages; none is added once closing
	finished chan struct{}  // closed when the last has ended

	mu       sync.Mutex
	draining bool // no more WebSockets
	closing  bool
	passages map[*passage]struct{}
	empty    chan struct{} // closed when there are no passages; nil if nobody waits
}

// New returns a Forwarder. Close ends it.
func New(o Options) (*Forwarder, error) {
	switch {
	case o.Secret == "":
		return nil, errors.New("forward: a cluster needs a secret")
	case o.Node == "" || o.Directory == nil:
		return nil, errors.New("forward: a node needs an id and a directory")
	case o.Timeout <= 0:
		return nil, fmt.Errorf("forward: time-out of %v", o.Timeout)
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Outgoing == nil {
		o.Outgoing = limit.NewForwarded(limit.ForwardedOptions{})
	}
	if o.Incoming == nil {
		o.Incoming = limit.NewForwarded(limit.ForwardedOptions{})
	}
	proxyLog, err := zap.NewStdLogAt(o.Logger, zap.DebugLevel) // peers that go away while they are answered
	if err != nil {
		return nil, err
	}
	f := &Forwarder{
		o: o,
		// What goes wrong for one client goes wrong for many.
		log: o.Logger.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(c, time.Minute, 1, 0)
		})),
		now:       time.Now,
		patience:  retryTimeout,
		transport: newTransport(o.Timeout, dialTimeout),
		errors:    proxyLog,
		finished:  make(chan struct{}),
		passages:  make(map[*passage]struct{}),
	}
	if most := o.Outgoing.Max(); most > 0 { // what waits for the next request takes descriptors, too
		f.transport.MaxIdleConns = max(1, most/32)
	}
	f.stats.init()
	return f, nil
}

// Close forwards nothing from now on, cuts what is under way and waits for its
// end. A poll that is cut is answered as one of an unknown session, because the cut
// ends the session; later ones are answered by engineio as undecided. When ctx ends
// Close returns its cause.
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

// enter registers a passage, unless there shall be no more.
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
