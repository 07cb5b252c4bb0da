package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

var (
	errNoNamespace = &ConnectError{Message: "Invalid namespace"}
	errTooLarge    = &ConnectError{Message: "Session too large"}
)

// admit connects a socket: it runs the middlewares and then recovers the claimed session or begins
// a new one. It ends with the client connected, refused, or disconnected.
func (s *Server) admit(r *ConnectRequest) {
	sock := r.socket
	var n *Namespace
	refused, err := false, errGoexit // unless all of the application's functions return
	defer func() {
		if err != nil && n != nil {
			s.exit(n)
		}
		switch {
		case err == nil:
		case refused && !errors.Is(err, ErrTemporary):
			sock.refuse(err)
		case !refused && errors.Is(err, session.ErrTooLarge): // the middlewares cause it each time
			s.log.Warn("connect refused", zap.String("namespace", sock.nsName), zap.Error(err))
			sock.refuse(errTooLarge)
		default:
			sock.postpone(err) // whether the client could be recovered is unknown
		}
	}()
	if n = s.enter(sock.ctx, sock.nsName, r.auth); n == nil {
		err, refused = errNoNamespace, true
		return
	}
	sock.ns = n
	pid, offset, recovery := connectAuth(r.auth)
	sock.recovers = s.recovers(sock.nsName, recovery, pid, sock.client.conn.Handshake())
	if err = r.screen(); err != nil {
		refused = true
		return
	}
	if err = s.accept(n); err != nil {
		sock.client.limited(limitDynamicNamespaces, s.opts.DynamicNamespaces, "namespaces")
		return
	}
	ctx, cancel := context.WithTimeout(sock.ctx, recoverTimeout)
	defer cancel()
	err = errGoexit
	err = r.connect(ctx, pid, offset)
	if b := (*baseless)(nil); errors.As(err, &b) {
		b.request.anew()
		err = errGoexit
		if err = b.request.screen(); err != nil {
			refused = true
			return
		}
		ctx, cancel := context.WithTimeout(sock.ctx, recoverTimeout) // the middlewares may have taken long
		defer cancel()
		err = errGoexit
		err = b.request.begin(ctx)
	}
}

// abandon ends a socket that was never connected.
func (s *Socket) abandon(cause error) {
	s.mu.Lock()
	s.endDelivery()
	s.wake()
	s.mu.Unlock()
	s.unplace()
	s.answerEnded()
	s.client.detach(s)
	s.mail.drop(s.client)
	s.cancel(cause)
}

// refuse answers CONNECT with an error. The connection stays open, and stock clients do not retry.
func (s *Socket) refuse(err error) {
	s.abandon(err)
	_ = s.client.send(&packet.Packet{Type: packet.ConnectError, Namespace: s.nsName, Data: s.connectErrorBody(err)})
}

// connectErrorBody calls methods of the error, which the application may have defined.
func (s *Socket) connectErrorBody(err error) (body []byte) {
	if s.client.srv.guard("Use", func() { body = connectErrorBody(err) }) != nil {
		return connectErrorBody(errInternal)
	}
	return body
}

// postpone abandons a socket that was never connected because of a temporary failure. The client
// gets no answer. Its connection is closed, after which stock clients reconnect.
func (s *Socket) postpone(cause error) {
	srv := s.client.srv
	s.mu.Lock()
	left := s.stage.gone() && s.session != sessionMoved // the client has left the namespace or disconnected
	s.mu.Unlock()
	s.abandon(cause)
	defer s.withdraw()
	if left {
		return
	}
	if !errors.Is(cause, ErrDisconnected) {
		srv.stats.connectsPostponed.Add(1)
		srv.log.Warn("connect postponed", zap.String("namespace", s.nsName), zap.Error(cause))
	}
	s.client.closeForRetry()
}

// connect recovers the session that the client claims, or makes the socket a new one, and answers
// CONNECT.
func (r *ConnectRequest) connect(ctx context.Context, pid string, offset json.RawMessage) error {
	s, srv := r.socket, r.socket.ns.srv
	if !s.recovers || pid == "" {
		return r.begin(ctx)
	}
	claim := &recovery{socket: s, request: r, pid: pid} // r is not used from here on: see answer
	err := claim.run(ctx, offset)
	refusal := (*refusal)(nil)
	if !errors.As(err, &refusal) {
		return err
	}
	srv.stats.recoveries.add(refusal.reason)
	srv.log.Info("session not recovered", zap.String("namespace", s.nsName),
		zap.String("reason", refusal.reason), zap.Error(refusal.err))
	if claim.request.resting && refusal.reason != refusedEpoch {
		return &baseless{claim.request}
	}
	return claim.request.begin(ctx)
}

