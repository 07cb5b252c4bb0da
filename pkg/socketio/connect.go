package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/rooms"
	"github.com/rejoin-io/rejoin/pkg/session"
)

var errNoNamespace = &ConnectError{Message: "Invalid namespace"}

// admit connects a socket: middlewares, then the session that it claims or a new
// one. It ends with the client connected, refused, or gone.
func (s *Server) admit(sock *Socket) {
	n := s.enter(sock.ctx, sock.nsName, sock.auth)
	if n == nil {
		sock.refuse(errNoNamespace)
		return
	}
	sock.ns = n
	if err := sock.screen(); err != nil {
		s.exit(n)
		sock.refuse(err)
		return
	}
	ctx, cancel := context.WithTimeout(sock.ctx, recoverTimeout)
	defer cancel()
	if err := sock.settleIn(ctx); err != nil {
		// Whether the client could be this socket is not known, so it is told
		// nothing and tries again.
		if !errors.Is(err, ErrDisconnected) {
			s.log.Warn("a client could not be connected", zap.String("namespace", n.name), zap.Error(err))
		}
		s.exit(n)
		sock.abandon(err)
	}
}

// refuse answers CONNECT with an error. The connection stays.
func (s *Socket) refuse(err error) {
	s.client.detach(s)
	s.cancel(err)
	_ = s.client.send(&packet.Packet{Type: packet.ConnectError, Namespace: s.nsName, Data: connectErrorBody(err)})
}

// abandon gives up on a socket that was never connected, with its connection.
func (s *Socket) abandon(cause error) {
	s.mu.Lock()
	s.gone = true
	s.mu.Unlock()
	s.unplace()
	s.client.srv.disown(s)
	s.client.detach(s)
	s.cancel(cause)
	s.client.conn.Close(engineio.TransportError)
}

// settleIn makes the socket what its client claims it was, or a new one, and
// answers CONNECT.
func (s *Socket) settleIn(ctx context.Context) error {
	srv := s.ns.srv
	if srv.opts.recovery() {
		if pid, offset := connectAuth(s.auth); pid != "" {
			err := s.recover(ctx, pid, offset)
			if refusal := (*refusal)(nil); !errors.As(err, &refusal) {
				return err
			} else {
				srv.stats.recoveries.add(refusal.reason)
				srv.log.Info("a session could not be recovered", zap.String("namespace", s.nsName),
					zap.String("reason", refusal.reason), zap.Error(refusal.err))
			}
		}
	}
	return s.begin(ctx)
}

// begin makes the socket a new one.
func (s *Socket) begin(ctx context.Context) error {
	srv := s.ns.srv
	done, err := s.change(ctx)
	if err != nil {
		return err
	}
	defer done()
	s.mu.Lock()
	s.gate.shut++
	granted := s.enterGranted()
	s.place()
	all := append(s.implicit(), inNamed(s.nsName, granted)...)
	s.mu.Unlock()
	born, err := srv.adapter.Subscribe(ctx, all...)
	if err != nil {
		s.mu.Lock()
		s.gate.open(s.pass)
		s.mu.Unlock()
		s.displace()
		return err
	}
	s.mu.Lock()
	s.subscribed = true
	s.rooms.born, s.newestJoin, s.epoch = born, born, born.Epoch
	for _, name := range granted {
		s.rooms.confirm(name, born)
	}
	if srv.opts.recovery() {
		s.pid, s.fence = newID(), 1
	}
	snapshot := s.snapshot()
	s.mu.Unlock()
	if srv.opts.recovery() {
		if err := srv.sessions.Create(ctx, snapshot, srv.opts.sessionLife()); err != nil {
			return err
		}
		srv.own(s)
	}
	s.mu.Lock()
	err = s.answerConnect()
	s.gate.open(s.pass)
	s.mu.Unlock()
	if err != nil {
		s.endSession(ClientDisconnect) // nobody has been told of it
		return err
	}
	s.ns.tellRooms(s.ID(), true, granted...)
	return nil
}

// enterGranted begins the joins that the middlewares have asked for, and returns
// those that are new. s.mu is held.
func (s *Socket) enterGranted() []string {
	news := s.missing(s.screening.granted)
	for _, name := range news {
		s.rooms.enter(name)
	}
	return news
}

