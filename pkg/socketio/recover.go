package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// Why a session was not recovered: labels of metrics and logs.
const (
	refusedUnknown = "unknown_session"  // expired, over, or never was
	refusedUser    = "other_user"       // of another user or namespace
	refusedEpoch   = "other_history"    // begun before history was lost
	refusedOffset  = "malformed_offset" // not an offset of ours: what the client has is unknown
	refusedHistory = "lost_history"     // the client has seen what is no longer there
	refusedTrimmed = "trimmed"          // a room has lost what the client missed
	refusedCoding  = "undecodable"      // this node cannot decode what the client missed
	refusedLimit   = "too_many_events"
	refusedJoin    = "unfinished_join" // the connection ended amid what a command's join gave the client
	refusedRooms   = "too_many_rooms"  // joined by the middlewares and left, again and again
	refusedRemoved = "removed"         // disconnected by the server while it was away
	recoveredWell  = "recovered"
)

// A refusal says that a session is not to be recovered: the client gets a new
// one, and is told so by its new ids. Any other error leaves that open.
type refusal struct {
	reason string
	err    error
}

func (r *refusal) Error() string { return fmt.Sprintf("not recovered: %s: %v", r.reason, r.err) }
func (r *refusal) Unwrap() error { return r.err }

// replayTries is how often a replay starts again because more came in meanwhile
// than may be held.
const replayTries = 3

// readTries bounds how often a replay is read again because commands in it joined further
// rooms, each by way of one that another has joined.
const readTries = 100

// recover makes the socket the one that it claims to be. The steps and their
// order are what no gap and no repeat rest on:
//
//   - the middlewares have run, so nobody refused gets a backlog;
//   - claim the session, so that no other socket changes it or delivers its events;
//   - be placed in its rooms, with everything held;
//   - only then fix the end of the replay, and read up to it;
//   - join what the middlewares have asked for, now that commands which came
//     before have been executed;
//   - CONNECT before the missed events: stock clients keep what comes before it
//     in a buffer that a cut does not clear, and would show it twice;
//   - at last release what was held, without what the replay had.
//
// The steps return before the next one begins, because the deepest one, the replay, has just
// enough space in a stack of 8 KiB. Thousands of clients can come back at once.
func (s *Socket) recover(ctx context.Context, pid string, offset json.RawMessage) error {
	srv := s.ns.srv
	if !isID(pid) {
		return &refusal{refusedUnknown, errors.New("not a private id")}
	}
	// Concurrent recoveries cannot all pass before any of them is counted: each takes what
	// the largest may weigh, and gives back what it does not.
	if !srv.recoveries.take(pid, time.Now(), maxRecoveryWeight) {
		s.client.limited(limitRecoveries, srv.opts.SessionRecoveries, "recoveries")
		return errTooOften // before anything is read
	}
	weight := 0 // of a session that does not exist: clients can make up any number of ids
	settled := false
	settle := func() {
		if !settled {
			settled = true
			srv.recoveries.add(pid, time.Now(), srv.recoveries.pace.times(weight-maxRecoveryWeight), 0)
		}
	}
	defer settle()
	defer func() { // if it has not come to assume
		s.mu.Lock()
		s.unreserve()
		s.mu.Unlock()
	}()
	done, err := s.change(ctx) // nobody joins or leaves before the replay has ended
	if err != nil {
		return err
	}
	defer done()
	claimed, err := s.reclaim(ctx, pid, offset)
	weight = claimed.weight
	if err != nil {
		return err
	}
	defer claimed.ended()
	reads := s.recoveryReads(pid)
	reads.back = srv.recoveries.pace.times(maxRecoveryWeight - weight)
	missed, err := s.read(ctx, reads, claimed.from, claimed.seen)
	settle()
	reads.back = 0
	if err == nil {
		defer missed.release() // and what is read later
		err = s.joinGranted(ctx)
	}
	if err != nil {
		return s.notRecovered(ctx, claimed, err)
	}
	if err := s.answerRecovered(missed.end); err != nil {
		return err
	}
	claimed.ended()
	srv.stats.recoveries.add(recoveredWell)
	if err := s.replay(missed, reads); err != nil {
		if errors.Is(err, adapter.ErrUndecodable) {
			s.giveUp() // the next recovery would come to it again
		}
		s.cut(fmt.Errorf("replay: %w", err)) // it has its place and can come back to it
	}
	return nil
}

