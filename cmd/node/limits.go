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

// limits are the limits of this node's clients.
type limits struct {
	handshakes *limit.Handshakes
	clients    *limit.Clients
	public     *limit.Port
	internal   *limit.Port
	headers    *limit.HeaderLines
	// Requests that this node forwards to others, and receives from them.
	outgoing, incoming *limit.Forwarded
}

func newLimits(c config, log *zap.Logger) *limits {
	s := c.shares(limit.Descriptors())
	l := &limits{
		handshakes: limit.NewHandshakes(limit.HandshakeOptions{
			Rate: c.HandshakeRate, IPRate: c.IPHandshakeRate, IPConnections: c.IPConnections,
			Sessions: c.sessions(), HeaderBytes: part(16, 0), Proxies: c.proxies(), Log: log,
		}),
		clients: limit.NewClients(limit.ClientOptions{
			SocketEvents: c.SocketEventRate, SocketBytes: int(c.SocketByteRate),
			UserEvents: c.UserEventRate, UserBytes: int(c.UserByteRate),
			LargestEvent: int(c.MaxPayload), ReadBytes: int(c.ReadRate), CopyBytes: int(c.CopyRate),
			Proxies: c.proxies(), Log: log,
		}),
		headers: limit.NewHeaderLines(log),
	}
	forwarded := func() int { return l.outgoing.Open() + l.incoming.Open() }
	if c.Connections > 0 { // of the port alone
		forwarded = nil
	}
	public := c.publicPort()
	public.Connections, public.Others, public.Log = s.clients, forwarded, log
	l.public = limit.NewPort(public)
	l.internal = limit.NewPort(limit.PortOptions{
		Name: limit.InternalConnections, Connections: s.internal, Others: func() int { return -l.incoming.Open() }, Log: log,
	})
	l.outgoing = limit.NewForwarded(limit.ForwardedOptions{
		Name: limit.ForwardedToNodes, Max: s.forwarded, Others: func() int { return l.public.Stats().Open + l.incoming.Open() }, Log: log,
	})
	l.incoming = limit.NewForwarded(limit.ForwardedOptions{
		Name: limit.ForwardedFromNodes, Max: s.forwarded, Others: func() int { return l.public.Stats().Open + l.outgoing.Open() }, Log: log,
	})
	return l
}

// publicPort returns the limits of the public port that do not depend on the descriptors.
func (c *config) publicPort() limit.PortOptions {
	return limit.PortOptions{
		Name: limit.Connections, Waiting: c.IdleConnections,
		IPConnections: tcpPerClient * c.IPConnections, Proxies: c.proxies(),
	}
}

// tcpPerClient is the number of TCP connections that browsers open to one host.
const tcpPerClient = 6

// The shares of the descriptors that the process may have. Zero is no limit.
type shares struct {
	clients   int // public TCP connections and forwarded requests, for a new connection
	forwarded int // the same, for a forwarded request
	internal  int // TCP connections of the internal port without forwarded requests
}

// shares divides descriptors, of which 0 is an unknown number. A client takes one at the
// public port. If the session belongs to another node, it takes two more: one of this node,
// to the owner, and one at the internal port of the owner. So with n nodes and no affinity
// a node with c clients takes c + 2c(n-1)/n, which depends only on the number of nodes and
// the kind of clients. All of it is therefore one share of three quarters. A single node
// has the whole share for public connections.
//
// New connections must not use up the descriptors that connected clients need, so forwarded
// requests have a sixteenth more. An eighth is for the other uses of the internal port:
// health checks, metrics, backends and calls between nodes. A sixteenth is for Redis, idle
// connections to other nodes and files.
func (c *config) shares(descriptors int) shares {
	s := shares{clients: descriptors / 4 * 3, forwarded: descriptors / 16 * 13, internal: descriptors / 8}
	if c.Connections > 0 {
		s.clients = c.Connections
	}
	return s
}

func (l *limits) refused() map[string]uint64 {
	all := l.handshakes.Refused()
	maps.Copy(all, l.clients.Refused())
	maps.Copy(all, l.public.Refused())
	maps.Copy(all, l.internal.Refused())
	maps.Copy(all, l.headers.Refused())
	maps.Copy(all, l.outgoing.Refused())
	maps.Copy(all, l.incoming.Refused())
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

// part returns a part of GOMEMLIMIT, or a default if that is not set.
func part(of int64, otherwise int) int {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 { // reads the limit only
		return int(limit / of)
	}
	return otherwise
}

// sessions returns the maximum number of open connections of any transport; 0 means no limit. An idle
// one takes up to 16 KiB; the rest of the memory is for their data.
func (c *config) sessions() int {
	if c.Sessions > 0 {
		return c.Sessions
	}
	return part(16<<10, 0) * 3 / 8
}

// receiveBudget returns the memory limit of clients' events until they are handled.
func (c *config) receiveBudget() int {
	if c.ReceiveBudget > 0 {
		return int(c.ReceiveBudget)
	}
	return max(part(8, 128<<20), 2*int(c.MaxPayload))
}

// membershipBudget returns the memory limit of the memberships of all sockets.
func (c *config) membershipBudget() int {
	if c.MembershipBudget > 0 {
		return int(c.MembershipBudget)
	}
	return part(4, 512<<20)
}

// queueBudget returns the maximum number of bytes queued on this node.
func (c *config) queueBudget() int {
	budget := part(4, 512<<20)
	if c.QueueBudget > 0 {
		budget = int(c.QueueBudget)
	}
	return max(budget, int(c.SendQueueBytes))
}
