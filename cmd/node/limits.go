package main

import (
	"cmp"
	"math"
	"runtime/debug"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/limit"
)

// limits are the limits of this node's clients.
type limits struct {
	tally      *limit.Tally
	handshakes *limit.Handshakes
	clients    *limit.Clients
	public     *limit.Port
	internal   *limit.Port
	// Requests that this node forwards to others, and receives from them.
	outgoing, incoming *limit.Forwarded
}

func newLimits(c config, log *zap.Logger) *limits {
	s, tally := c.shares(limit.Descriptors()), limit.NewTally(log)
	l := &limits{
		tally: tally,
		handshakes: limit.NewHandshakes(limit.HandshakeOptions{
			Rate: c.HandshakeRate, IPRate: c.IPHandshakeRate, IPConnections: c.IPConnections,
			Sessions: c.sessions(), HeaderBytes: part(2, 0), Proxies: c.proxies(), Tally: tally,
		}),
		clients: limit.NewClients(limit.ClientOptions{
			SocketEvents: c.SocketEventRate, SocketBytes: int(c.SocketByteRate),
			UserEvents: c.UserEventRate, UserBytes: int(c.UserByteRate),
			LargestEvent: int(c.MaxPayload), ReadBytes: int(c.ReadRate), CopyBytes: int(c.CopyRate),
			Proxies: c.proxies(), Tally: tally,
		}),
	}
	forwarded := func() int { return l.outgoing.Open() + l.incoming.Open() }
	if c.Connections > 0 { // of the port alone
		forwarded = nil
	}
	public := c.publicPort()
	public.Quota = limit.Quota{Name: limit.Connections, Max: s.clients, Others: forwarded, Tally: tally}
	l.public = limit.NewPort(public)
	l.internal = limit.NewPort(limit.PortOptions{Quota: limit.Quota{
		Name: limit.InternalConnections, Max: s.internal, Others: func() int { return -l.incoming.Open() }, Tally: tally,
	}})
	l.outgoing = limit.NewForwarded(limit.Quota{
		Name: limit.ForwardedToNodes, Max: s.forwarded, Others: func() int { return l.public.Open() + l.incoming.Open() }, Tally: tally,
	})
	l.incoming = limit.NewForwarded(limit.Quota{
		Name: limit.ForwardedFromNodes, Max: s.forwarded, Others: func() int { return l.public.Open() + l.outgoing.Open() }, Tally: tally,
	})
	return l
}

// publicPort returns the limits of the public port that do not depend on the descriptors.
func (c *config) publicPort() limit.PortOptions {
	return limit.PortOptions{
		Waiting: c.IdleConnections, IPConnections: tcpPerClient * c.IPConnections, Proxies: c.proxies(),
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
	return shares{clients: cmp.Or(c.Connections, descriptors/4*3), forwarded: descriptors / 16 * 13, internal: descriptors / 8}
}

// part returns some 32nds of GOMEMLIMIT, or a default if that is not set. The budgets below and what is
// allowed for each connection leave a part for the garbage collector, so that a node whose budgets are
// all used up takes at most 1.1 times GOMEMLIMIT (TestAllBudgets in tests/security).
func part(shares, otherwise int) int {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 { // reads the limit only
		return int(limit / 32 * int64(shares))
	}
	return otherwise
}

// sessions returns the maximum number of open connections of any transport; 0 means no limit. An idle
// one takes up to 16 KiB; the rest of the memory is for their data.
func (c *config) sessions() int { return cmp.Or(c.Sessions, part(12, 0)/(16<<10)) }

// receiveBudget returns the memory limit of clients' events until they are handled.
func (c *config) receiveBudget() int {
	return cmp.Or(int(c.ReceiveBudget), max(part(3, 128<<20), 2*int(c.MaxPayload)))
}

// membershipBudget returns the memory limit of the memberships of all sockets.
func (c *config) membershipBudget() int { return cmp.Or(int(c.MembershipBudget), part(5, 512<<20)) }

// backlogBytes returns the memory limit of the stored events on a node without Redis.
func (c *config) backlogBytes() int { return cmp.Or(int(c.BacklogBytes), part(5, 256<<20)) }

// queueBudget returns the maximum number of bytes queued on this node.
func (c *config) queueBudget() int {
	return max(cmp.Or(int(c.QueueBudget), part(3, 512<<20)), int(c.SendQueueBytes))
}
