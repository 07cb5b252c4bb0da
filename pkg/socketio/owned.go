package socketio

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/session"
)

// An ownership is the table of the sessions that this node serves. Its invariants,
// under mu:
//
//   - A session has at most one socket on this node that delivers, the one in
//     served. Every other socket of it has been evicted before that one was entered,
//     and a socket delivers only once it has been entered.
//   - That socket has the highest fence that this node has learned of, from the
//     store's answers to its claims and from the messages of other nodes. A socket
//     with a lower fence is evicted, or is not entered.
//   - What is learned of a session is kept while a claim of this node is in flight:
//     that a later claim has succeeded may become known before the answer to ours.
//     A claim that begins when none is in flight gets a higher fence than all that
//     is known, so nothing needs to be kept then.
//
// The pid and the fence of a socket do not change while it is in the table. mu is
// taken before a socket's lock, never with one held.
type ownership struct {
	mu     sync.Mutex
	served map[string]*Socket // by private id
	claims map[string]*claims // by private id, of the sessions with claims in flight
	// evicted has, for a time, the sockets of sessions that went to other nodes: the
	// claim may come to nothing.
	evicted map[string]*Socket
}

// claims are those of this node on one session that have not been entered yet.
type claims struct {
	inFlight int
	fence    uint64 // the highest that is known
}

func (o *ownership) init() {
	o.served = make(map[string]*Socket)
	o.claims = make(map[string]*claims)
	o.evicted = make(map[string]*Socket)
}

// claim announces a claim, before the store can answer it. done withdraws it, after
// the socket has been entered.
func (o *ownership) claim(pid string) (done func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.claims[pid]
	if c == nil {
		c = &claims{}
		o.claims[pid] = c
	}
	c.inFlight++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if c.inFlight--; c.inFlight == 0 {
			delete(o.claims, pid)
		}
	}
}

// enter makes a socket the one that serves its session, and evicts the one that did.
// It returns false if a later claim is known: then the socket must not be connected.
// here says that the former owner is this node, whose socket may have learned of the
// claim from the store already.
func (o *ownership) enter(s *Socket, here bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.claims[s.pid]; c != nil {
		if c.fence > s.fence {
			return false
		}
		c.fence = s.fence
	}
	former := o.served[s.pid]
	o.served[s.pid] = s
	if former != nil {
		former.evict()
	} else if here {
		former = o.evicted[s.pid]
		delete(o.evicted, s.pid)
	}
	if former != nil {
		s.succeed(predecessor{socket: former})
	}
	return true
}

// overtaken notes that a session has been claimed with a fence, by another node or
// with an unknown outcome, and evicts the socket of an earlier claim.
func (o *ownership) overtaken(ref session.Ref) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.claims[ref.PID]; c != nil {
		c.fence = max(c.fence, ref.Fence)
	}
	if s := o.served[ref.PID]; s != nil && s.fence < ref.Fence {
		delete(o.served, ref.PID)
		s.evict()
		o.evicted[ref.PID] = s
		time.AfterFunc(recoverTimeout+storeTimeout, func() { o.forget(ref.PID, s) })
	}
}

func (o *ownership) forget(pid string, s *Socket) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.evicted[pid] == s {
		delete(o.evicted, pid)
	}
}

// abandoned notifies the socket that a claim has evicted that the claim has failed.
func (o *ownership) abandoned(ref session.Ref) {
	o.mu.Lock()
	s := o.evicted[ref.PID]
	delete(o.evicted, ref.PID)
	o.mu.Unlock()
	if s != nil {
		s.disown()
	}
}

// leave removes a socket that no longer serves its session.
func (o *ownership) leave(s *Socket) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.served[s.pid] == s {
		delete(o.served, s.pid)
	}
}

// over reports whether the socket that serves a session has ended it, by the wish of
// the client or of the server, which the store need not know yet.
func (o *ownership) over(pid string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.served[pid]
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// holder returns the socket that serves a session under a fence, or nil.
func (o *ownership) holder(ref session.Ref) *Socket {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.served[ref.PID]; s != nil && s.fence == ref.Fence {
		return s
	}
	return nil
}

// alive returns the sessions of the sockets whose clients have answered since a time.
func (o *ownership) alive(since time.Time) []session.Ref {
	o.mu.Lock()
	defer o.mu.Unlock()
	refs := make([]session.Ref, 0, len(o.served))
	for pid, s := range o.served {
		if !s.client.conn.Alive().Before(since) {
			refs = append(refs, session.Ref{PID: pid, Fence: s.fence})
		}
	}
	return refs
}

// runRefresh prolongs the sessions of the sockets that are alive.
func (s *Server) runRefresh(ctx context.Context) {
	period := RefreshPeriod(s.opts.RecoveryWindow)
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.refresh()
		}
	}
}

// refresh prolongs the sessions of the sockets whose clients answer. Those that
// turn out to be gone are cut, and those that moved are evicted.
func (s *Server) refresh() {
	alive := s.opts.Engine.PingInterval + s.opts.Engine.PingTimeout/2
	refs := s.owned.alive(time.Now().Add(-alive))
	ctx, cancel := s.store()
	defer cancel()
	gone, err := s.sessions.Refresh(ctx, refs, s.opts.sessionLife())
	if err != nil {
		s.log.Warn("sessions could not be refreshed", zap.Error(err))
		return
	}
	for _, ref := range gone {
		if sock := s.owned.holder(ref); sock != nil {
			sock.background(sock.save) // which finds out what became of it
		}
	}
}
