package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// A screening holds the middlewares' decisions about a socket that is not connected yet. The
// socket's lock guards it, and it is dropped when the socket is connected.
type screening struct {
	granted []string // rooms that the socket is in from the start
	may     []func(room string) bool
	data    json.RawMessage // set by the middlewares while the socket has a session's data
}

// rooms returns the rooms that the socket is in from the start. A nil screening has none.
func (sc *screening) rooms() []string {
	if sc == nil {
		return nil
	}
	return sc.granted
}

// made returns the screening, or a new one in place of nil.
func (sc *screening) made() *screening {
	if sc == nil {
		return new(screening)
	}
	return sc
}

// keeps reports whether a recovered socket stays in a room. It calls the application, so no lock is
// held.
func (s *Socket) keeps(sc *screening, room string) bool {
	if sc == nil || slices.Contains(sc.granted, room) {
		return true
	}
	for _, may := range sc.may {
		allowed := false
		if s.guard("KeepRooms", func() { allowed = may(room) }) != nil || !allowed {
			return false
		}
	}
	return true
}

// errInternal is sent to a client after a panic.
var errInternal = errors.New("internal error")

// screen runs the middlewares.
func (s *Socket) screen() (err error) {
	callback, returned := "NewID", false
	defer func() {
		if p := failure(returned, recover()); p != nil {
			s.tellErrors(s.client.srv.panicked(callback, p))
			err = errInternal
		}
		s.mu.Lock()
		if s.stage == stageScreening { // it has an id
			s.stage.become(stageAdmitted)
		}
		s.mu.Unlock()
	}()
	err = s.runMiddlewares(&callback)
	returned = true
	return err
}

// runMiddlewares is screen without protection. It sets callback to the kind of function that runs.
func (s *Socket) runMiddlewares(callback *string) error {
	id, err := s.ns.srv.opts.NewID(s.ctx, s)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.id = id
	s.stage.become(stageScreening)
	s.mu.Unlock()
	*callback = "Use"
	for _, r := range s.ns.rulesNow() {
		for _, f := range r.use {
			if err := f(s.ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// joinGranted joins the rooms that the middlewares requested and that the session of a socket that
// is being recovered does not have. The gate stays shut. A client that repeatedly leaves such rooms
// and reconnects must not make its session grow.
func (s *Socket) joinGranted(ctx context.Context) error {
	s.mu.Lock()
	news := s.missing(s.screening.rooms())
	if len(news) == 0 {
		s.mu.Unlock()
		return nil
	}
	if err := s.tooManyStays(len(news)); err != nil {
		s.mu.Unlock()
		return &refusal{refusedRooms, err}
	}
	s.enter(news)
	s.mu.Unlock()
	return s.complete(ctx, news, nil)
}

// A keyed is a value of a socket, in a slice because a socket has few values and there are many
// sockets.
type keyed struct{ key, value any }

// SetValue stores a value with the socket, under a key of the caller's own type, as those of
// [context.WithValue]: for results of a middleware that handlers need. It stays on this node and
// ends with the socket: a recovered one has the values that the middlewares of its new connection
// set, and [SocketInfo] shows none. SetData is for values that must survive a recovery.
func (s *Socket) SetValue(key, value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.values {
		if s.values[i].key == key {
			s.values[i].value = value
			return
		}
	}
	s.values = append(s.values, keyed{key, value})
}

// Value returns the value that SetValue stored under a key, or nil.
func (s *Socket) Value(key any) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.values {
		if v.key == key {
			return v.value
		}
	}
	return nil
}

// KeepRooms takes the socket out of the named rooms that may does not allow, except those that a
// command such as SocketsJoin put it into. It returns as Leave does.
//
// In a middleware it applies to the rooms of a client that is recovered, and takes effect only if
// it is: the client then is no longer in the other rooms, and gets none of their missed events.
// Rooms that a middleware joins stay. If several middlewares call it, all must allow a room.
//
// may is called without any lock. In a recovery it is called before the socket is in its rooms, so
// there Join, Leave, SetData and KeepRooms return ErrDisconnected, and a room for which it panics
// is not kept. Otherwise a panic propagates to the caller.
func (s *Socket) KeepRooms(ctx context.Context, may func(room string) bool) error {
	checkFunc("KeepRooms", may)
	s.mu.Lock()
	if s.stage == stageScreening {
		s.screening = s.screening.made()
		s.screening.may = append(s.screening.may, may)
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	done, err := s.changeLive(ctx) // joins in flight end first
	if err != nil {
		return err
	}
	done()
	drop := slices.DeleteFunc(s.Rooms(), may)
	return s.leaveThose(ctx, func() []string {
		return slices.DeleteFunc(drop, func(name string) bool {
			st := s.rooms.current(name)
			return st == nil || st.commanded
		})
	})
}

// Cut closes the socket's connection, and with it the client's sockets in other namespaces, in a
// way that makes stock clients reconnect: they pass the middlewares again and are recovered. It
// does not wait. A socket that has left its namespace, or was refused, has no connection any more,
// and nothing is closed. Use Disconnect for clients that must not reconnect.
func (s *Socket) Cut() {
	s.mu.Lock()
	over := s.stage.gone() || s.ctx.Err() != nil
	s.mu.Unlock()
	if !over {
		s.client.conn.Close(engineio.TransportClose)
	}
}
