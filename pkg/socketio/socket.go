package socketio

import (
	"bytes"
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
	auth   json.RawMessage // nil once OnConnect has run; guarded by mu from the answer to CONNECT
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
	values    []keyed // of this node only
	rooms     memberships
	receipt   *receipt   // of what the client has been given; nil unless it recovers
	screening *screening // nil if the middlewares have decided nothing, and once it is connected
	gate      gate
	recovers  bool // whether the client gets a private ID and offsets; constant
	recovered bool
	unlisted  bool // it has been removed from a room in the index since it was last offered anything
	dismissed dismissal
	lingering int32 // the number of rooms that it has left and is still in the index for
	// newestJoin is the newest of its join positions: later events need no check of each
	// membership.
	newestJoin adapter.Cursor
	placed     bool          // in the index, so that what is published reaches it
	screened   bool          // its middlewares are running
	subscribed bool          // its rooms are subscribed
	recovering bool          // its gate belongs to a recovery
	connected  bool          // from CONNECT to OnDisconnect
	gone       bool          // nothing is delivered any more
	over       bool          // gone, and its session with it
	moved      bool          // another socket serves its session
	former     string        // the node of the previous claim; "" once it is connected
	silent     Reason        // of a disconnect that was not reported; of the mailbox
	ended      chan struct{} // closed when a connected socket has been disconnected; nil unless awaited
	acks       map[string]*answering
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

func newSocket(c *client, namespace string, auth json.RawMessage) *Socket {
	s := &Socket{client: c, nsName: namespace, auth: auth, changing: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancelCause((*socketContext)(s))
	return s
}

// ID returns the public id. In a middleware it is provisional: a recovered socket gets its former
// one, so do not keep it, and do not use it to except the socket from a broadcast.
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

// Auth decodes the payload that the client connected with: an object of at most 64 KiB. It is kept
// for middlewares and OnConnect only: when the functions of OnConnect have returned, Auth returns
// [ErrAuthDropped]. To keep values for later use SetValue or SetData. A *json.RawMessage gets a copy
// of the payload, which is valid JSON, without a further check.
func (s *Socket) Auth(v any) error {
	s.mu.Lock()
	auth := s.auth
	s.mu.Unlock()
	if auth == nil {
		return ErrAuthDropped
	}
	if raw, ok := v.(*json.RawMessage); ok && raw != nil {
		*raw = bytes.Clone(auth)
		return nil
	}
	return json.Unmarshal(auth, v)
}

// dropAuth drops the payload, which would otherwise be kept as long as the socket.
func (s *Socket) dropAuth() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.auth = nil
}

// Transport returns "polling" or "websocket".
func (s *Socket) Transport() string { return s.client.conn.Transport() }

// Recovered reports whether this is the socket that the client had before, with everything that it
// missed. The result is final when OnConnect runs.
func (s *Socket) Recovered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recovered
}

// Connected reports whether the client has been told that it is connected, and
// OnDisconnect has not run yet.
func (s *Socket) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connected
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
// errors.Is. For a refused client it returns the error that refused it.
func (s *Socket) Context() context.Context { return s.ctx }

// User returns the user that SetUser has set.
func (s *Socket) User() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.user
}

// SetUser sets the socket's user. Call it in a middleware: a session can only be recovered for the
// user that it began with.
func (s *Socket) SetUser(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user = user
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
