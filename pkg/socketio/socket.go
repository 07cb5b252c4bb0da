package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A Socket is one client in one namespace. Its methods may be called at once,
// also after it was disconnected, when they have no effect or return
// ErrDisconnected.
type Socket struct {
	nsName string
	ns     *Namespace // known when middlewares run
	client *client
	auth   json.RawMessage // nil once OnConnect has run; guarded by mu from the answer to CONNECT
	mail   mailbox
	ctx    context.Context
	cancel context.CancelCauseFunc
	// changing is held by whoever changes the membership or writes the session:
	// one after another. It is a channel so that waiting for it can end.
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
	unlisted  bool // it has been taken out of a room in the index since it was last offered anything
	dismissed dismissal
	lingering int32 // how often it is in the index for rooms that it has left
	// newestJoin is the newest of its join positions: later events need no look
	// at each membership.
	newestJoin adapter.Cursor
	placed     bool          // in the index, so that what is published reaches it
	screened   bool          // its middlewares are running
	subscribed bool          // its rooms are subscribed
	recovering bool          // its gate belongs to a recovery
	connected  bool          // from CONNECT to OnDisconnect
	gone       bool          // nothing is delivered any more
	over       bool          // gone, and its session with it
	moved      bool          // its session is another socket's now
	former     string        // the node of the claim before; "" once it is connected
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

// ID returns the public id. In a middleware that is provisional: a socket that is
// recovered gets its former one, so do not keep it, and do not except it from a broadcast.
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

// Auth decodes the payload that the client connected with: an object, of at most
// 64 KiB. It is kept for middlewares and OnConnect only: when the functions of OnConnect
// have returned, Auth returns [ErrAuthDropped]. Keep what is needed later with SetValue
// or SetData.
func (s *Socket) Auth(v any) error {
	s.mu.Lock()
	auth := s.auth
	s.mu.Unlock()
	if auth == nil {
		return ErrAuthDropped
	}
	return json.Unmarshal(auth, v)
}

// dropAuth forgets the payload, which would otherwise be held as long as the socket.
func (s *Socket) dropAuth() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.auth = nil
}

// Transport returns "polling" or "websocket".
func (s *Socket) Transport() string { return s.client.conn.Transport() }

// Recovered reports whether this is the socket that the client had before, with
// everything that it missed. It is settled when OnConnect runs.
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
// It ends before OnDisconnect runs. Events that had arrived are still handled:
// the context ends when they have been, at the latest a second after the socket.
// In that time it can be used to publish what a client sent before it left.
//
// [context.Cause] is a *[DisconnectError] with the reason, for which errors.Is
// with ErrDisconnected holds; of a client that was refused it is the error that
// refused it.
func (s *Socket) Context() context.Context { return s.ctx }

// User returns whose socket this is, as SetUser said.
func (s *Socket) User() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.user
}

// SetUser says whose socket this is. It belongs into a middleware: a session can
// only be recovered for the user that it was begun for.
func (s *Socket) SetUser(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user = user
}

// Data decodes what SetData stored last; without that it leaves v as it is.
func (s *Socket) Data(v any) error {
	s.mu.Lock()
	data := s.data
	s.mu.Unlock()
	if data == nil {
		return nil
	}
	return json.Unmarshal(data, v)
}

// SetData stores a value, as JSON, with the socket: FetchSockets shows it, and
// the socket has it again when it is recovered. It returns when that is sure, and
// ErrDisconnected if the socket has ended. If the error wraps [session.ErrTooLarge] the
// value is as it was.
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

