package socketio

import (
	"context"
	"time"
)

// Everyone begins a broadcast to the whole namespace.
func (n *Namespace) Everyone() Broadcast { return Broadcast{ns: n} }

// To begins a broadcast to named rooms; see [Broadcast].
func (n *Namespace) To(names ...string) Broadcast { return n.Everyone().To(names...) }

// In is To.
func (n *Namespace) In(names ...string) Broadcast { return n.To(names...) }

// ToSocket begins a broadcast to single sockets.
func (n *Namespace) ToSocket(ids ...string) Broadcast { return n.Everyone().ToSocket(ids...) }

// Except begins a broadcast to everyone but the members of named rooms.
func (n *Namespace) Except(names ...string) Broadcast { return n.Everyone().Except(names...) }

// ExceptSocket begins a broadcast to everyone but single sockets.
func (n *Namespace) ExceptSocket(ids ...string) Broadcast { return n.Everyone().ExceptSocket(ids...) }

// Local begins a broadcast to the sockets of this node.
func (n *Namespace) Local() Broadcast { return n.Everyone().Local() }

// Volatile begins a broadcast that may be lost.
func (n *Namespace) Volatile() Broadcast { return n.Everyone().Volatile() }

// Compress begins a broadcast with the given compression setting; see [Broadcast.Compress].
func (n *Namespace) Compress(on bool) Broadcast { return n.Everyone().Compress(on) }

// Timeout begins a broadcast that waits for answers for at most d.
func (n *Namespace) Timeout(d time.Duration) Broadcast { return n.Everyone().Timeout(d) }

// Emit sends an event to everyone in the namespace; see [Broadcast.Emit].
func (n *Namespace) Emit(ctx context.Context, event string, args ...any) error {
	return n.Everyone().Emit(ctx, event, args...)
}

// Send emits the event "message" to everyone.
func (n *Namespace) Send(ctx context.Context, args ...any) error {
	return n.Everyone().Send(ctx, args...)
}

// Publish is Emit and returns the event's offset.
func (n *Namespace) Publish(ctx context.Context, event string, args ...any) (offset string, err error) {
	return n.Everyone().Publish(ctx, event, args...)
}

// EmitWithAck requests an ack from every socket of the namespace; see [Broadcast.EmitWithAck].
func (n *Namespace) EmitWithAck(ctx context.Context, event string, args ...any) (*Answers, error) {
	return n.Everyone().EmitWithAck(ctx, event, args...)
}

// FetchSockets describes all sockets of the namespace in the cluster.
func (n *Namespace) FetchSockets(ctx context.Context) ([]RemoteSocket, error) {
	return n.Everyone().FetchSockets(ctx)
}

// SocketsJoin makes all sockets of the namespace join rooms.
func (n *Namespace) SocketsJoin(ctx context.Context, names ...string) error {
	return n.Everyone().SocketsJoin(ctx, names...)
}

// SocketsLeave makes all sockets of the namespace leave rooms.
func (n *Namespace) SocketsLeave(ctx context.Context, names ...string) error {
	return n.Everyone().SocketsLeave(ctx, names...)
}

// DisconnectSockets disconnects all sockets of the namespace.
func (n *Namespace) DisconnectSockets(ctx context.Context, closeConn bool) error {
	return n.Everyone().DisconnectSockets(ctx, closeConn)
}
