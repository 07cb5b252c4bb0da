package socketio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
)

// A ConnectRequest is a client's request to connect to a namespace. The middlewares of the namespace
// accept or refuse it, and decide its socket's initial user, data, values and rooms; see
// [Namespace.Use].
//
// Its methods are safe for concurrent use. When the middlewares have returned, or the client has
// disconnected, decisions are final: SetUser, SetValue, Keep and KeepRooms have no effect, and Join,
// SetData and Emit return ErrDisconnected. Use the [Socket] that OnConnect gets.
type ConnectRequest struct {
	socket *Socket
	auth   json.RawMessage

	// The decisions. The socket's lock guards them until they are final.
	final bool
	id    string                   // of the socket unless it is recovered
	rooms []string                 // that the socket is in from the start
	keep  []func(room string) bool // of KeepRooms
	data  json.RawMessage          // of SetData; not for a recovered socket

	resting bool // of RestOnFormer
	alone   bool // Former shows no session: the client's was not recovered
}

// errDecided is returned when it is too late for a decision.
var errDecided = fmt.Errorf("%w: middlewares have returned", ErrDisconnected)

// decide calls f, which takes a decision, unless it is too late for that.
func (r *ConnectRequest) decide(f func() error) error {
	s := r.socket
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stage.gone():
		return ErrDisconnected
	case r.final:
		return errDecided
	}
	return f()
}

// ID returns the id that the socket gets if it is a new one. A recovered socket gets its former id, so
// do not store this id, and do not use it to except the socket from a broadcast.
func (r *ConnectRequest) ID() string {
	r.socket.mu.Lock()
	defer r.socket.mu.Unlock()
	return r.id
}

// Namespace returns the namespace that the client requests.
func (r *ConnectRequest) Namespace() *Namespace { return r.socket.ns }

// Handshake returns the first request of the connection, as [Socket.Handshake] does.
func (r *ConnectRequest) Handshake() *engineio.Handshake { return r.socket.Handshake() }

// Transport returns "polling" or "websocket".
func (r *ConnectRequest) Transport() string { return r.socket.Transport() }

// Auth decodes the payload that the client connects with: an object of at most 64 KiB. The socket
// does not keep it. For handlers, keep values with SetValue or SetData. A *json.RawMessage gets a copy
// of the payload, which is valid JSON, without a further check.
func (r *ConnectRequest) Auth(v any) error {
	if raw, ok := v.(*json.RawMessage); ok && raw != nil {
		*raw = bytes.Clone(r.auth)
		return nil
	}
	return json.Unmarshal(r.auth, v)
}

// User returns the user that SetUser has set.
func (r *ConnectRequest) User() string { return r.socket.User() }

// SetUser sets the socket's user. A session can only be recovered for the user that it began with.
func (r *ConnectRequest) SetUser(user string) {
	_ = r.decide(func() error {
		r.socket.user = user
		return nil
	})
}

// Value returns the value that SetValue stored under a key, or nil.
func (r *ConnectRequest) Value(key any) any { return r.socket.Value(key) }

// SetValue stores a value with the socket, as [Socket.SetValue] does: for results of a middleware that
// handlers or later middlewares need.
func (r *ConnectRequest) SetValue(key, value any) {
	_ = r.decide(func() error {
		r.socket.setValue(key, value)
		return nil
	})
}

// SetData sets the data of a new socket, as JSON; see [Socket.SetData]. A recovered socket has the data
// that it had before. If the data do not fit into a session, which has 1 MiB in Redis, a client that can
// recover is refused.
func (r *ConnectRequest) SetData(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("socketio: data: %w", err)
	}
	return r.decide(func() error {
		r.data = data
		return nil
	})
}

// Join adds rooms to those that the socket is in from the start: before the client's CONNECT is
// answered, also if it is recovered. A recovered client gets the missed events of rooms that it was
// in before; other rooms begin then. An error is one of the names or of Options.RoomsPerSocket, and
// no room is added.
func (r *ConnectRequest) Join(names ...string) error {
	if err := checkRooms(names); err != nil {
		return err
	}
	return r.decide(func() error {
		all := r.rooms
		for _, name := range names {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
		srv := r.socket.ns.srv
		if maximum := srv.opts.RoomsPerSocket; len(all) > maximum {
			srv.stats.tooManyRooms.Add(1)
			return fmt.Errorf("%w: at most %d", ErrTooManyRooms, maximum)
		}
		r.rooms = all
		return nil
	})
}

// KeepRooms bounds the rooms of a client that is recovered: it leaves those for which keep
// returns false, and gets none of their missed events. Rooms that a middleware joins stay, and
// so do those that a command such as SocketsJoin put the client into. If KeepRooms is called
// several times, every function must return true for a room to be kept.
//
// keep is called without any lock, when the middlewares have returned. A room for which it
// panics is not kept.
func (r *ConnectRequest) KeepRooms(keep func(room string) bool) {
	checkFunc("ConnectRequest.KeepRooms", keep)
	_ = r.decide(func() error {
		r.keep = append(r.keep, keep)
		return nil
	})
}

// keeps reports whether a recovered socket stays in a room, given the final decisions. It calls the
// application, so no lock is held.
func (r *ConnectRequest) keeps(room string) bool {
	if slices.Contains(r.rooms, room) {
		return true
	}
	for _, keep := range r.keep {
		kept := false
		if r.socket.ns.srv.guard("KeepRooms", func() { kept = keep(room) }) != nil || !kept {
			return false
		}
	}
	return true
}

// Emit sends an event to the client, which gets it before it is connected. The event has no place in
// the order, and is not kept. For clients that recover it carries null in place of the offset.
func (r *ConnectRequest) Emit(event string, args ...any) error {
	data, attachments, err := encodeEmit(event, args)
	if err != nil {
		return err
	}
	s := r.socket
	if s.recovers {
		data = withoutOffset(data)
	}
	p := &packet.Packet{Type: packet.Event, Namespace: s.nsName, Data: data, Attachments: attachments}
	return r.decide(func() error {
		if s.client.send(p) != nil {
			return ErrDisconnected
		}
		return nil
	})
}

// errInternal is sent to a client after a panic.
var errInternal = errors.New("internal error")

// screen runs the middlewares. When it returns, the decisions are final.
func (r *ConnectRequest) screen() error {
	s, srv := r.socket, r.socket.ns.srv
	defer func() {
		s.mu.Lock()
		r.final = true
		s.mu.Unlock()
	}()
	var id string
	err := errInternal
	srv.guard("NewID", func() { id, err = srv.opts.NewID(s.ctx, r) })
	if err != nil {
		return err
	}
	s.mu.Lock()
	r.id = id
	s.mu.Unlock()
	for _, rules := range s.ns.rulesNow() {
		for _, f := range rules.use {
			err = errInternal
			srv.guard("Use", func() { err = f(s.ctx, r) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}
