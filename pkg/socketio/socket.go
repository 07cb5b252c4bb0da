package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A Socket is one client in one namespace. Its methods are safe for concurrent use. After a
// disconnect they have no effect or return ErrDisconnected.
type Socket struct {
	nsName string
	ns     *Namespace // known when middlewares run
	client *client
	mail   mailbox
	ctx    context.Context
	cancel context.CancelCauseFunc
	// changing is held while the membership is changed or the session is written, by one goroutine
	// at a time. It is a channel so that the wait for it can end.
	changing chan struct{}

	mu        sync.Mutex
	id        string
	pid       string // "" for a client that does not recover
	fence     uint64
	user      string
	data      json.RawMessage
	kept      string  // of ConnectRequest.Keep
	values    []keyed // of this node only
	rooms     memberships
	catchUp   *catchUp // of the last recovery; nil once the client has received it
	receipt   *receipt // records the events that the client has been given; nil unless it recovers
	gate      gate
	recovers  bool // whether the client gets a private ID and offsets; constant
	recovered bool
	unlisted  bool  // it has been removed from a room in the index since it was last offered anything
	dismissed bool  // it must be disconnected with its connection as soon as it is connected
	lingering int32 // the number of rooms that it has left and is still in the index for
	// newestJoin is the newest of its join positions: later events need no check of each
	// membership.
	newestJoin adapter.Cursor
	stage      stage
	session    sessionState
	placed     bool          // in the index, so that events reach it
	subscribed bool          // its rooms are subscribed
	former     string        // the node of the previous claim; "" once it is connected
	silent     Reason        // of a disconnect that was not reported; of the mailbox
	ended      chan struct{} // closed when a connected socket has been disconnected; nil unless awaited
	acks       map[string]*responder
	opened     chan struct{}            // closed when the gate opens or the socket ends; nil unless awaited
	order      atomic.Pointer[ackOrder] // nil until a handler publishes; set under mu

	handlers     map[string][]Handler
	once         map[string][]Handler
	onAny        []Handler
	outgoing     *outgoing // nil until OnAnyOutgoing
	onEvent      []Handler
	onError      []func(error)
	onLeaving    []func(Reason)
	onDisconnect []func(Reason)
}

func newSocket(c *client, namespace string) *Socket {
	s := &Socket{client: c, nsName: namespace, changing: make(chan struct{}, 1)}
	s.rooms.partitions = int32(c.srv.feed.now().Partitions())
	s.ctx, s.cancel = context.WithCancelCause((*socketContext)(s))
	return s
}

// ID returns the public id.
func (s *Socket) ID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// Namespace returns the namespace that the socket is in.
func (s *Socket) Namespace() *Namespace { return s.ns }

// Handshake returns the first request of the connection, which may be older than
// the socket. It is shared and read-only.
func (s *Socket) Handshake() *engineio.Handshake { return s.client.conn.Handshake() }

// Transport returns "polling" or "websocket".
func (s *Socket) Transport() string { return s.client.conn.Transport() }

// Recovered reports whether this is the client's former socket, with every event that the client
// missed.
func (s *Socket) Recovered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recovered
}

// Connected reports whether OnDisconnect has not run yet.
func (s *Socket) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stage.connected()
}

// hasEnded reports whether delivery to the socket has ended.
func (s *Socket) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stage.gone()
}

// Context ends when the socket ends: its client left, was disconnected or cut,
// reconnected and is served by another Socket, or the server closes. It is the
// context that handlers get, so a handler that waits for it must return then:
// until it does, OnDisconnect does not run and Close waits.
//
// It ends before OnDisconnect runs. Events that had arrived are still handled: the context ends
// when they have been, at most a second after the socket. In that time it can be used to publish
// events that a client sent before it left.
//
// [context.Cause] returns a *[DisconnectError] with the reason, which matches ErrDisconnected with
// errors.Is.
func (s *Socket) Context() context.Context { return s.ctx }

// User returns the user that a middleware has set with [ConnectRequest.SetUser].
func (s *Socket) User() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.user
}

// Data decodes the value that SetData stored last; if there is none it leaves v unchanged.
func (s *Socket) Data(v any) error {
	s.mu.Lock()
	data := s.data
	s.mu.Unlock()
	if data == nil {
		return nil
	}
	return json.Unmarshal(data, v)
}

// SetData stores a value, as JSON, with the socket: FetchSockets shows it, and a recovered socket
// has it again. It returns when the value is stored, and returns ErrDisconnected if the socket has
// ended. If the error wraps [session.ErrTooLarge] the value is unchanged.
func (s *Socket) SetData(ctx context.Context, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("socketio: data: %w", err)
	}
	done, err := s.changeLive(ctx)
	if err != nil {
		return err
	}
	defer done()
	s.mu.Lock()
	was := s.data
	s.data = data
	s.mu.Unlock()
	if err = s.save(ctx); errors.Is(err, session.ErrTooLarge) {
		s.mu.Lock()
		s.data = was
		s.mu.Unlock()
	}
	return err
}

// A keyed is a value of a socket, in a slice because a socket has few values and there are many
// sockets.
type keyed struct{ key, value any }

// SetValue stores a value with the socket, under a key of the caller's own type, as those of
// [context.WithValue]. It stays on this node and ends with the socket: a recovered one has the values
// that the middlewares of its new connection set, and [SocketInfo] shows none. SetData is for values
// that must survive a recovery.
func (s *Socket) SetValue(key, value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setValue(key, value)
}

// setValue is SetValue with s.mu held.
func (s *Socket) setValue(key, value any) {
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

// Rooms returns the named rooms that the socket is in, sorted.
func (s *Socket) Rooms() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rooms.sorted()
}

// RoomCount returns the number of named rooms that the socket is in.
func (s *Socket) RoomCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.rooms.open)
}

// InRoom reports whether the socket is in a named room.
func (s *Socket) InRoom(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rooms.current(name) != nil
}

// endDelivery ends delivery. s.mu is held.
func (s *Socket) endDelivery() {
	s.stage.finish()
	s.gate.drop()
}

// ref returns the session of the socket and its fence, or the zero Ref if it has none.
func (s *Socket) ref() session.Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	return session.Ref{PID: s.pid, Fence: s.fence}
}
