package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/forward"
	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// forwardMargin is what a forwarded poll may take beside waiting.
const forwardMargin = 10 * time.Second

// newForwarder lets this node answer for the sessions of others. It returns nil
// for a node alone: one without a secret, or whose adapter knows no addresses.
func newForwarder(c config, a adapter.Adapter, l *limits, log *zap.Logger) (*forward.Forwarder, error) {
	directory, ok := a.(forward.Directory)
	if !ok || c.ClusterSecret == "" {
		return nil, nil
	}
	return forward.New(forward.Options{
		Node:      string(c.NodeID),
		Secret:    string(derive(c.ClusterSecret, forForwarding)),
		Directory: directory,
		Timeout:   c.PingInterval + c.PingTimeout + forwardMargin,
		Outgoing:  l.outgoing,
		Incoming:  l.incoming,
		Logger:    log,
	})
}

// fromNodes adds to the internal port what other nodes pass on and ask for.
func (n *node) fromNodes(rest http.Handler) http.Handler {
	if n.forward == nil {
		return rest
	}
	mux := http.NewServeMux()
	mux.Handle("/", rest)
	mux.Handle(forward.Prefix+"/", n.forward.Handler(n.sockets))
	mux.Handle("POST "+forward.LeavePath, n.forward.Leaving(n.sockets.SendAway))
	return mux
}

// sendAway closes, over a time, the connections that this node has, and has the
// WebSockets that run through it closed by their nodes.
func (n *node) sendAway(ctx context.Context, over time.Duration) error {
	through := make(chan error, 1)
	go func() { // ends with ctx at the latest
		if n.forward == nil {
			through <- nil
			return
		}
		through <- n.forward.Drain(ctx, over)
	}()
	err := n.sockets.Drain(ctx, over)
	return errors.Join(err, <-through)
}

// advertised returns where other nodes reach this one's internal port, which
// listens at internal.
func advertised(c config, internal net.Addr) (string, error) {
	a := c.AdvertiseAddr.address
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
		return "", errors.New("REJOIN_ADVERTISE_ADDR: must be set: this machine has no address that other nodes could reach")
	}
	return a.String(), nil
}

// reachable returns the first address that other machines may reach, of IPv4 if
// there is one; "" if there is none.
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
