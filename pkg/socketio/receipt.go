package socketio

import (
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A receipt records which events a client has been given, as its node knows it. The client's
// offset does not say all of that: it does not change while its rooms have events that are not
// for it.
//
// It is stored with the memberships, always in one write. Its invariants:
//
//   - A client whose offset includes sent has received everything that was for it and
//     that given covers.
//   - Every command that given covers has been executed, or was not for the socket: the memberships
//     reflect it.
//
// An older receipt is valid as well, because it only contains less. given is an offset that the
// node could have sent to the client after the last one, so a recovery that begins with it is
// equivalent to one with such an offset.
type receipt struct {
	// sent is the last offset that the client was sent with an event that it must not miss, also if
	// it could not be queued, or else the one that it has shown. It is set before late events are
	// sent, of which only the last has an offset that counts. Zero means none: any offset includes
	// it.
	sent  adapter.Cursor
	given adapter.Cursor
	// overlooked counts the stored events that have left sent unchanged since it changed or the
	// session was written.
	overlooked int
	// former is the receipt of the last long silence: a client that has received nothing since is
	// recovered from its end, because what followed an older position may have expired. It holds as
	// every older receipt does. nil for none.
	former *receipt
}

// isReceipt is the bit in the kind of a membership that is a receipt.
const isReceipt = 1 << 4

// save returns the receipt in the form of a session. Nodes of 0.4 before it take it for a copy that
// is apart, at a position that no event has, and forget it at their first recovery of the session,
// because no client has received the later copy.
func (r *receipt) save() session.Membership {
	return session.Membership{
		Kind: uint8(rooms.Named) | isApart | isReceipt, Name: r.sent.String() + " " + r.given.String(),
		Join: adapter.Cursor{Epoch: r.given.Epoch}.String(), Leave: never(r.given.Epoch),
	}
}

// add adds what save wrote to the receipts that precede it in the session, of which the last is r.
func (r *receipt) add(m session.Membership) error {
	next, err := restoreReceipt(m)
	if err == nil && !r.given.IsZero() {
		next.former = &receipt{sent: r.sent, given: r.given}
	}
	*r = next
	return err
}

// restoreReceipt reads the result of save.
func restoreReceipt(m session.Membership) (r receipt, err error) {
	sent, given, _ := strings.Cut(m.Name, " ")
	if r.given, err = adapter.ParseCursor(given); err == nil && sent != "" {
		r.sent, err = adapter.ParseCursor(sent)
	}
	return r, err
}

// from returns the position from which to recover a client that shows an offset, or none. An offset
// that given does not include comes from another connection, or is newer.
func (r *receipt) from(offset adapter.Cursor) adapter.Cursor {
	switch {
	case r.holds(offset):
		return r.given
	case r.former != nil && r.former.holds(offset):
		return r.former.given
	}
	return offset
}

// holds reports whether a client that shows an offset, or none, has received what given covers.
func (r *receipt) holds(offset adapter.Cursor) bool {
	switch {
	case r.given.IsZero():
		return false
	case offset.IsZero():
		return r.sent.IsZero()
	}
	return r.given.Includes(offset) && (r.sent.IsZero() || offset.Includes(r.sent))
}

// sends notes the offset of an event that the client is sent. s.mu is held.
func (s *Socket) sends(at adapter.Cursor) {
	r := s.receipt
	if s.isSilence(at.At) {
		r.former = &receipt{sent: r.sent, given: r.given}
	}
	r.sent, r.overlooked = at, 0
}

// isSilence reports whether a position is so long after the last event that the client was sent that what
// it has been given must be known if it does not receive the next event: what followed the last one may
// have expired, or its former rooms be forgotten. s.mu is held. Each event for each member comes here, so
// it makes no times of positions.
func (s *Socket) isSilence(at adapter.Position) bool {
	last := s.receipt.sent.At.Ms
	if last == 0 {
		last = s.rooms.born.At.Ms
	}
	return at.Ms > last && at.Ms-last > s.ns.srv.silent
}

// lastSent returns when the client was sent an event, or began. s.mu is held.
func (s *Socket) lastSent() time.Time {
	if last := s.receipt.sent; !last.IsZero() {
		return last.At.Time()
	}
	return s.rooms.born.At.Time()
}

// newSilence returns how long a client may be sent nothing until its session is written, so that the
// position from which it is recovered is younger than what expires; the maximum if nothing does.
func newSilence(a adapter.Adapter, sessionLife time.Duration) time.Duration {
	if a, ok := a.(adapter.CursorExpirer); ok {
		return max((a.CursorTTL()-sessionLife)/4, time.Second)
	}
	return math.MaxInt64
}

// renewals is the maximum number of sessions that are written concurrently because of silence: those of
// all sockets may be due together, and would fill the queue of the store.
const renewals = 64

// renew writes the sessions of sockets whose clients have been sent nothing for a long time. It does not
// wait, and does nothing while earlier ones are still being written.
func (s *Server) renew(served []*Socket) {
	if s.renewing.Load() > 0 {
		return
	}
	at := s.feed.now()
	now := at.At.Time()
	if local := time.Now(); now.Before(local) { // a clock of positions may stand still without events
		now = local
	}
	maximum := 1 + int(2*float64(len(served))*RefreshPeriod(s.opts.RecoveryWindow).Seconds()/s.silence.Seconds())
	var due []*Socket
	for _, sock := range served {
		sock.mu.Lock()
		r := sock.receipt
		if r != nil && sock.stage.served() && !sock.gate.closed() && !r.given.Includes(at) &&
			now.Sub(sock.lastSent()) > s.silence && now.Sub(r.given.At.Time()) > s.silence {
			due = append(due, sock)
		}
		sock.mu.Unlock()
		if len(due) == maximum { // the others have to wait
			break
		}
	}
	var next atomic.Int64
	writers := min(len(due), renewals)
	s.renewing.Store(int32(writers))
	for range writers {
		s.spawn(func() {
			defer s.renewing.Add(-1)
			for i := next.Add(1); i <= int64(len(due)) && s.ctx.Err() == nil; i = next.Add(1) {
				due[i-1].writeReceipt()
			}
		})
	}
}

// observe records which events the client has been given when the feed had reached a cursor, or a
// later one. Everything up to it must have been offered to the socket. Held events have not been
// given. s.mu is held.
func (s *Socket) observe(at adapter.Cursor) {
	if r := s.receipt; r != nil && !s.gate.closed() {
		r.given = r.given.Max(s.gate.given(at, s.rooms.born))
	}
}

// overlookedEvents is the number of events that leave the client's offset unchanged after which the
// session is written; a room keeps more. The node may crash, or the client reconnect before its
// lost connection is detected.
const overlookedEvents = 250

// overlook counts an event that leaves the client's offset unchanged. s.mu is held.
func (s *Socket) overlook(d *delivery) {
	r := s.receipt
	if r == nil || !d.ev.Stored || d.local {
		return
	}
	if r.overlooked++; r.overlooked < overlookedEvents || s.gate.closed() || !s.stage.served() {
		return
	}
	r.overlooked = 0
	s.rewrite()
}

// rewrite writes the session because of its receipt. It does not wait.
func (s *Socket) rewrite() { s.ns.srv.spawn(s.writeReceipt) }

func (s *Socket) writeReceipt() {
	ctx, cancel := s.ns.srv.store()
	defer cancel()
	if done, err := s.change(ctx); err == nil {
		defer done()
		_ = s.save(ctx) // a missing or moved session has been handled there
	}
}
