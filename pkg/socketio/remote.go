package socketio

import (
	"context"
	"encoding/json"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// A SocketInfo describes a socket at the time of the request.
type SocketInfo struct {
	ID        string          `json:"id"`
	User      string          `json:"user,omitempty"`
	Rooms     []string        `json:"rooms"` // the named ones, sorted
	Data      json.RawMessage `json:"data,omitempty"`
	Address   string          `json:"address"` // of the TCP connection
	Transport string          `json:"transport"`
	Since     time.Time       `json:"since"` // when its connection was made
}

// A RemoteSocket is a socket on any node of the cluster: its description when it was fetched, and
// operations on it.
type RemoteSocket struct {
	SocketInfo
	Node adapter.NodeID
	ns   *Namespace
}

// Emit sends an event to the socket; see [Socket.Emit].
func (r RemoteSocket) Emit(ctx context.Context, event string, args ...any) error {
	return r.ns.ToSocket(r.ID).Emit(ctx, event, args...)
}

// EmitWithAck sends an event to the socket and waits for its ack; see
// [Socket.EmitWithAck].
func (r RemoteSocket) EmitWithAck(ctx context.Context, event string, args ...any) (Args, error) {
	return r.ns.ToSocket(r.ID).ackOf(ctx, event, args)
}

// Join makes the socket join rooms; see [Broadcast.SocketsJoin].
func (r RemoteSocket) Join(ctx context.Context, names ...string) error {
	return r.ns.ToSocket(r.ID).SocketsJoin(ctx, names...)
}

// Leave makes the socket leave rooms.
func (r RemoteSocket) Leave(ctx context.Context, names ...string) error {
	return r.ns.ToSocket(r.ID).SocketsLeave(ctx, names...)
}

// Disconnect disconnects the socket; see [Broadcast.DisconnectSockets].
func (r RemoteSocket) Disconnect(ctx context.Context, closeConn bool) error {
	return r.ns.ToSocket(r.ID).DisconnectSockets(ctx, closeConn)
}

// describe returns the socket's description. s.mu is held.
func (s *Socket) describe() SocketInfo {
	h := s.Handshake()
	return SocketInfo{
		ID: s.id, User: s.user, Rooms: s.rooms.sorted(), Data: s.data,
		Address: h.RemoteAddr, Transport: s.client.conn.Transport(), Since: h.Time,
	}
}
