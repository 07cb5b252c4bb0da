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
// not prevent others from having more than roomsBeyondBudget.
func (s *Socket) reserve(count int, added iter.Seq[string], free int64) error {
	cost := int64(0)
	for name := range added {
		cost += s.rooms.stayCost(name)
	}
	if count <= roomsBeyondBudget && s.rooms.cost()+cost <= bytesBeyondBudget {
		return nil
	}
	for all := &s.ns.srv.memberships; ; {
		had := all.Load()
		if had+cost > free && !s.inShare(had, cost) {
			return errMemberships
		}
		if all.CompareAndSwap(had, had+cost) {
			s.rooms.uncharged -= cost
			return nil
		}
	}
}

// inShare reports whether the socket has no more than its share, given the cost of all memberships and
// that of new ones. s.mu is held.
func (s *Socket) inShare(all, cost int64) bool {
	srv := s.ns.srv
	budget := int64(srv.opts.MembershipBudget)
	share := (budget + budget/8 - all) / max(1, srv.placed.Load())
	least := int64(s.rooms.count) * s.rooms.stayCost("")
	return least+cost <= share && s.rooms.cost()+cost <= share
}

// unreserve releases the reservation of a socket that has not been placed. s.mu is held.
func (s *Socket) unreserve() {
	if !s.placed {
		cost := s.rooms.cost()
		s.ns.srv.memberships.Add(s.rooms.uncharged - cost)
		s.rooms.uncharged = cost
	}
}

// charge adds the growth of the socket's memberships to those of the server. s.mu is held.
func (s *Socket) charge() {
	if s.placed {
		s.ns.srv.memberships.Add(s.rooms.uncharged)
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
	// While its connection is not read, a client may have been gone since its last answer.
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
