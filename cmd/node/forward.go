package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/forward"
	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// forwardMargin is the time that a forwarded poll may take in addition to its
// wait.
const forwardMargin = 10 * time.Second

// newForwarder returns the forwarder of requests for other nodes' sessions. It
// returns nil for a single node: one without a secret, or whose adapter has no
// addresses.
func newForwarder(c config, a adapter.Adapter, l *limits, log *zap.Logger) (*forward.Forwarder, error) {
	directory, ok := a.(forward.Directory)
	if !ok || c.ClusterSecret == "" {
		return nil, nil
	}
	return forward.New(forward.Options{
		Node:      c.NodeID,
		Secret:    string(derive(c.ClusterSecret, forForwarding)),
		Directory: directory,
		Timeout:   c.PingInterval + c.PingTimeout + forwardMargin,
		Outgoing:  l.outgoing,
		Incoming:  l.incoming,
		Logger:    log,
	})
}

// drainConnections closes this node's connections over a period, and requests the
// owners of forwarded WebSockets to close them.
func (n *node) drainConnections(ctx context.Context, over time.Duration) error {
	if n.forward == nil {
		return n.sockets.Drain(ctx, over)
	}
	through := make(chan error, 1)
	go func() { through <- n.forward.Drain(ctx, over) }() // ends with ctx at the latest
	return errors.Join(n.sockets.Drain(ctx, over), <-through)
}

// advertised returns the address at which other nodes reach this node's
// internal port, which listens at internal.
func advertised(c config, internal net.Addr) (string, error) {
	a := c.AdvertiseAddr
	if a == (address{}) {
		a = c.InternalAddr
	}
	if tcp, ok := internal.(*net.TCPAddr); ok && a.port == 0 {
		a.port = uint16(tcp.Port)
	}
	if !a.wildcard() {
		return a.String(), nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("REJOIN_ADVERTISE_ADDR: this machine's addresses: %w", err)
	}
	if a.host = reachable(all); a.host == "" {
		return "", errors.New("REJOIN_ADVERTISE_ADDR: must be set: this machine has no address that other nodes can reach")
	}
	return a.String(), nil
}

// reachable returns the first address that other machines may reach, preferably
// of IPv4, or "".
func reachable(all []net.Addr) (first string) {
	for _, a := range all {
		network, ok := a.(*net.IPNet)
		switch {
		case !ok || !network.IP.IsGlobalUnicast(): // private networks are "global", too
		case network.IP.To4() != nil:
			return network.IP.String()
		case first == "":
			first = network.IP.String()
		}
	}
	return first
}
