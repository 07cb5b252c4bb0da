package socketio

import (
	"maps"

	"github.com/rejoin-io/rejoin/pkg/packet"
)

// On registers a handler of an event for this socket. Handlers of the same event run in the order
// of registration, before those of the namespace. On panics if h is nil or the event's name is
// reserved.
func (s *Socket) On(event string, h Handler) {
	registerHandler("On", &s.mu, &s.handlers, event, h)
}

// Once registers a handler of the next occurrence of an event only. An event that a middleware
// rejects does not count.
func (s *Socket) Once(event string, h Handler) {
	registerHandler("Once", &s.mu, &s.once, event, h)
}

// Off removes this socket's handlers of an event.
func (s *Socket) Off(event string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers = maps.Clone(s.handlers)
	delete(s.handlers, event)
	delete(s.once, event)
}

// OnAny calls h with every event, before the middlewares.
func (s *Socket) OnAny(h Handler) { register("Socket.OnAny", &s.mu, &s.onAny, h) }

// OnAnyOutgoing calls f with every event that is queued to the client, except acks and the missed
// events of a recovery.
//
// f is called on a separate goroutine, for one event after the other in their order, concurrently
// with the socket's handlers, and may use the socket. Delivery does not wait for it: if it falls
// more than 1 MiB or 8,192 events behind, further calls are skipped and this is logged. A panic
// is reported and does not affect the connection.
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

// An outgoing holds the functions of OnAnyOutgoing. The socket's lock guards fs.
type outgoing struct {
	*watcher
	fs []func(event string, args Args)
}

// OffAny removes the handlers that OnAny has added to this socket.
func (s *Socket) OffAny() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onAny = nil
}

// OffAnyOutgoing removes the functions that OnAnyOutgoing has added. They may still be called for
// events that were queued before.
func (s *Socket) OffAnyOutgoing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outgoing != nil {
		s.outgoing.fs = nil
	}
}

// Use adds a middleware for this socket's events, which runs before the handlers. If it returns an
// error, the handlers do not run and the error goes to OnError. A middleware may change e.Name and
// e.Args: the handlers that run, the socket's and the namespace's, are those of the final name.
// Only OnAny sees the event as the client sent it.
func (s *Socket) Use(f Handler) { register("Socket.Use", &s.mu, &s.onEvent, f) }

// OnError calls f with errors of handlers and middlewares, and with protocol errors of packets.
// Without any such function errors are logged.
func (s *Socket) OnError(f func(error)) { register("OnError", &s.mu, &s.onError, f) }

// OnDisconnecting calls f when the socket is about to be disconnected and is still in its rooms. In
// the late case that OnDisconnect describes, the socket has already left them.
// f is called after the last event has been handled, and may block; [Server.Close] waits for it.
func (s *Socket) OnDisconnecting(f func(Reason)) { register("OnDisconnecting", &s.mu, &s.onLeaving, f) }

// OnDisconnect calls f when the socket has been disconnected and has left its rooms. It is not
// called for a socket whose client reconnected before the server detected the end of its
// connection, because then there is no disconnect to report; Context ends in any case. If that
// reconnect fails, because the session cannot be recovered or the new connection is cut,
// OnDisconnecting and OnDisconnect are called late, after the socket has left its rooms. A node
// that cannot reach the session store when a connection ends may call f although the client is
// already connected to another node.
func (s *Socket) OnDisconnect(f func(Reason)) { register("OnDisconnect", &s.mu, &s.onDisconnect, f) }

// reportOutgoing reports an event that is queued. s.mu is held.
func (s *Socket) reportOutgoing(d *delivery) {
	fs := s.outgoing.fs
	if len(fs) == 0 {
		return
	}
	s.outgoing.report(s.client.srv, d.size(), func() {
		name, raw, err := packet.SplitEvent(d.ev.Data)
		if err != nil {
			return
		}
		for _, f := range fs {
			s.guard("OnAnyOutgoing", func() { f(name, Args{raw, d.ev.Attachments}) })
		}
	})
}
