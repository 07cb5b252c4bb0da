package socketio

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
