package socketio

import (
	"context"
)

// Broadcast begins a broadcast to everyone but this socket.
func (s *Socket) Broadcast() Broadcast {
	b := s.ns.ExceptSocket(s.ID())
	b.by = s
	return b
}

// To begins a broadcast to the members of named rooms but this socket.
func (s *Socket) To(names ...string) Broadcast { return s.Broadcast().To(names...) }

// In is an alias of To.
func (s *Socket) In(names ...string) Broadcast { return s.To(names...) }

// ToSocket begins a broadcast to single sockets but this one.
func (s *Socket) ToSocket(ids ...string) Broadcast { return s.Broadcast().ToSocket(ids...) }

// Except begins a broadcast to everyone but this socket and the members of named
// rooms.
func (s *Socket) Except(names ...string) Broadcast { return s.Broadcast().Except(names...) }

// Local begins a broadcast to the sockets of this node but this one.
func (s *Socket) Local() Broadcast { return s.Broadcast().Local() }

// Self begins a broadcast to this socket alone, for options that Emit does not have:
// s.Self().Volatile().Emit(…), s.Self().Compress(false).Emit(…). Like Emit it returns
// ErrDisconnected once the socket is disconnected.
func (s *Socket) Self() Broadcast {
	b := s.ns.ToSocket(s.ID())
	b.by, b.self = s, true
	return b
}

// Emit sends an event to this socket, in the order of all events, and stores it for a recovery. It
// blocks and fails as [Broadcast.Emit] does; once the socket is disconnected the error is
// ErrDisconnected.
func (s *Socket) Emit(ctx context.Context, event string, args ...any) error {
	_, err := s.Publish(ctx, event, args...)
	return err
}

// Send emits the event "message" to this socket.
func (s *Socket) Send(ctx context.Context, args ...any) error {
	return s.Emit(ctx, "message", args...)
}

// Publish emits as Emit does, and also returns the event's offset.
func (s *Socket) Publish(ctx context.Context, event string, args ...any) (offset string, err error) {
	return s.Self().Publish(ctx, event, args...)
}

// EmitWithAck sends an event to this socket and waits for its ack, until the context ends or
// Options.AckTimeout has passed. If the socket is disconnected first, the error is ErrDisconnected.
func (s *Socket) EmitWithAck(ctx context.Context, event string, args ...any) (Args, error) {
	return s.Self().ackOf(ctx, event, args)
}
