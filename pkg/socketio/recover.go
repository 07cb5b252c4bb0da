package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// replayTries is the number of times that a replay continues because more events arrived meanwhile
// than may be held. Each time is shorter, unless more is published than the client receives.
const replayTries = 32

// A recovery turns a socket into the one that its client claims. These steps and their order prevent
// gaps and duplicates:
//
//   - the middlewares have run, so a refused client gets no backlog;
//   - claim the session, so that no other socket changes it or delivers its events;
//   - be placed in its rooms, with everything held;
//   - only then fix the end of the replay, and read up to it;
//   - join the rooms that the middlewares requested, now that earlier commands have been executed;
//   - CONNECT before the missed events: stock clients buffer events that precede it, and a cut
//     does not clear that buffer, so they would deliver these events twice;
//   - finally release the held deliveries, without the events that the replay contained.
//
// Each step returns before the next one begins, because the deepest one, the replay, just fits in a
// stack of 8 KiB. Thousands of clients can reconnect in one burst.
type recovery struct {
	socket  *Socket
	request *ConnectRequest // nil once the client is connected
	pid     string
	seen    adapter.Cursor // the client's offset, which proves a part of the history
	genuine bool           // a node of this cluster has issued it
	from    adapter.Cursor // the position that the client has received
	weight  int            // of the session, also if it could not be claimed
	limit   RecoveryLimit  // of its reads; nil means no limit
	maxWait time.Duration  // how much longer it may wait for that limit
	back    time.Duration  // the part of the session's debt that will be given back
	stale   bool           // the stored session has other bytes of Keep than the socket
	moved   atomic.Int64   // when its client has taken a part of its replay, in nanoseconds
}

func (r *recovery) run(ctx context.Context, offset json.RawMessage) error {
	s, srv := r.socket, r.socket.ns.srv
	if !isID(r.pid) {
		return &refusal{refusedUnknown, errors.New("not a private id")}
	}
	// Concurrent recoveries must not all pass before any of them is counted: each takes the maximum
	// weight, and gives back the unused part.
	if !srv.recoveries.take(r.pid, time.Now(), maxRecoveryWeight) {
		s.client.limited(limitRecoveries, srv.opts.SessionRecoveries, "recoveries")
		return errTooOften // before anything is read
	}
	settle := sync.OnceFunc(func() {
		srv.recoveries.add(r.pid, time.Now(), srv.recoveries.pace.times(r.weight-maxRecoveryWeight), 0)
		r.back = 0
	})
	defer settle()
	defer func() { // if it did not reach assume
		s.mu.Lock()
		s.unreserve()
		s.mu.Unlock()
	}()
	done, err := s.change(ctx) // no join or leave before the replay has ended
	if err != nil {
		return err
	}
	defer done()
	if err := r.reclaim(ctx, offset); err != nil {
		return err
	}
	r.findLimit()
	r.back = srv.recoveries.pace.times(maxRecoveryWeight - r.weight)
	missed, err := r.read(ctx, r.from, r.seen)
	settle()
	if err == nil {
		defer func() {
			missed.release() // including events that are read later
			for _, l := range missed.leaves {
				s.finishLeave(l)
			}
		}()
		err = r.joinRequested(ctx)
	}
	if err != nil {
		return r.refused(ctx, err)
	}
	if err := r.answer(missed.end); err != nil {
		return err
	}
	srv.stats.recoveries.add(recoveredWell)
	if err := r.replay(missed); err != nil {
		if errors.Is(err, adapter.ErrUndecodable) {
			s.endSession(ServerDisconnect) // the next recovery would meet it again
		}
		s.cut(fmt.Errorf("replay: %w", err)) // it has its place and can be recovered
	}
	return nil
}

// reclaim claims the session and places the socket in its rooms, with everything held.
func (r *recovery) reclaim(ctx context.Context, offset json.RawMessage) error {
	srv := r.socket.ns.srv
	now, err := srv.adapter.Head(ctx)
	if err != nil {
		return err
	}
	if r.seen, r.genuine, err = srv.offsets.received(offset, now); err != nil {
		return &refusal{refusedOffset, err} // the session is unchanged
	}
	claimed, err := r.claim(ctx, now.Epoch)
	if refused := (*refusal)(nil); !errors.As(err, &refused) || refused.reason != refusedUnknown {
		r.weight = recoveryWeight(claimed) // clients can make up any number of unknown ids
	}
	if err != nil {
		return err
	}
	ended, err := srv.turns.take(ctx, len(claimed.Rooms))
	if err != nil {
		return err
	}
	defer ended() // before the read, which may wait for others that are much larger
	return r.assume(ctx, claimed, now)
}

// refused ends the session if the error says that it is not to be recovered, and returns the error
// for the caller to return.
func (r *recovery) refused(ctx context.Context, err error) error {
	if errors.Is(err, session.ErrTooLarge) { // commands have joined it to all these rooms
		err = &refusal{refusedRooms, err}
	}
	if refused := (*refusal)(nil); errors.As(err, &refused) {
		r.resign()
		if refused.reason == refusedHistory && r.genuine {
			r.socket.ns.srv.condemn(ctx, r.seen)
		}
	}
	return err
}

// joinRequested joins the rooms that the middlewares requested and that the session of a socket that
// is being recovered does not have. The gate stays shut. A client that repeatedly leaves such rooms
// and reconnects must not make its session grow.
func (r *recovery) joinRequested(ctx context.Context) error {
	s := r.socket
	s.mu.Lock()
	added := s.missing(r.request.rooms)
	if len(added) == 0 {
		s.mu.Unlock()
		if r.stale {
			return s.save(ctx)
		}
		return nil
	}
	if err := s.tooManyStays(len(added)); err != nil {
		s.mu.Unlock()
		return &refusal{refusedRooms, err}
	}
	s.enter(added)
	s.mu.Unlock()
	return s.complete(ctx, added, nil, nil)
}

// answer sends the client the answer to CONNECT of a recovered socket. It also sends the urgent held deliveries, which
// must not wait for the missed events, unless these contain them: they reach up to end.
func (r *recovery) answer(end adapter.Cursor) error {
	s := r.socket
	r.request = nil // and the payload of CONNECT, which need not be kept for the replay
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
	s.ns.reportRooms(s.ID(), true, names...)
	return nil
}

// condemn reports a position to the adapter that a client has been given and that the history
// lacks. Then no client's position is reliable.
func (s *Server) condemn(ctx context.Context, seen adapter.Cursor) {
	if a, ok := s.adapter.(adapter.Fallible); ok {
		if err := a.Condemn(ctx, seen); err != nil {
			s.log.Error("starting a new history failed after a loss of data", zap.Error(err))
		}
	}
}
