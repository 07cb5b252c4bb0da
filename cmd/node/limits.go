package main

import (
	"maps"
	"math"
	"runtime/debug"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/internal/metrics"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// limits are what this node's clients can't have more of.
type limits struct {
	handshakes *limit.Handshakes
	clients    *limit.Clients
	public     *limit.Port
	internal   *limit.Port
}

func newLimits(c config, log *zap.Logger) limits {
	return limits{
		handshakes: limit.NewHandshakes(limit.HandshakeOptions{
			Rate: c.HandshakeRate, IPRate: c.IPHandshakeRate, IPConnections: c.IPConnections, Proxies: c.proxies(), Log: log,
		}),
		clients: limit.NewClients(limit.ClientOptions{
			SocketEvents: c.SocketEventRate, SocketBytes: int(c.SocketByteRate),
			UserEvents: c.UserEventRate, UserBytes: int(c.UserByteRate),
			LargestEvent: int(c.MaxPayload), ReadBytes: int(c.ReadRate), Log: log,
		}),
		public: limit.NewPort(limit.PortOptions{
			Name: limit.Connections, Connections: c.connections(), Waiting: c.IdleConnections,
			IPConnections: tcpPerClient * c.IPConnections, Proxies: c.proxies(), Log: log,
		}),
		internal: limit.NewPort(limit.PortOptions{Name: limit.InternalConnections, Connections: limit.Descriptors() / 8, Log: log}),
	}
}

// tcpPerClient is how many TCP connections browsers open to one host.
const tcpPerClient = 6

// connections returns how many TCP connections the public port may have. Those of the
// internal one are an eighth of the descriptors, and another is for what the node opens
// itself: connections to Redis and to other nodes, and files.
func (c *config) connections() int {
	if c.Connections > 0 {
		return c.Connections
	}
	return limit.Descriptors() / 4 * 3
}

func (l *limits) refused() map[string]uint64 {
	all := l.handshakes.Refused()
	maps.Copy(all, l.clients.Refused())
	maps.Copy(all, l.public.Refused())
	maps.Copy(all, l.internal.Refused())
	return all
}

func (l *limits) metrics(sockets func() socketio.Stats, budget int, memory *adapter.Memory) metrics.Limits {
	m := metrics.Limits{Refused: l.refused, Sockets: sockets, QueueBudget: budget, Ports: l.ports}
	if memory != nil {
		m.Backlogs = func() metrics.Backlogs { return metrics.Backlogs(memory.Stats()) }
	}
	return m
}

func (l *limits) ports() map[string]metrics.Port {
	return map[string]metrics.Port{"public": metrics.Port(l.public.Stats()), "internal": metrics.Port(l.internal.Stats())}
}

// part returns a part of GOMEMLIMIT, or what stands for it if that is not set.
func part(of int64, otherwise int) int {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 { // asks, and changes nothing
		return int(limit / of)
	}
	return otherwise
}

// attachmentBudget returns how many bytes of packets may wait for attachments on this node.
func (c *config) attachmentBudget() int {
	if c.AttachmentBudget > 0 {
		return int(c.AttachmentBudget)
	}
	return max(part(16, 64<<20), 2*int(c.MaxPayload))
}

// queueBudget returns how many bytes may be queued on this node.
func (c *config) queueBudget() int {
	budget := part(4, 512<<20)
	if c.QueueBudget > 0 {
		budget = int(c.QueueBudget)
	}
	return max(budget, int(c.SendQueueBytes))
}
