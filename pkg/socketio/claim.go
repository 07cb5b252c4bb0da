package socketio

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// errOvertaken ends the connection of a socket that has lost against a concurrent claim. Its
// client may retry.
var errOvertaken = fmt.Errorf("%w: session claimed by a later connection", ErrDisconnected)

// claim takes the session over from the socket that serves it, on this node or another. It is
// announced before it is sent to the store. When it returns without error this socket is the only
// one of the session on this node; see [ownership]. Of concurrent claims the one that the store
// executes last succeeds, in any order of the answers.
func (r *recovery) claim(ctx context.Context, epoch string) (session.Session, error) {
	s, pid, srv := r.socket, r.pid, r.socket.ns.srv
	s.mu.Lock()
	user := s.user
	s.mu.Unlock()
	var last session.Session // as the store had it before the claim
	check := func(found session.Session) error {
		last = found
		switch {
		case found.Namespace != s.nsName || found.User != user:
			return &refusal{refusedUser, errors.New("session belongs to another user or namespace")}
		case found.Epoch != epoch:
			return &refusal{refusedEpoch, adapter.ErrHistoryLost}
		}
		var names []string // rooms of its stays
		for _, r := range found.Rooms {
			if r.Name != "" && r.Kind&(isReceipt|isKept) == 0 {
				names = append(names, r.Name)
			}
		}
		// Joins leave recoveries a quarter: a client that was cut has released its memberships'
		// share, and would otherwise lose all missed events.
		s.mu.Lock()
		s.unreserve() // of an earlier check
		err := s.reserve(len(names), slices.Values(names), int64(srv.opts.MembershipBudget))
		s.mu.Unlock()
		if err != nil {
			last = session.Session{} // nothing was executed
			s.client.limited(limitMemberships, srv.opts.MembershipBudget, "bytes")
			return err
		}
		return nil
	}
	if srv.owned.over(pid) {
		return session.Session{}, &refusal{refusedUnknown, errors.New("session has ended")}
	}
	done := srv.owned.claim(pid)
	defer done()
	self := string(srv.adapter.Node())
	claimed, former, err := srv.sessions.Claim(ctx, pid, self, srv.opts.sessionLife(), check)
	switch {
	case errors.Is(err, session.ErrNotFound):
		return claimed, &refusal{refusedUnknown, err}
	case errors.Is(err, session.ErrUndecodable):
		return claimed, &refusal{refusedCoding, err}
	case errors.Is(err, session.ErrTooLarge): // with the name of this node, which may be longer
		return claimed, &refusal{refusedRooms, err}
	}
	if refused := (*refusal)(nil); errors.As(err, &refused) {
		return claimed, err
	}
	if err != nil {
		if last.PID != "" { // the claim may have been executed; no other node would notify the owner
			srv.owned.unanswered(&lostClaim{Ref: session.Ref{PID: pid, Fence: last.Fence + 1}, socket: s, former: last.Owner})
		}
		return claimed, err
	}
	s.mu.Lock()
	s.pid, s.fence, s.former = claimed.PID, claimed.Fence, former
	s.mu.Unlock()
	entered := srv.owned.enter(s)
	if former != self { // also if it was not entered: the later claimant notifies only this node
		srv.notifyEviction(former, eviction{session.Ref{PID: pid, Fence: claimed.Fence}, false})
	}
	if !entered {
		srv.log.Info("session claimed by a later connection", zap.String("namespace", s.nsName))
		return claimed, errOvertaken
	}
	return claimed, nil
}

// assume gives the socket the session's state, as far as the middlewares allow it, places it in its
// rooms with its gate shut, and subscribes the node to them.
func (r *recovery) assume(ctx context.Context, claimed session.Session, head adapter.Cursor) error {
	s := r.socket
	stays, was, err := restore(claimed.Rooms)
	if err != nil {
		return fmt.Errorf("socketio: session: %w", err)
	}
	if !was.given.IsZero() && !head.Includes(was.given) { // it may have been stored after head was read
		if head, err = s.ns.srv.adapter.Head(ctx); err != nil {
			return err
		}
	}
	if !was.given.SameHistory(head) || !head.Includes(was.given) {
		was = receipt{} // from a history that has lost something
	}
	if f := was.former; f != nil && (!f.given.SameHistory(was.given) || !was.given.Includes(f.given)) {
		was.former = nil
	}
	s.mu.Lock()
	r.stale = s.kept != string(kept(claimed.Rooms))
	s.mu.Unlock()
	r.from = was.from(r.seen)
	stays.keep(r.request.keeps, r.from)
	s.mu.Lock()
	stays.uncharged += s.rooms.uncharged // less the part reserved for them
	s.id, s.data, s.rooms = claimed.ID, claimed.Data, stays
	s.receipt = &receipt{sent: r.seen, given: was.given}
	if r.from != r.seen { // and so must be the next recovery, if the client receives nothing
		s.receipt.former = &receipt{sent: r.seen, given: r.from}
	}
	s.newestJoin = s.rooms.newestJoin()
	s.catchUp = &catchUp{from: r.from}
	if r.from.IsZero() {
		s.catchUp.from = stays.born
	}
	s.stage.become(stageRecovering)
	s.gate.shut++
	listed := s.place()
	s.mu.Unlock()
	_, err = s.subscribe(ctx, listed)
	return err
}

// resign undoes assume after a refusal: the session is over.
func (r *recovery) resign() {
	s := r.socket
	s.unplace()
	s.endClaim(ServerDisconnect)
	s.ns.srv.owned.leave(s)
	s.answerEnded() // the held deliveries
	s.mu.Lock()
	s.former = ""
	s.id, s.pid, s.fence, s.data, s.rooms, s.receipt, s.catchUp = "", "", 0, nil, memberships{partitions: s.rooms.partitions}, nil, nil
	if o := s.order.Load(); o != nil {
		o.owed = nil
	}
	s.stage.become(stageConnecting)
	s.gate.drop()
	s.gate = gate{}
	s.mu.Unlock()
}