// A reclaimed is what a recovery goes on with once the socket is in its session's rooms.
type reclaimed struct {
	seen    adapter.Cursor // the client's offset, which proves a part of the history
	genuine bool           // this cluster has given it to a client
	from    adapter.Cursor // what the client has received
	weight  int            // of the session, also if it could not be reclaimed
	ended   func()         // ends its turn
}

// reclaim claims a session and places the socket in its rooms, with everything held.
// What it returns is never nil.
func (s *Socket) reclaim(ctx context.Context, pid string, offset json.RawMessage) (r *reclaimed, err error) {
	srv := s.ns.srv
	r = new(reclaimed)
	now, err := srv.adapter.Head(ctx)
	if err != nil {
		return r, err
	}
	if r.seen, r.genuine, err = srv.offsets.received(offset, now); err != nil {
		return r, &refusal{refusedOffset, err} // the session stays as it is
	}
	claimed, err := s.claim(ctx, pid, now.Epoch)
	if refused := (*refusal)(nil); !errors.As(err, &refused) || refused.reason != refusedUnknown {
		r.weight = recoveryWeight(claimed)
	}
	if err != nil {
		return r, err
	}
	if r.ended, err = srv.turns.take(ctx, len(claimed.Rooms)); err != nil {
		return r, err
	}
	if r.from, err = s.assume(ctx, claimed, r.seen, now); err == nil {
		err = s.rejoin(ctx)
	}
	if err != nil {
		r.ended()
	}
	return r, err
}

// notRecovered ends the session if the error says that it is not to be recovered, and returns
// what the caller is to return.
func (s *Socket) notRecovered(ctx context.Context, claimed *reclaimed, err error) error {
	if errors.Is(err, session.ErrTooLarge) { // commands have joined it to all these rooms
		err = &refusal{refusedRooms, err}
	}
	if refused := (*refusal)(nil); errors.As(err, &refused) {
		s.resign(ctx)
		if refused.reason == refusedHistory && claimed.genuine {
			s.ns.srv.condemn(ctx, claimed.seen)
		}
	}
	return err
}

// answerRecovered tells the client that it is recovered, and in time what has been held for
// it and cannot wait for the missed events, unless that is one of these: they reach up to an
// end.
func (s *Socket) answerRecovered(end adapter.Cursor) error {
	undo := s.ns.srv.owned.connected(s)
	s.mu.Lock()
	s.recovered = true
	err := s.answerConnect()
	names := s.rooms.names()
	for _, d := range s.gate.held { // while the socket was not connected
		if err == nil && s.gate.urgent(d) && (d.local || !end.Covers(d.ev.Position)) {
			s.pass(d)
		}
	}
	s.mu.Unlock()
	if err != nil {
		undo()
		return err
	}
	s.ns.tellRooms(s.ID(), true, names...)
	return nil
}

// condemn tells the adapter of a position that a client has been given and that
// its history does not hold: nobody can be sure of what they have then.
func (s *Server) condemn(ctx context.Context, seen adapter.Cursor) {
	if a, ok := s.adapter.(adapter.Fallible); ok {
		if err := a.Condemn(ctx, seen); err != nil {
			s.log.Error("the history has lost something, and a new one could not be begun", zap.Error(err))
		}
	}
}

// errOvertaken ends the connection of a socket that has lost against a concurrent
// claim. Its client may try again.
var errOvertaken = fmt.Errorf("%w: the session was claimed by a later connection", ErrDisconnected)