// On handles an event of this socket. Handlers of the same event run in the
// order of registration, those of the namespace last. It panics if h is nil or the
// event's name is reserved.
func (s *Socket) On(event string, h Handler) {
	checkHandler("On", event, h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers = withHandler(s.handlers, event, h)
}

// Once handles the next occurrence of an event only. One that a middleware keeps
// from its handlers does not count.
func (s *Socket) Once(event string, h Handler) {
	checkHandler("Once", event, h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.once = withHandler(s.once, event, h)
}

// Off removes this socket's handlers of an event.
func (s *Socket) Off(event string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	table := make(map[string][]Handler, len(s.handlers))
	for name, hs := range s.handlers {
		if name != event {
			table[name] = hs
		}
	}
	s.handlers = table
	delete(s.once, event)
}

// OnAny calls h with every event, before the middlewares see it.
func (s *Socket) OnAny(h Handler) {
	checkFunc("Socket.OnAny", h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onAny = append(s.onAny[:len(s.onAny):len(s.onAny)], h)
}

// OnAnyOutgoing calls f with every event that is queued to the client, without
// acks and without the missed events of a recovery.
//
// f is called on a goroutine of its own, for one event after the other in their
// order, concurrently with the socket's handlers, and may use the socket. Delivery
// does not wait for it: if it falls more than 1 MiB or 8,192 events behind, it is not
// called for further ones, which is logged. A panic is reported and has no effect on
// the connection.
func (s *Socket) OnAnyOutgoing(f func(event string, args Args)) {
	checkFunc("OnAnyOutgoing", f)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outgoing == nil {
		s.outgoing = &outgoing{watcher: newWatcher("OnAnyOutgoing")}
	}
	fs := s.outgoing.fs
	s.outgoing.fs = append(fs[:len(fs):len(fs)], f)
}

// An outgoing is what OnAnyOutgoing has registered. The socket's lock guards fs.
type outgoing struct {
	*watcher
	fs []func(event string, args Args)
}

// OffAny removes what OnAny has added to this socket.
func (s *Socket) OffAny() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onAny = nil
}

// OffAnyOutgoing removes what OnAnyOutgoing has added. Events that were queued
// before may still be passed to it.
func (s *Socket) OffAnyOutgoing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outgoing != nil {
		s.outgoing.fs = nil
	}
}

// Use adds a middleware for this socket's events, which runs before the handlers. An
// error keeps the event from them and goes to OnError. A middleware may change
// e.Name and e.Args: the handlers of the name that the last one leaves are called, the
// socket's and the namespace's. Only OnAny sees the event as the client sent it.
func (s *Socket) Use(f Handler) {
	checkFunc("Socket.Use", f)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onEvent = append(s.onEvent[:len(s.onEvent):len(s.onEvent)], f)
}

// OnError calls f with what goes wrong: errors of handlers and middlewares, and
// packets that break the protocol. Without any it is logged.
func (s *Socket) OnError(f func(error)) {
	checkFunc("OnError", f)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onError = append(s.onError[:len(s.onError):len(s.onError)], f)
}

// OnDisconnecting calls f when the socket is about to be disconnected and still
// is in its rooms, except where OnDisconnect says that it has left them.
func (s *Socket) OnDisconnecting(f func(Reason)) {
	checkFunc("OnDisconnecting", f)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onLeaving = append(s.onLeaving[:len(s.onLeaving):len(s.onLeaving)], f)
}

// OnDisconnect calls f when the socket has been disconnected and has left its
// rooms. It is not called for a socket whose client came back before its
// connection was found dead, for then nobody has gone; Context ends in any case.
// If the client is then not connected after all, because its session cannot be
// recovered or its new connection is cut before that, OnDisconnecting and
// OnDisconnect are called late, when the socket has left its rooms. A node that cannot
// reach the session store when a connection ends may call it although the client is
// already connected to another node.
func (s *Socket) OnDisconnect(f func(Reason)) {
	checkFunc("OnDisconnect", f)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onDisconnect = append(s.onDisconnect[:len(s.onDisconnect):len(s.onDisconnect)], f)
}

// receive takes an event from the client's reader to the mailbox.
func (s *Socket) receive(p *packet.Packet) error {
	srv := s.client.srv
	name, raw, err := packet.SplitEvent(p.Data)
	if err != nil {
		return err
	}
	e := &Event{Name: name, Args: Args{raw, p.Attachments}, socket: s, ackID: p.ID}
	srv.stats.eventsIn.Add(1)
	e.size = len(p.Data)
	for _, a := range p.Attachments {
		e.size += len(a)
	}
	return s.accept(e)
}

// handle runs what is registered for an event.
func (s *Socket) handle(e *Event) {
	callback := "OnAny"
	defer s.rescue(&callback)
	s.mu.Lock()
	onAny, onEvent := s.onAny, s.onEvent
	s.mu.Unlock()
	run := func(hs []Handler) bool {
		for _, h := range hs {
			if err := h(s.ctx, e); err != nil {
				if s.ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, ErrDisconnected)) {
					return false // it stopped because the socket has ended, as it should
				}
				s.fail(fmt.Errorf("event %q: %w", e.Name, err))
				return false
			}
		}
		return true
	}
	shared := s.ns.rulesNow()
	run(onAny)
	for _, r := range shared {
		run(r.onAny)
	}
	callback = "Socket.Use"
	if !run(onEvent) {
		return
	}
	callback = "On"
	s.mu.Lock()
	once, own := s.once[e.Name], s.handlers[e.Name] // by the name that the middlewares left
	delete(s.once, e.Name)
	s.mu.Unlock()
	run(once)
	run(own)
	for _, r := range shared {
		run(r.handlers[e.Name])
	}
}