// answerConnect tells the client that it is connected, and lets the socket's
// handlers run. s.mu is held, so that no event can come before.
func (s *Socket) answerConnect() error {
	if s.gone {
		return ErrDisconnected
	}
	body, err := json.Marshal(struct {
		SID string `json:"sid"`
		PID string `json:"pid,omitempty"`
	}{s.id, s.pid})
	if err != nil {
		return err
	}
	s.ns.add(s) // before the client can act on the answer
	if err := s.client.send(&packet.Packet{Type: packet.Connect, Namespace: s.nsName, Data: body}); err != nil {
		s.ns.remove(s, s.id)
		return ErrDisconnected
	}
	s.connected = true
	s.screening = screening{}
	s.client.idle.Stop()
	s.ns.srv.stats.connects.Add(1)
	s.mail.start(s.client.srv.spawn, s.greet)
	return nil
}

// greet tells the application of the socket.
func (s *Socket) greet() {
	defer s.rescue()
	for _, r := range s.ns.rulesNow() {
		for _, f := range r.onConnect {
			f(s)
		}
	}
}

// place enters the socket into the index, from where the feed finds it. s.mu is
// held.
func (s *Socket) place() {
	s.placed = true
	for _, r := range s.implicit() {
		s.ns.index.Add(r, s)
	}
	for _, name := range s.rooms.names() {
		s.ns.index.Add(rooms.InNamed(s.nsName, name), s)
	}
}

// displace takes the socket out of the index, and returns the named rooms that
// it was in.
func (s *Socket) displace() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.placed {
		return nil
	}
	s.placed = false
	names := s.rooms.names()
	for _, r := range append(s.implicit(), inNamed(s.nsName, names)...) {
		s.ns.index.Remove(r, s)
	}
	s.rooms = memberships{}
	return names
}

// unplace undoes all that place and a subscription of its rooms did.
func (s *Socket) unplace() []string {
	names := s.displace()
	s.mu.Lock()
	subscribed, implicit := s.subscribed, s.implicit()
	s.subscribed = false
	s.mu.Unlock()
	if subscribed {
		s.ns.srv.adapter.Unsubscribe(append(implicit, inNamed(s.nsName, names)...)...)
	}
	return names
}

// implicit returns the rooms that the socket is in by being one.
func (s *Socket) implicit() []rooms.Room {
	return []rooms.Room{rooms.InEveryone(s.nsName), rooms.InOwn(s.nsName, s.id)}
}

// end begins the end of the socket: nothing is delivered any more, and when its
// handlers have seen what had arrived, it is disconnected. Only the first call
// counts.
func (s *Socket) end(reason Reason) {
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return
	}
	s.gone = true
	connected := s.connected
	acks := s.acks
	s.acks = nil
	s.mu.Unlock()
	for _, a := range acks {
		a.gone(s, s.id)
	}
	s.client.detach(s)
	if !connected {
		s.cancel(ErrDisconnected) // admit sees it and clears away
		return
	}
	s.mail.put(s.client.srv.spawn, func() { s.finish(reason) })
}

// finish disconnects a socket that was connected. It runs in the mailbox, last.
func (s *Socket) finish(reason Reason) {
	srv := s.ns.srv
	defer srv.exit(s.ns)
	s.mu.Lock()
	moved, onLeaving := s.moved, s.onLeaving
	s.mu.Unlock()
	tell := func(fs []func(Reason)) {
		defer s.rescue()
		for _, f := range fs {
			f(reason)
		}
	}
	moved = moved || s.endSession(reason)
	if !moved {
		tell(onLeaving)
	}
	ctx, cancel := srv.store()
	defer cancel()
	if done, err := s.change(ctx); err == nil { // a join under way ends first
		defer done()
	}
	names := s.unplace()
	s.ns.tellRooms(s.ID(), false, names...)
	srv.disown(s)
	s.ns.remove(s, s.ID())
	s.mu.Lock()
	s.connected = false
	onDisconnect := s.onDisconnect
	s.mu.Unlock()
	s.cancel(ErrDisconnected)
	if !moved {
		srv.stats.disconnects.add(string(reason))
		tell(onDisconnect)
	}
}

