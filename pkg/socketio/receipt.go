package socketio

import (
	"math"
	"strings"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A receipt says what a client has been given, as its node knows it. The offset that the
// client shows does not say all of that: it stands still while its rooms go on with what
// is not for it, and the client may show any offset that a node has given out.
//
// It is stored with the memberships, always in one write. Its invariants:
//
//   - A client whose offset includes sent has received everything that was for it and
//     that given covers.
//   - Every command that given covers has been executed, or was not for the socket: the
//     memberships are what became of it.
//   - If it is final, no offset that given does not include has been sent to the client.
//
// Where it is out of date the first two hold all the same. The third one is why a
// connection stores it before anything can be sent on it, as not final.
type receipt struct {
	// sent is the last offset that the client was sent with an event that it must not
	// miss, or else the one that it has shown. Zero is none: any offset includes it.
	sent  adapter.Cursor
	given adapter.Cursor
	final bool // in the session; what a recovery has found there is not final any more
	// overlooked counts the stored events that have left sent as it is, since it or the
	// session was written.
	overlooked int
	// adopted: a recovery has made the memberships those of given.
	adopted bool
	// demanded: sent has not been sent yet.
	demanded bool
}

// isReceipt is the bit in the kind of a membership that is a receipt.
const isReceipt = 1 << 4

// save returns the receipt as a session keeps it: nodes of 0.4 before it take it for a copy
// that is apart, at a position that no event has, and forget it at their first recovery
// of the session, because nobody has received the later copy.
func (r *receipt) save() session.Membership {
	final := adapter.Cursor{Epoch: r.given.Epoch}
	if r.final {
		final.At.Seq = 1
	}
	never := adapter.Cursor{Epoch: r.given.Epoch, At: adapter.Position{Ms: math.MaxUint64}}
	return session.Membership{
		Kind: uint8(rooms.Named) | isApart | isReceipt, Name: r.sent.String() + " " + r.given.String(),
		Join: final.String(), Leave: never.String(),
	}
}

// restoreReceipt reads what save wrote.
func restoreReceipt(m session.Membership) (r receipt, err error) {
	sent, given, _ := strings.Cut(m.Name, " ")
	if r.given, err = adapter.ParseCursor(given); err != nil {
		return r, err
	}
	if sent != "" {
		if r.sent, err = adapter.ParseCursor(sent); err != nil {
			return r, err
		}
	}
	final, err := adapter.ParseCursor(m.Join)
	r.final = final.At.Seq == 1
	return r, err
}

// received returns what a client has received that shows an offset, or none, and from
// where on it is to be recovered.
func (r *receipt) received(offset adapter.Cursor) (shown, from adapter.Cursor) {
	switch {
	case r.given.IsZero():
		return offset, offset
	case r.final && !offset.IsZero() && !r.given.Includes(offset):
		offset = offset.Min(r.given) // it is another connection's
	}
	switch {
	case !r.sent.IsZero() && (offset.IsZero() || !offset.Includes(r.sent)):
		return offset, offset
	case offset.IsZero():
		return offset, r.given
	}
	return offset, offset.Max(r.given)
}

// observe notes what the client has been given when the feed had come to a cursor, or
// later. Everything up to it must have been offered to the socket. s.mu is held.
func (s *Socket) observe(at adapter.Cursor) {
	r := s.receipt
	if r == nil {
		return
	}
	if !at.IsZero() && !s.gate.closed() { // what is held has not been given
		r.given = r.given.Max(s.gate.given(at, s.rooms.born))
	}
	if !r.sent.IsZero() && !r.demanded {
		r.given = r.given.Max(r.sent)
	}
}

// noteSent notes that an event which the client must not miss is sent with an offset, also
// if it cannot be queued: then no client shows that offset. Of several events that come late
// only the last one has an offset that counts. s.mu is held.
func (r *receipt) noteSent(at adapter.Cursor, late bool) {
	if !late || at.Includes(r.sent) {
		r.sent, r.demanded, r.overlooked = at, false, 0
	}
}

// demand notes that a command gives the client events late, which nothing but an offset that
// covers the command says of. They have not been given before the gate opens. s.mu is held.
func (s *Socket) demand(command *place) {
	r := s.receipt
	if r == nil {
		return
	}
	r.given = r.given.Max(s.gate.given(command.before, s.rooms.born))
	if r.sent.IsZero() || !r.sent.Includes(command.seen) {
		r.sent, r.demanded = command.seen, true
	}
}

// overlookedEvents is after how many events that leave the client's offset as it is the
// session is written: a room keeps more. The node may die, or the client come back before
// its connection is found dead.
const overlookedEvents = 250

// overlook counts an event that leaves the client's offset as it is. s.mu is held.
func (s *Socket) overlook(d *delivery) {
	r := s.receipt
	if r == nil || !d.ev.Stored || d.local {
		return
	}
	if r.overlooked++; r.overlooked < overlookedEvents || s.gate.closed() || !s.connected {
		return
	}
	r.overlooked = 0
	srv := s.ns.srv
	srv.spawn(func() {
		ctx, cancel := srv.store()
		defer cancel()
		if done, err := s.change(ctx); err == nil {
			defer done()
			_ = s.save(ctx) // what it says of a session that is gone has been done
		}
	})
}