// claim takes the session over from the socket that serves it, on this node or on
// another one. It is announced before the store is asked, and when it returns without
// error this socket is the only one of the session on this node; see [ownership]. Of
// concurrent claims the one that the store executes last succeeds, whatever the order
// of the answers.
func (s *Socket) claim(ctx context.Context, pid, epoch string) (session.Session, error) {
	srv := s.ns.srv
	s.mu.Lock()
	user := s.user
	s.mu.Unlock()
	var last session.Session // as the store had it before the claim
	check := func(found session.Session) error {
		last = found
		switch {
		case found.Namespace != s.nsName || found.User != user:
			return &refusal{refusedUser, errors.New("the session is another's")}
		case found.Epoch != epoch:
			return &refusal{refusedEpoch, adapter.ErrHistoryLost}
		}
		var names []string // of its stays
		for _, r := range found.Rooms {
			if r.Name != "" && r.Kind&isReceipt == 0 {
				names = append(names, r.Name)
			}
		}
		// Joins leave recoveries an eighth: a client that was cut has given back what its
		// memberships took, and would lose all that it missed.
		budget := srv.opts.MembershipBudget
		s.mu.Lock()
		s.unreserve() // of an earlier check
		err := s.reserve(len(names), slices.Values(names), budget+budget/8)
		s.mu.Unlock()
		if err != nil {
			last = session.Session{} // nothing is executed
			s.client.limited(limitMemberships, srv.opts.MembershipBudget, "bytes")
			return err
		}
		return nil
	}
	if srv.owned.over(pid) {
		return session.Session{}, &refusal{refusedUnknown, errors.New("the session has been ended")}
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
		if last.PID != "" { // the claim may have been executed; nobody else would tell the owner
			srv.owned.unanswered(&lostClaim{Ref: session.Ref{PID: pid, Fence: last.Fence + 1}, socket: s, former: last.Owner})
		}
		return claimed, err
	}
	s.mu.Lock()
	s.pid, s.fence = claimed.PID, claimed.Fence
	s.mu.Unlock()
	s.succeed(former)
	entered := srv.owned.enter(s)
	if former != self { // also if it was not entered: the winner tells only this node
		srv.tellEviction(former, eviction{session.Ref{PID: pid, Fence: claimed.Fence}, false})
	}
	if !entered {
		srv.log.Info("session claimed by a later connection", zap.String("namespace", s.nsName))
		return claimed, errOvertaken
	}
	return claimed, nil
}

// assume makes the socket what the session says, as far as the middlewares let
// it, and places it in its rooms with its gate shut. It returns from where on the client is
// to be recovered, which has shown an offset.
func (s *Socket) assume(ctx context.Context, claimed session.Session, offset, head adapter.Cursor) (from adapter.Cursor, err error) {
	stays, was, err := restore(claimed.Rooms)
	if err != nil {
		return from, fmt.Errorf("socketio: session: %w", err)
	}
	if !was.given.IsZero() && !head.Includes(was.given) { // it may have been stored since that was read
		if head, err = s.ns.srv.adapter.Head(ctx); err != nil {
			return from, err
		}
	}
	if !was.given.SameHistory(head) || !head.Includes(was.given) {
		was = receipt{} // of a history that has lost something
	}
	from = was.from(offset)
	s.mu.Lock()
	decided := s.screening
	s.mu.Unlock()
	stays.keep(func(room string) bool { return s.keeps(decided, room) }, from)
	s.mu.Lock()
	defer s.mu.Unlock()
	stays.uncharged += s.rooms.uncharged // less what is reserved for them
	if s.data != nil {
		s.screening = s.screening.made()
		s.screening.data = s.data // resign gives it back
	}
	s.id, s.data, s.rooms = claimed.ID, claimed.Data, stays
	s.receipt = &receipt{sent: offset, given: was.given}
	s.newestJoin = s.rooms.newestJoin()
	s.recovering = true
	s.gate.shut++
	s.place()
	return from, nil
}

// resign undoes assume after a refusal: the session is over.
func (s *Socket) resign(ctx context.Context) {
	srv := s.ns.srv
	s.unplace()
	s.mu.Lock()
	ref := session.Ref{PID: s.pid, Fence: s.fence}
	s.mu.Unlock()
	s.dropRefused(ctx, ref)
	srv.owned.leave(s)
	s.answerGone() // what was held
	s.mu.Lock()
	s.id, s.pid, s.fence, s.data, s.rooms, s.receipt = newID(), "", 0, nil, memberships{}, nil
	if s.screening != nil {
		s.data = s.screening.data
	}
	s.recovering = false
	s.gate = gate{}
	s.mu.Unlock()
}

// rejoin subscribes the socket's rooms.
func (s *Socket) rejoin(ctx context.Context) error {
	s.mu.Lock()
	current := append(s.implicit(), inNamed(s.nsName, s.rooms.names())...)
	s.mu.Unlock()
	if _, err := s.ns.srv.adapter.Subscribe(ctx, current...); err != nil {
		return err
	}
	s.mu.Lock()
	s.subscribed = true
	s.mu.Unlock()
	return nil
}