// begin makes the socket a new one.
func (r *ConnectRequest) begin(ctx context.Context) error {
	s, srv := r.socket, r.socket.ns.srv
	done, err := s.change(ctx)
	if err != nil {
		return err
	}
	defer done()
	s.mu.Lock()
	s.gate.shut++
	s.id, s.data = r.id, r.data
	for _, name := range r.rooms {
		s.rooms.enter(name)
	}
	listed := s.place()
	s.mu.Unlock()
	born, err := s.subscribe(ctx, listed)
	if err != nil {
		return err // no held event is for it, and its gate stays shut
	}
	s.mu.Lock()
	s.rooms.born, s.newestJoin = born, born
	for _, name := range r.rooms {
		s.rooms.confirm(name, born)
	}
	if s.recovers {
		s.pid, s.fence, s.receipt = newID(), 1, &receipt{given: born}
	}
	snapshot := s.snapshot()
	s.mu.Unlock()
	if s.recovers {
		if err := srv.sessions.Create(ctx, snapshot, srv.opts.sessionLife()); err != nil {
			return err
		}
		srv.owned.enter(s) // the pid is not published yet
	}
	s.mu.Lock()
	err = s.answerConnect()
	s.openGate()
	s.mu.Unlock()
	if err != nil {
		s.endSession(ClientDisconnect) // the client does not know the session yet
		return err
	}
	s.ns.reportRooms(s.ID(), true, r.rooms...)
	return nil
}

// answerConnect answers the client's CONNECT, and starts the socket's handlers. s.mu is
// held, so that no event can precede the answer.
func (s *Socket) answerConnect() error {
	if s.stage.gone() {
		return ErrDisconnected
	}
	body := packet.AppendString([]byte(`{"sid":`), s.id)
	if s.pid != "" {
		body = packet.AppendString(append(body, `,"pid":`...), s.pid)
	}
	body = append(body, '}')
	s.ns.add(s) // before the client can act on the answer
	s.mail.expect()
	if err := s.client.send(&packet.Packet{Type: packet.Connect, Namespace: s.nsName, Data: body}); err != nil {
		s.ns.remove(s, s.id)
		return ErrDisconnected
	}
	s.stage.connect()
	s.former = "" // its client has moved
	s.client.connectTimer.Stop()
	s.client.srv.unconnected.remove(s.client, true)
	s.ns.srv.stats.connects.Add(1)
	greet, all := s.greet, s.ns.rulesNow()
	if len(all[0].onConnect)+len(all[1].onConnect) == 0 {
		greet = nil // a goroutine less for each connection
	}
	s.mail.start(&s.client.srv.tasks, greet)
	if s.dismissed {
		s.client.srv.spawn(func() { s.disconnect(true) })
	}
	return nil
}

// greet runs the application's OnConnect functions.
func (s *Socket) greet() {
	s.protect("OnConnect", func() {
		for _, r := range s.ns.rulesNow() {
			for _, f := range r.onConnect {
				f(s)
			}
		}
	})
}

// place adds the socket to the index, where the feed finds it, and returns its rooms. s.mu is held.
func (s *Socket) place() []rooms.Room {
	s.placed = true
	s.ns.srv.placed.Add(1)
	listed := slices.Grow(s.implicit(), int(s.rooms.open))
	for name := range s.rooms.named {
		if s.rooms.current(name) != nil {
			listed = append(listed, rooms.InNamed(s.nsName, name))
		}
	}
	for _, r := range listed {
		s.ns.index.Add(r, s)
	}
	s.charge()
	return listed
}

// unplace undoes place and subscribe, and returns the named rooms that the socket was in. The result
// excludes rooms that it was still joining: these joins were not reported, and the code that began
// them unsubscribes the rooms.
func (s *Socket) unplace() []string {
	s.mu.Lock()
	if !s.placed {
		s.mu.Unlock()
		return nil
	}
	implicit, names := s.implicit(), s.rooms.names()
	for _, r := range implicit {
		s.ns.index.Remove(r, s)
	}
	for _, name := range names {
		s.ns.index.Remove(rooms.InNamed(s.nsName, name), s)
	}
	s.ns.srv.placed.Add(-1)
	s.count(s.rooms.uncharged - s.rooms.cost())
	subscribed := s.subscribed
	names = slices.DeleteFunc(names, func(name string) bool { return s.rooms.current(name).pending })
	s.rooms, s.placed, s.subscribed = memberships{partitions: s.rooms.partitions}, false, false
	s.mu.Unlock()
	if subscribed {
		s.ns.srv.adapter.Unsubscribe(append(implicit, inNamed(s.nsName, names)...)...)
	}
	return names
}

// subscribe subscribes the node to the rooms of the socket, which has been placed.
func (s *Socket) subscribe(ctx context.Context, listed []rooms.Room) (adapter.Cursor, error) {
	at, err := s.ns.srv.adapter.Subscribe(ctx, listed...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribed = err == nil
	return at, err
}

// implicit returns the rooms that every socket is in.
func (s *Socket) implicit() []rooms.Room {
	return []rooms.Room{rooms.InEveryone(s.nsName), rooms.InOwn(s.nsName, s.id)}
}

// connectAuth returns the fields of a CONNECT payload that are not the application's: the private id
// of the session that the client wants to continue, its offset as sent, and its choice of recovery.
// Their names are in lower case. A pid that is not a string is ignored, and the offset with it.
func connectAuth(auth json.RawMessage) (pid string, offset, recovery json.RawMessage) {
	var claimed json.RawMessage
	for name, value := range packet.Members(auth) {
		switch string(name) {
		case "pid":
			claimed = value
		case "offset":
			offset = value
		case "recovery":
			recovery = value
		}
	}
	if packet.Unmarshal(claimed, nil, &pid) != nil {
		return "", nil, recovery
	}
	return pid, offset, recovery
}