// endSession settles what becomes of the session of a socket that is gone: it is
// over, or its client has the whole window from now. It reports whether the client
// has moved, of which the message may have been lost: then nobody has gone.
func (s *Socket) endSession(reason Reason) (moved bool) {
	srv := s.ns.srv
	s.mu.Lock()
	snapshot := s.snapshot()
	s.mu.Unlock()
	ref := session.Ref{PID: snapshot.PID, Fence: snapshot.Fence}
	if ref.PID == "" {
		return false
	}
	ctx, cancel := srv.store()
	defer cancel()
	var err error
	if reason.recoverable() {
		var gone []session.Ref
		gone, err = srv.sessions.Refresh(ctx, []session.Ref{ref}, srv.opts.sessionLife())
		if len(gone) > 0 { // a write finds out what became of it
			err = srv.sessions.Save(ctx, snapshot, srv.opts.sessionLife())
		}
	} else {
		err = srv.sessions.Drop(ctx, ref)
	}
	switch {
	case errors.Is(err, session.ErrFenced):
		return true
	case err != nil && !errors.Is(err, session.ErrNotFound):
		srv.log.Warn("a session could not be ended; it ends by itself", zap.Error(err))
	}
	return false
}

// evict ends a socket whose client came back as another one. Its session is not
// touched, and nobody has gone.
func (s *Socket) evict() {
	s.mu.Lock()
	s.moved = true
	s.mu.Unlock()
	s.end(TransportClose)
	if s.client.count() == 0 {
		// Not waited for: the other end is most likely not there.
		s.client.srv.spawn(func() { s.client.conn.Close(engineio.TransportClose) })
	}
}

// Disconnect ends the socket and its session, after what was emitted to it
// before. With closeConn the client's sockets in all namespaces are disconnected,
// and then the connection is closed. Stock clients do not come back by themselves
// after either. It returns when the disconnect has its place in the order, and in
// any case after some seconds.
func (s *Socket) Disconnect(closeConn bool) {
	s.mu.Lock()
	placed := s.placed && !s.gone
	s.mu.Unlock()
	if placed {
		ctx, cancel := s.ns.srv.store()
		defer cancel()
		if s.Self().DisconnectSockets(ctx, closeConn) == nil {
			return
		}
	}
	s.disconnect(closeConn)
}

// disconnect does what Disconnect asked for, now.
func (s *Socket) disconnect(closeConn bool) {
	targets := []*Socket{s}
	if closeConn {
		targets = s.client.all()
	}
	for _, t := range targets {
		t.mu.Lock()
		live := t.connected && !t.gone
		t.mu.Unlock()
		if live {
			_ = t.client.send(&packet.Packet{Type: packet.Disconnect, Namespace: t.nsName})
			t.end(ServerDisconnect)
		}
	}
	if closeConn {
		s.client.conn.Close(engineio.ForcedClose)
	}
}

// add and remove keep the namespace's table of connected sockets. A recovered
// socket has the id of the one that it replaces, so remove looks at whose it is.
func (n *Namespace) add(s *Socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sockets[s.id] = s
}

func (n *Namespace) remove(s *Socket, id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sockets[id] == s {
		delete(n.sockets, id)
	}
}

// own notes that a session is served here, by this socket now.
func (s *Server) own(sock *Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owned[sock.pid] = sock
}

func (s *Server) disown(sock *Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owned[sock.pid] == sock {
		delete(s.owned, sock.pid)
	}
}

func (s *Server) owner(pid string) *Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owned[pid]
}

// refresh prolongs the sessions of the sockets whose clients answer. Those that
// turn out to be gone are cut, and those that moved are evicted.
func (s *Server) refresh() {
	now := time.Now()
	alive := s.opts.Engine.PingInterval + s.opts.Engine.PingTimeout/2
	s.mu.Lock()
	refs := make([]session.Ref, 0, len(s.owned))
	for pid, sock := range s.owned {
		if now.Sub(sock.client.conn.Alive()) <= alive {
			refs = append(refs, session.Ref{PID: pid, Fence: sock.fence})
		}
	}
	s.mu.Unlock()
	ctx, cancel := s.store()
	defer cancel()
	gone, err := s.sessions.Refresh(ctx, refs, s.opts.sessionLife())
	if err != nil {
		s.log.Warn("sessions could not be refreshed", zap.Error(err))
		return
	}
	for _, ref := range gone {
		if sock := s.owner(ref.PID); sock != nil {
			sock.background(sock.save) // which finds out what became of it
		}
	}
}