// read fixes an end and returns what was missed up to it, in order, from what the client has
// received on. seen, its offset, proves a part of the history. Commands
// among them are executed: the memberships afterwards are those at the end. A
// room that a command joined has missed events too, and its live ones must be
// heard before the end is fixed, so it is subscribed and all is read again.
func (s *Socket) read(ctx context.Context, reads *recoveryReads, from, seen adapter.Cursor) (*missed, error) {
	ctx = reads.count(ctx)
	page := s.ns.srv.replays.reserve()
	defer page.release()
	// What is not held is read when it may be, so a session that has read much holds little.
	r := replay{socket: s, seen: from, payload: max(min(page.held, reads.left()), 1)}
	var heard []string // of the rooms that commands joined
	var err error
	for range readTries {
		var end adapter.Cursor
		if end, err = r.begin(ctx, seen); err != nil {
			break
		}
		if err = r.read(ctx, end); err != nil && !errors.Is(err, errAgain) {
			break
		}
		if !r.again {
			var found *missed
			if found, err = r.found(end); err != nil {
				break
			}
			if err := s.adopt(ctx, &r, end, heard); err != nil {
				found.release()
				return nil, err
			}
			return found, nil
		}
		if heard, err = s.hear(ctx, r.joined, heard); err != nil {
			break
		}
		err = &refusal{refusedRooms, errors.New("commands joined further rooms, again and again")}
	}
	s.mu.Lock()
	for _, name := range heard {
		s.unlist(name)
	}
	s.mu.Unlock()
	s.ns.srv.adapter.Unsubscribe(inNamed(s.nsName, heard)...)
	return nil, err
}

// hear makes the socket hear those of the joined rooms that it is neither in nor hears.
// It returns all that it hears now. The gate is shut.
func (s *Socket) hear(ctx context.Context, joined map[string]adapter.Cursor, heard []string) ([]string, error) {
	var news []string
	s.mu.Lock()
	for name := range joined {
		if s.rooms.current(name) == nil && !slices.Contains(heard, name) {
			news = append(news, name)
		}
	}
	s.mu.Unlock()
	if len(news) == 0 {
		return heard, nil
	}
	if _, err := s.ns.srv.adapter.Subscribe(ctx, inNamed(s.nsName, news)...); err != nil {
		return heard, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range news {
		s.ns.index.Add(rooms.InNamed(s.nsName, name), s)
	}
	return append(heard, news...), nil
}

// refuseLost turns what proves that events are missing into a refusal.
func refuseLost(err error) error {
	switch {
	case errors.Is(err, adapter.ErrTrimmed):
		return &refusal{refusedTrimmed, err}
	case errors.Is(err, adapter.ErrUndecodable):
		return &refusal{refusedCoding, err}
	case errors.Is(err, adapter.ErrHistoryLost):
		return &refusal{refusedHistory, err}
	}
	return err
}

// adopt makes the memberships at the end of a replay the socket's, and stores them if they
// are new, with what the replay gives. Beside the rooms that it was in, it hears some that
// commands have joined.
func (s *Socket) adopt(ctx context.Context, r *replay, end adapter.Cursor, heard []string) error {
	stays := r.stays
	s.mu.Lock()
	was := s.rooms.names()
	listed := append(heard, was...)
	if s.placed {
		stays.banned = nil // what comes from here on is not for it in any case
		stays.uncharged = stays.cost() - s.rooms.cost() + s.rooms.uncharged
		s.rooms, s.newestJoin = stays, stays.newestJoin()
		s.receipt.given, s.receipt.overlooked = end, r.overlooked
		if n := len(r.missed); n > 0 {
			s.receipt.sent = r.missed[n-1].Cursor
		}
		listed = slices.DeleteFunc(listed, func(name string) bool { return stays.current(name) != nil })
	} else { // displaced meanwhile, from the rooms that it was in
		listed = heard
	}
	for _, name := range listed {
		s.unlist(name)
	}
	placed, unsaved, connected := s.placed, stays.unsaved, s.connected
	s.rooms.unsaved = false
	s.mu.Unlock()
	if len(listed) > 0 {
		s.ns.srv.adapter.Unsubscribe(inNamed(s.nsName, listed)...)
	}
	if !placed {
		return ErrDisconnected
	}
	if connected { // a replay that was read again
		is := stays.sorted()
		slices.Sort(was)
		s.ns.tellRooms(s.ID(), true, without(is, was)...)
		s.ns.tellRooms(s.ID(), false, without(was, is)...)
	}
	if !unsaved && r.overlooked < overlookedEvents {
		return nil
	}
	return s.save(ctx)
}

// without returns those names that are not among others, which are sorted.
func without(names, others []string) (rest []string) {
	for _, name := range names {
		if _, found := slices.BinarySearch(others, name); !found {
			rest = append(rest, name)
		}
	}
	return rest
}
