package socketio

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// Errors that callers may test for.
var (
	// ErrReserved means that the event name is one that clients use themselves: connect,
	// connect_error, disconnect, disconnecting, newListener, removeListener.
	ErrReserved = errors.New("socketio: reserved event name")
	// ErrDisconnected means that the socket has ended, or it is too late for a [ConnectRequest].
	ErrDisconnected = errors.New("socketio: disconnected")
	// ErrRoomName means that a room name is empty, too long, or not UTF-8; or a socket id is too
	// long.
	ErrRoomName = errors.New("socketio: room names are 1 to 200 bytes of UTF-8")
	// ErrTooManyRooms means that the socket would exceed its limit of rooms, or has recently left
	// more rooms than the server remembers.
	ErrTooManyRooms = errors.New("socketio: too many rooms")
	// ErrTooLarge means that a broadcast or a command names more than [adapter.MaxRooms] rooms
	// and sockets, or its copies exceed [adapter.MaxCopies]. Nothing has happened.
	ErrTooLarge = adapter.ErrTooLarge
	// ErrReused means that another event or command was published with the same [Once.ID]. If the error wraps
	// [adapter.ErrUnavailable] as well, a part of this one was published.
	ErrReused = adapter.ErrReused
	// ErrIncomplete means that an event or a command was published in some partitions only, too long ago to
	// be completed; see [Broadcast.Keyed].
	ErrIncomplete = adapter.ErrIncomplete
	// ErrOffset means that a string is not the offset of an event.
	ErrOffset = errors.New("socketio: not an offset")
	// ErrTemporary means that a client cannot be connected now for a reason outside the client,
	// such as an unreachable database. A middleware returns an error that wraps it; see
	// [Namespace.Use].
	ErrTemporary = errors.New("socketio: temporarily unavailable")
	// ErrBusy means that too many joins with history run on this node, for some seconds. The caller may
	// retry.
	ErrBusy = errors.New("socketio: too many joins with history on this node")
	// ErrNoAck means that the event did not request an ack, or has been acked.
	ErrNoAck = errors.New("socketio: no ack requested")
	// ErrMissingArgument means that fewer arguments arrived than the values passed to [Args.Bind].
	ErrMissingArgument = errors.New("socketio: missing argument")
)

var (
	errQueueFull = errors.New("socketio: too many events held for the socket")
	errTooEarly  = errors.New("socketio: too many events before the answer to CONNECT")
)

// A Reason is the reason why a socket was disconnected.
type Reason string

// The reasons that a server sees. After the first two and after ParseError the socket's session has
// ended; after all others its client can recover it.
const (
	ServerDisconnect Reason = "server namespace disconnect" // Disconnect was called: the client does not reconnect
	ClientDisconnect Reason = "client namespace disconnect" // the client called disconnect
	ServerShutdown   Reason = "server shutting down"
	TransportError          = Reason(engineio.TransportError)
	TransportClose          = Reason(engineio.TransportClose)
	PingTimeout             = Reason(engineio.PingTimeout)
	ForcedClose             = Reason(engineio.ForcedClose) // the client violated the protocol
	ParseError              = Reason(engineio.ParseError)
)

func (r Reason) recoverable() bool {
	return r != ServerDisconnect && r != ClientDisconnect && r != ParseError
}

// A DisconnectError is the cause of the end of a socket's context. It matches ErrDisconnected with
// errors.Is.
type DisconnectError struct {
	Reason Reason
	// Moved means that the client reconnected and another Socket serves it, possibly on another node.
	// OnDisconnect is not called then.
	Moved bool
}

func (e *DisconnectError) Error() string {
	if e.Moved {
		return "socketio: disconnected: the client reconnected"
	}
	return "socketio: disconnected: " + string(e.Reason)
}

// Is reports whether target is ErrDisconnected.
func (e *DisconnectError) Is(target error) bool { return target == ErrDisconnected }

// A ConnectError refuses a client: returned by a namespace's middleware, it becomes the
// connect_error that the client receives. Of other errors the client receives only the text. A
// refused client does not retry automatically: [ErrTemporary] is for temporary reasons.
type ConnectError struct {
	Message string
	Data    any // encoded as JSON; nil means no data
}

func (e *ConnectError) Error() string { return e.Message }

// connectErrorBody is the payload of CONNECT_ERROR for an error.
func connectErrorBody(err error) []byte {
	body := struct {
		Message string `json:"message"`
		Data    any    `json:"data,omitempty"`
	}{Message: err.Error()}
	if ce := (*ConnectError)(nil); errors.As(err, &ce) {
		body.Message, body.Data = ce.Message, ce.Data
	}
	b, err := json.Marshal(body)
	if err != nil {
		b, _ = json.Marshal(map[string]string{"message": body.Message})
	}
	return b
}

// An UnansweredError ends a query that was not fully answered. The answers that arrived precede
// it.
type UnansweredError struct {
	Sockets []string         // the sockets that the event reached, or should have reached, and that sent no ack
	Nodes   []adapter.NodeID // the nodes that are silent, or were cut off from events and may have more answers
	Err     error            // the cause: a context's error, or nil if no more answers were possible
}

func (e *UnansweredError) Error() string {
	var b strings.Builder
	b.WriteString("socketio: unanswered")
	if n := len(e.Sockets); n > 0 {
		fmt.Fprintf(&b, " by %d sockets", n)
	}
	if len(e.Nodes) > 0 {
		fmt.Fprintf(&b, " by nodes %v", e.Nodes)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

func (e *UnansweredError) Unwrap() error { return e.Err }
