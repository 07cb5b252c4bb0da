package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A Former is the session that a client wants to continue, as it was stored last.
type Former struct {
	User string
	Data json.RawMessage // nil for none
	Kept []byte          // of [ConnectRequest.Keep]; nil for none
	// Away is for how long the client has certainly been disconnected. It may have been for one
	// [RefreshPeriod] longer, because nodes record only once per period who is connected.
	Away time.Duration
}

// Former returns the session that the client wants to continue. ok is false if the client names none
// that exists in this namespace, or the store cannot determine that without a claim. The client has proved by the
// private id that it is the session's client; whether it will be recovered is not decided yet.
//
// It reads from the store, for the time that ctx allows. The error wraps ErrTemporary, so that a
// middleware can return it.
func (r *ConnectRequest) Former(ctx context.Context) (f Former, ok bool, err error) {
	s, srv := r.socket, r.socket.ns.srv
	pid, _, _ := connectAuth(r.auth)
	p, able := srv.sessions.(session.Peeker)
	if r.alone || !s.recovers || !able || !isID(pid) || srv.owned.over(pid) {
		return f, false, nil
	}
	if srv.recoveries.wait(pid, time.Now()) > 0 { // its recovery will not be tried either
		return f, false, temporary(errTooOften)
	}
	found, left, err := p.Peek(ctx, pid)
	switch {
	case errors.Is(err, session.ErrNotFound), errors.Is(err, session.ErrUndecodable):
		return f, false, nil
	case err != nil:
		return f, false, temporary(err)
	case found.Namespace != s.nsName:
		return f, false, nil
	}
	away := srv.opts.sessionLife() - left - RefreshPeriod(srv.opts.RecoveryWindow)
	return Former{found.User, found.Data, kept(found.Rooms), max(0, away)}, true, nil
}

// RestOnFormer states that the middleware has decided by what [ConnectRequest.Former] has shown. If the client
// is not recovered, all middlewares run once more, and Former shows nothing: a server may have
// disconnected the client while it was away, which is known only when the recovery has read what it
// missed. The exception is a session from before history was lost.
func (r *ConnectRequest) RestOnFormer() {
	_ = r.decide(func() error {
		r.resting = true
		return nil
	})
}

// A baseless error says that the decisions rest on a session that is not recovered.
type baseless struct{ request *ConnectRequest }

func (*baseless) Error() string { return "socketio: decided by a session that is not recovered" }

// anew makes the request one that nobody has decided about, without a former session.
func (r *ConnectRequest) anew() {
	s := r.socket
	s.mu.Lock()
	defer s.mu.Unlock()
	r.final, r.id, r.rooms, r.keep, r.data = false, "", nil, nil, nil
	r.resting, r.alone = false, true
	s.user, s.values, s.kept = "", nil, ""
}

func temporary(err error) error { return errors.Join(ErrTemporary, err) }

// Returning reports whether the client states that it has a session to continue.
func (r *ConnectRequest) Returning() bool {
	pid, _, _ := connectAuth(r.auth)
	return r.socket.recovers && pid != ""
}

// Keep stores bytes with the session, for the middlewares of the client's later connections: see
// [ConnectRequest.Former]. They are stored for a recovered socket too, in place of what its session had
// before; without Keep that is forgotten. Nobody else is shown them. They count in the size of the
// session, as the socket's data do.
func (r *ConnectRequest) Keep(data []byte) {
	_ = r.decide(func() error {
		r.socket.kept = string(data)
		return nil
	})
}

// isKept is the bit in the kind of a membership that holds what Keep has stored.
const isKept = 1 << 3

// saveKept returns the bytes of Keep in the form of a session. Nodes of 0.4 to 0.6 take it for a copy
// that is apart, at a position that no event has; see receipt.save.
func saveKept(text, epoch string) session.Membership {
	return session.Membership{
		Kind: uint8(rooms.Named) | isApart | isKept, Name: text,
		Join: adapter.Cursor{Epoch: epoch}.String(), Leave: never(epoch),
	}
}

// kept returns the result of saveKept in a session, or nil.
func kept(list []session.Membership) []byte {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Kind&isKept != 0 {
			return []byte(list[i].Name)
		}
	}
	return nil
}
