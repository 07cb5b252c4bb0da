package redis

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

var (
	//go:embed lease.lua
	leaseSource string
	//go:embed leave.lua
	leaveSource string

	leaseScript = goredis.NewScript(leaseSource)
	leaveScript = goredis.NewScript(leaveSource)
)

// A node's lease on its id, and how often it is renewed.
const (
	leaseLife = 5 * time.Second
	leaseBeat = time.Second
)

// lookupPause is the minimum interval between two beats, including those for nodes that the last
// one did not list: clients may have made up their ids, and must not cost Redis more than that.
const lookupPause = 50 * time.Millisecond

// ErrTaken means that another node holds the id.
var ErrTaken = errors.New("adapter/redis: node id already in use")

// A registry lists the nodes of the cluster: each holds a lease on its id, with its address and its
// feed's condition.
type registry struct {
	a      *Adapter
	p      *partition // whose connections it uses
	id     adapter.NodeID
	secret string // proves that the lease is ours
	addr   string
	wake   chan struct{} // holds a token if this node's description has changed

	mu    sync.Mutex
	nodes map[adapter.NodeID]about
	read  time.Time // when the last beat that succeeded ended
	err   error     // of the last beat
	next  *lookup   // completed by the next beat that begins; nil unless awaited
}

// A lookup is the outcome of a beat, for callers that wait for it.
type lookup struct {
	done chan struct{} // closed when err is set
	err  error
}

// about is a node's description of itself.
type about struct {
	Addr       string `json:"addr,omitempty"` // of its internal port
	Generation uint64 `json:"generation"`
	CatchingUp bool   `json:"catchingUp,omitempty"`
	Wire       int    `json:"wire,omitempty"` // the version that it writes; 0 is 1
}

func newRegistry(a *Adapter, id adapter.NodeID, addr string) *registry {
	return &registry{a: a, p: a.partitions[0], id: id, secret: rand.Text()[:16], addr: addr, wake: make(chan struct{}, 1)}
}

func (r *registry) keys() []string { return []string{r.p.names.leases(), r.p.names.about()} }

// beat renews the lease and reads the list of nodes.
func (r *registry) beat(ctx context.Context) error {
	self := about{Addr: r.addr, Wire: version}
	self.Generation, self.CatchingUp = r.a.condition()
	said, err := json.Marshal(self)
	if err != nil {
		return err
	}
	var reply []string
	err = r.p.read(ctx, func(ctx context.Context, c goredis.Cmdable) (err error) {
		reply, err = leaseScript.Run(ctx, c, r.keys(), string(r.id), r.secret, leaseLife.Milliseconds(), said).StringSlice()
		return err
	})
	err = atKey(strings.Join(r.keys(), " or "), err)
	if err != nil {
		return fmt.Errorf("adapter/redis: lease on the node id: %w", err)
	}
	if len(reply) == 0 {
		return fmt.Errorf("%w: %s", ErrTaken, r.id)
	}
	nodes := make(map[adapter.NodeID]about, len(reply)/2)
	for i := 0; i+1 < len(reply); i += 2 {
		var a about
		if said := reply[i+1]; len(said) > len(r.secret) && json.Unmarshal([]byte(said[len(r.secret):]), &a) == nil {
			nodes[adapter.NodeID(reply[i])] = a
		}
	}
	r.mu.Lock()
	r.nodes, r.read = nodes, time.Now()
	r.mu.Unlock()
	return nil
}

