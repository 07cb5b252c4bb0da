package socketio

import (
	"fmt"
	"iter"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// reserve counts in advance the cost of a socket's new memberships, so that concurrent joins and
// recoveries do not all find the same free space. It fails if the socket would have count
// memberships and their cost is not allowed. s.mu is held.
//
// While all memberships together cost at most free, everything is allowed. Beyond it a socket may have
// an equal share of the rest and of an extra eighth of the budget. So sockets with many memberships do
// not prevent others from having more than roomsBeyondBudget. The sockets of a connection may have
// bytesBeyondBudget together.
func (s *Socket) reserve(count int, added iter.Seq[string], free int64) error {
	cost := int64(0)
	for name := range added {
		cost += s.rooms.stayCost(name)
	}
	if count <= roomsBeyondBudget {
		s.count(cost) // before the check: other sockets of the connection do the same
		if s.client.stays.Load()+s.rooms.uncharged <= bytesBeyondBudget {
			s.rooms.uncharged -= cost
			return nil
		}
		s.count(-cost)
	}
	for all := &s.ns.srv.memberships; ; {
		had := all.Load()
		if had+cost > free && !s.inShare(had, cost) {
			return errMemberships
		}
		if all.CompareAndSwap(had, had+cost) {
			s.client.stays.Add(cost)
			s.rooms.uncharged -= cost
			return nil
		}
	}
}

// inShare reports whether the socket has no more than its share, given the cost of all memberships and
// that of new ones. s.mu is held.
func (s *Socket) inShare(all, cost int64) bool {
	share := s.ns.srv.membershipShare(all)
	least := int64(s.rooms.count) * s.rooms.stayCost("")
	return least+cost <= share && s.rooms.cost()+cost <= share
}

// membershipShare returns the share of each socket, given the cost of all memberships.
func (s *Server) membershipShare(all int64) int64 {
	budget := int64(s.opts.MembershipBudget)
	return (budget + budget/8 - all) / max(1, s.placed.Load())
}

const (
	// socketCost is the approximate memory, in bytes, of a socket beside others of its connection. It
	// counts as a membership does, because the limit of connections includes one socket of each.
	socketCost = 4 << 10
	// socketsBeyondBudget is the number of sockets that a connection can always have.
	socketsBeyondBudget = 4
)

// reserveSocket counts a socket of a connection that has others, unless their cost is not allowed.
func (s *Server) reserveSocket(others int) bool {
	budget, had := int64(s.opts.MembershipBudget), s.memberships.Add(socketCost)-socketCost
	if others < socketsBeyondBudget || had+socketCost <= budget-budget/4 || int64(others)*socketCost <= s.membershipShare(had) {
		return true
	}
	s.memberships.Add(-socketCost)
	return false
}

// count adds to the cost of all memberships.
func (s *Socket) count(bytes int64) {
	s.ns.srv.memberships.Add(bytes)
	s.client.stays.Add(bytes)
}

// unreserve releases the reservation of a socket that has not been placed. s.mu is held.
func (s *Socket) unreserve() {
	if !s.placed {
		cost := s.rooms.cost()
		s.count(s.rooms.uncharged - cost)
		s.rooms.uncharged = cost
	}
}

// charge adds the growth of the socket's memberships to those of the server. s.mu is held.
func (s *Socket) charge() {
	if s.placed {
		s.count(s.rooms.uncharged)
		s.rooms.uncharged = 0
	}
}

// tooManyStays returns an error if the socket's session cannot keep so many more memberships. s.mu
// is held.
func (s *Socket) tooManyStays(more int) error {
	if ended := s.rooms.count - s.rooms.open; ended > s.rooms.open/4 {
		s.forget() // scans all
	}
	if int(s.rooms.count)+more > s.ns.srv.opts.RoomsPerSocket*staysPerRoom {
		return fmt.Errorf("%w: too many were left within the last minutes", ErrTooManyRooms)
	}
	return nil
}

// A catchUp is a recovery whose client may not have received all that it missed. However long that takes,
// the next recovery may begin at the same position, and needs the same memberships.
type catchUp struct {
	from  adapter.Cursor
	ended time.Time // since when the replay is known to have ended
}

// forget drops the memberships that ended too long ago to matter, so that a session does not grow
// for as long as its client stays connected. s.mu is held.
func (s *Socket) forget() {
	srv := s.ns.srv
	// While its connection is not read, a client may have disconnected after its last answer.
	now, memory := s.client.conn.Answered(), srv.opts.memory()
	if c := s.catchUp; c != nil && !s.stage.catchingUp() {
		switch {
		case c.ended.IsZero():
			c.ended = now
		case now.Sub(c.ended) > memory: // a client that has not received it is disconnected by now
			s.catchUp = nil
		}
	}
	var given adapter.Cursor
	if s.receipt != nil {
		given = s.receipt.given // a client that was sent nothing since is recovered from there
	}
	s.rooms.forget(now.Add(-memory-time.Duration(srv.feed.behind.Load())), s.catchUp, given)
	s.charge()
}
