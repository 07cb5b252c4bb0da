package socketio

import (
	"slices"
	"sync"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
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
//   - Knowledge of a session is kept while a claim of this node is in flight, because the
//     success of a later claim may become known before the answer to ours. A claim that begins when
//     none is in flight gets a higher fence than all known ones, so nothing needs to be kept then.
//
// The pid and the fence of a socket do not change while it is in the table. mu is
// taken before a socket's lock, never with one held.
type ownership struct {
	mu     sync.Mutex
	served map[string]*Socket // by private id
	claims map[string]*claims // by private id, of the sessions with claims in flight
	// lost holds, for a limited time, the claims of this node that have lost against later ones, by
	// private id: the later ones may fail.
	lost map[string][]*lostClaim
}

// claims are this node's claims on one session that have not been entered yet.
type claims struct {
	inFlight int
	fence    uint64       // the highest known
	answered []uint64     // the fences of those that have been answered
	failed   []uint64     // the fences of claims that are known to have failed
	unknown  []*lostClaim // claims with an unknown outcome, to be settled
	owed     []owedCopy   // what former sockets were owed; their last write may have been refused
}

// claim announces a claim before the store can answer it. done withdraws it, after the socket has
// been entered.
func (o *ownership) claim(pid string) (done func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.claims[pid]
	if c == nil {
		c = &claims{}
		put(&o.claims, pid, c)
	}
	c.inFlight++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if c.inFlight--; c.inFlight > 0 {
			return
		}
		delete(o.claims, pid)
		for _, u := range c.unknown {
			srv := u.socket.client.srv
			srv.spawn(func() { srv.giveUp(u) })
		}
	}
}

// unanswered notes that the outcome of a claim in flight is unknown. If it was executed it has the
// fence after the one that it found, unless another claim of this node turns out to have that
// fence. So it is settled when no other one is in flight.
func (o *ownership) unanswered(c *lostClaim) {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.claims[c.PID]
	if slices.Contains(all.answered, c.Fence) {
		return
	}
	o.keep(c)
	all.unknown = append(all.unknown, c)
}

// settle ends a claim with an unknown outcome. The store says that a claim of this node has
// its fence; unless that is another one, this one has failed.
func (o *ownership) settle(c *lostClaim) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Contains(o.lost[c.PID], c) {
		return // the fence is another one's, or the claim is settled
	}
	if all := o.claims[c.PID]; all != nil {
		all.unknown = append(all.unknown, c)
		return
	}
	o.forget(c.PID, func(other *lostClaim) bool { return other == c })
	c.disown()
}

// enter makes a socket the one that serves its session, and evicts the previous one. It returns
// false if a later claim is known: then the socket has lost and must not be connected.
func (o *ownership) enter(s *Socket) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.claims[s.pid]; c != nil {
		c.answered = append(c.answered, s.fence)
		o.forget(s.pid, func(c *lostClaim) bool { return c.Fence == s.fence }) // it was not executed
		if c.fence > s.fence {
			s.mu.Lock()
			s.session = sessionMoved
			s.mu.Unlock()
			o.keep(s.lostClaim())
			return false
		}
		c.fence = s.fence
	}
	if former := o.served[s.pid]; former != nil {
		former.evict()
		o.owes(former)
		o.keep(former.lostClaim())
	}
	put(&o.served, s.pid, s)
	if c := o.claims[s.pid]; c != nil {
		s.mu.Lock()
		s.owe(adapter.Cursor{}, c.owed...)
		s.mu.Unlock()
	}
	return true
}

// owes notes, for claims in flight, what a socket is owed that has ended. o.mu is held.
func (o *ownership) owes(former *Socket) {
	if c := o.claims[former.pid]; c != nil {
		former.mu.Lock()
		c.owed = append(c.owed, former.owed()...)
		former.mu.Unlock()
	}
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
		o.owes(s)
		o.keep(s.lostClaim())
	}
}

// connected notes that the client of a socket moves to it. It settles the earlier claims before the
// client can do anything more. If the socket is not connected after all, undo reverts that.
func (o *ownership) connected(s *Socket) (undo func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	settled := o.forget(s.pid, func(c *lostClaim) bool { return c.Fence < s.fence })
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, c := range settled {
			o.keep(c)
		}
	}
}

// abandoned notes that a claim has failed, and disowns the one before it, if that is this node's.
func (o *ownership) abandoned(ref session.Ref) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.claims[ref.PID]; c != nil {
		c.failed = append(c.failed, ref.Fence) // the previous one may not have been answered yet
	}
	for _, c := range o.forget(ref.PID, func(c *lostClaim) bool { return c.Fence+1 == ref.Fence }) {
		c.disown()
	}
}

// lostClaimLife is how long a lost claim is kept. A claim takes at most recoverTimeout and
// storeTimeout until it is connected, fails or has itself lost against a later one.
const lostClaimLife = 3 * (recoverTimeout + storeTimeout)

// keep remembers a lost claim for lostClaimLife, unless the next one is known to have failed. o.mu
// is held.
func (o *ownership) keep(c *lostClaim) {
	if all := o.claims[c.PID]; all != nil && slices.Contains(all.failed, c.Fence+1) {
		c.disown()
		return
	}
	put(&o.lost, c.PID, append(o.lost[c.PID], c))
	c.expiry = time.AfterFunc(lostClaimLife, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.forget(c.PID, func(other *lostClaim) bool { return other == c })
	})
}

// forget removes lost claims and returns them. o.mu is held.
func (o *ownership) forget(pid string, which func(*lostClaim) bool) (removed []*lostClaim) {
	var left []*lostClaim
	for _, c := range o.lost[pid] {
		if which(c) {
			c.expiry.Stop()
			removed = append(removed, c)
		} else {
			left = append(left, c)
		}
	}
	if left == nil {
		delete(o.lost, pid)
	} else {
		o.lost[pid] = left
	}
	return removed
}

// leave removes a socket that no longer serves its session.
func (o *ownership) leave(s *Socket) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.served[s.pid] == s {
		delete(o.served, s.pid)
		o.owes(s)
	}
}

// over reports whether the socket that serves a session has ended it, or is about to, because the
// client or the server disconnected; the store may not know yet.
func (o *ownership) over(pid string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.served[pid]
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session == sessionOver || s.dismissed
}