// claim takes the lease. A previous run of this node that did not release the id may still hold it;
// that lease expires.
func (r *registry) claim(ctx context.Context) error {
	for {
		err := r.beat(ctx)
		if !errors.Is(err, ErrTaken) {
			return err
		}
		pause(ctx, leaseBeat/2)
		if ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

// minPeerWire is the first wire version whose nodes cut their clients if they cannot decode an
// event. Older ones skip it silently.
const minPeerWire = 2

// ErrOldPeer means that the cluster contains a node that would silently lose events that this one
// publishes.
var ErrOldPeer = errors.New("adapter/redis: node older than 0.4 in the cluster; stop all such nodes")

// awaitPeers waits until no node is left that would silently lose events that this one
// publishes.
func (r *registry) awaitPeers(ctx context.Context) error {
	for {
		id, old := r.oldPeer()
		if !old {
			return nil
		}
		pause(ctx, leaseBeat/2)
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %s: %w", ErrOldPeer, id, context.Cause(ctx))
		}
		if err := r.beat(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (r *registry) oldPeer() (id adapter.NodeID, old bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, said := range r.nodes {
		if said.Wire < minPeerWire {
			return id, true
		}
	}
	return "", false
}

// run renews the lease until ctx ends, and then releases it.
func (r *registry) run(ctx context.Context) {
	tick := time.NewTicker(leaseBeat)
	defer tick.Stop()
	for {
		select {
		case <-r.wake:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		r.mu.Lock()
		next := r.next
		r.next = nil
		r.mu.Unlock()
		err := r.beat(ctx)
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
		if next != nil {
			next.err = err
			close(next.done)
		}
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, ErrTaken): // two nodes must not share an id
			r.p.log.Error("node id taken by another node; leaving the cluster", zap.Error(err))
			r.a.cancel(fmt.Errorf("%w: %w", adapter.ErrClosed, err))
		default:
			r.p.log.Warn("node id lease not renewed", zap.Error(err))
		}
		pause(ctx, lookupPause)
	}
}

// ready returns why other nodes may not know this one, or nil.
func (r *registry) ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil && (isReply(r.err) || time.Since(r.read) > leaseLife) {
		return r.err
	}
	return nil
}

// refresh returns after a beat that began after the call, with its error. Concurrent
// calls share one.
func (r *registry) refresh(ctx context.Context) error {
	r.mu.Lock()
	if r.next == nil {
		r.next = &lookup{done: make(chan struct{})}
	}
	next := r.next
	r.mu.Unlock()
	r.changed()
	select {
	case <-next.done:
		return next.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))
	case <-r.a.ctx.Done():
		return context.Cause(r.a.ctx)
	}
}

// leave releases the lease, on a separate connection: the others have ended with the adapter.
func (r *registry) leave() {
	r.mu.Lock()
	held := time.Since(r.read) < leaseLife
	r.mu.Unlock()
	if !held {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	o, err := r.p.primary(ctx)
	if err == nil {
		o.DialTimeout = time.Second
		client := goredis.NewClient(o)
		err = leaveScript.Run(ctx, client, r.keys(), string(r.id), r.secret).Err()
		_ = client.Close()
	}
	if err != nil {
		r.p.log.Info("node id lease not released; it will expire", zap.Error(err))
	}
}

// changed triggers a beat soon, for the other nodes.
func (r *registry) changed() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// members returns the nodes as they were at the last beat, this one in its current state.
func (r *registry) members() []adapter.Member {
	r.mu.Lock()
	nodes := maps.Clone(r.nodes)
	r.mu.Unlock()
	self := nodes[r.id]
	self.Generation, self.CatchingUp = r.a.condition()
	nodes[r.id] = self
	list := make([]adapter.Member, 0, len(nodes))
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		list = append(list, adapter.Member{ID: id, Generation: nodes[id].Generation, CatchingUp: nodes[id].CatchingUp})
	}
	return list
}

// address returns the address of a node's internal port: from the last beat, or, if that does not
// list the node or has it at the stale address, from the next one. So a node that holds its lease
// is always found.
func (r *registry) address(ctx context.Context, id adapter.NodeID, stale string) (string, error) {
	if addr := r.listed(id); addr != "" && addr != stale {
		return addr, nil
	}
	if err := r.refresh(ctx); err != nil {
		return "", err
	}
	addr := r.listed(id)
	if addr == "" {
		return "", fmt.Errorf("%w: %q", adapter.ErrNoNode, id)
	}
	return addr, nil
}

// listed returns a node's address in the last beat, or "".
func (r *registry) listed(id adapter.NodeID) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[id].Addr
}
