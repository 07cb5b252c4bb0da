// Package limit bounds the use of a node by its clients: new connections, connections of one
// address, sending by sockets and users, and reads for them. All limits count on this node
// alone.
package limit

// Names of the limits, in metrics.
const (
	HandshakeRate   = "handshake_rate"
	IPHandshakeRate = "ip_handshake_rate"
	IPConnections   = "ip_connections"
	Sessions        = "sessions"
	HeaderBytes     = "header_bytes"
	IdleConnections = "idle_connections"
	Headers         = "headers"
	// Limits of TCP connections, by port and by address.
	Connections         = "connections"
	InternalConnections = "internal_connections"
	IPTCPConnections    = "ip_tcp_connections"
	// Limits of forwarded requests.
	ForwardedToNodes   = "forwarded_to_nodes"
	ForwardedFromNodes = "forwarded_from_nodes"

	SocketEventRate = "socket_event_rate"
	SocketByteRate  = "socket_byte_rate"
	UserEventRate   = "user_event_rate"
	UserByteRate    = "user_byte_rate"
	IPEventRate     = "ip_event_rate"
	IPByteRate      = "ip_byte_rate"
	ReadRate        = "read_rate"
	CopyRate        = "copy_rate"
	ConcurrentReads = "concurrent_reads"
	TokenRate       = "token_rate"

	// Limits of questions to the backend.
	HookQuestions = "hook_questions"
	HookBytes     = "hook_bytes"
	HookLag       = "hook_lag"
)

var names = []string{
	HandshakeRate, IPHandshakeRate, IPConnections, Sessions, HeaderBytes, IdleConnections, Headers,
	Connections, InternalConnections, IPTCPConnections, ForwardedToNodes, ForwardedFromNodes,
	SocketEventRate, SocketByteRate, UserEventRate, UserByteRate, IPEventRate, IPByteRate,
	ReadRate, CopyRate, ConcurrentReads, TokenRate,
	HookQuestions, HookBytes, HookLag,
}