// fail reports an error to the handlers of errors, or to the log.
func (s *Socket) fail(err error) {
	if !s.tellErrors(err) {
		s.client.srv.log.Warn("socket error", zap.String("namespace", s.nsName), zap.String("socket", s.ID()), zap.Error(err))
	}
}

// tellErrors calls the handlers of errors, and reports whether there are any.
func (s *Socket) tellErrors(err error) bool {
	s.mu.Lock()
	onError := s.onError
	s.mu.Unlock()
	for _, f := range onError {
		s.client.srv.guard("OnError", func() { f(err) })
	}
	return len(onError) > 0
}

// rescue keeps a panic of one socket's handler from ending all others: like
// net/http it is logged, and the connection closed. It is deferred.
func (s *Socket) rescue(callback *string) {
	if p := recover(); p != nil {
		s.tellErrors(s.client.srv.panicked(*callback, p))
		s.client.conn.Close(engineio.ForcedClose)
	}
}

// sendAck answers an event of the client.
func (s *Socket) sendAck(id string, data []byte, attachments [][]byte) error {
	ps := enginePackets(&packet.Packet{
		Type: packet.Ack, Namespace: s.nsName, ID: id, Data: data, Attachments: attachments,
	}, false)
	if s.queueAck(ps) != nil {
		return ErrDisconnected
	}
	return nil
}

// tellOutgoing reports an event that is queued. s.mu is held.
func (s *Socket) tellOutgoing(d *delivery) {
	fs := s.outgoing.fs
	if len(fs) == 0 {
		return
	}
	s.outgoing.tell(s.client.srv, d.size(), func() {
		name, raw, err := packet.SplitEvent(d.ev.Data)
		if err != nil {
			return
		}
		for _, f := range fs {
			s.guard("OnAnyOutgoing", func() { f(name, Args{raw, d.ev.Attachments}) })
		}
	})
}

// Rooms returns the named rooms that the socket is in, sorted.
func (s *Socket) Rooms() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rooms.sorted()
}

// RoomCount returns how many named rooms the socket is in.
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

// change waits for the right to change the membership or to write the session,
// and returns how to give it back.
func (s *Socket) change(ctx context.Context) (done func(), err error) {
	select {
	case s.changing <- struct{}{}:
		return func() { <-s.changing }, nil
	default:
	}
	select {
	case s.changing <- struct{}{}:
		return func() { <-s.changing }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// changeLive is change for the application. It does not wait for a socket that
// has ended, or whose recovery has not come so far that it is in its rooms. It waits for
// the commands that the feed has come to: what the application does after them must not
// come before them.
func (s *Socket) changeLive(ctx context.Context) (done func(), err error) {
	for {
		s.mu.Lock()
		live := !s.gone && (s.placed || s.screened)
		s.mu.Unlock()
		if !live {
			return nil, ErrDisconnected
		}
		if done, err = s.change(ctx); err != nil {
			return nil, err
		}
		s.mu.Lock()
		if !s.behind() {
			s.mu.Unlock()
			return done, nil
		}
		if s.opened == nil {
			s.opened = make(chan struct{})
		}
		opened := s.opened
		s.mu.Unlock()
		done()
		select {
		case <-opened:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// behind reports whether the gate is shut by commands that wait for the right to change,
// which the caller has. s.mu is held.
func (s *Socket) behind() bool { return s.gate.shut > 0 && s.placed && !s.gone }

// wake ends the waits for the gate. s.mu is held.
func (s *Socket) wake() {
	if s.opened != nil {
		close(s.opened)
		s.opened = nil
	}
}

// missing returns the names of rooms that the socket is not in, each once.
// s.mu is held.
func (s *Socket) missing(names []string) []string {
	var news []string
	for _, name := range names {
		if s.rooms.current(name) == nil {
			news = append(news, name)
		}
	}
	slices.Sort(news)
	return slices.Compact(news)
}
