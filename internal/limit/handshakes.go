package limit

import (
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// HandshakeOptions configure [Handshakes]. Zero means no limit.
type HandshakeOptions struct {
	// Rate is the number of connections that may begin per second on this node.
	Rate int
	// IPRate is the number of connections that one address may begin per second. IPConnections is the
	// number that it may have open, but never more than Sessions leaves to others. An IPv6 network of
	// 64 bits counts as one address. Addresses that may belong to a proxy are not limited; see
	// [Proxies].
	IPRate, IPConnections int
	// Sessions is the number of connections that may be open on this node.
	Sessions int
	// HeaderBytes is the maximum memory of the connections' stored URLs and headers. 2 KiB of each are
	// not counted.
	HeaderBytes int
	Proxies     Proxies
	Log         *zap.Logger
}

// Handshakes decide which new connections a node accepts. All methods are safe for concurrent use.
type Handshakes struct {
	o HandshakeOptions
	clock
	all    *rate.Limiter
	each   pace
	peers  *table[netip.Addr, *peer]
	rate   counter
	ipRate counter
	ipOpen counter
	open   counter
	header counter
	notice notice

	sessions, headerBytes atomic.Int64
}

// A peer is the use of the limits by one address.
type peer struct {
	begun due
	open  int
}

// NewHandshakes returns the limits of a node. Rate allows a burst of one second's worth, and IPRate
// of ten.
func NewHandshakes(o HandshakeOptions) *Handshakes {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	h := &Handshakes{
		o:      o,
		clock:  newClock(),
		all:    perSecond(o.Rate),
		each:   paced(o.IPRate, 1),
		rate:   counter{name: HandshakeRate},
		ipRate: counter{name: IPHandshakeRate},
		ipOpen: counter{name: IPConnections},
		open:   counter{name: Sessions},
		header: counter{name: HeaderBytes},
		notice: notice{log: o.Log},
	}
	h.peers = newTable[netip.Addr](
		func() *peer { return new(peer) },
		func(p *peer) bool { return p.open == 0 && int64(p.begun) <= h.now() },
	)
	return h
}

// Admit implements [engineio.Options.Admit]. An address that exceeds its own limits uses nothing of
// the common ones.
func (h *Handshakes) Admit(r *http.Request) (ended func(), err error) {
	left, err := h.admitPeer(r.RemoteAddr)
	if err != nil {
		return nil, err
	}
	headers := max(0, headerSize(r)-freeHeaders)
	open, kept := h.sessions.Add(1), h.headerBytes.Add(headers)
	release := func() {
		h.sessions.Add(-1)
		h.headerBytes.Add(-headers)
		if left != nil {
			left()
		}
	}
	refuse := func(c *counter, most zap.Field, message string) error {
		release()
		c.n.Add(1)
		h.notice.warn(c.name, "handshake refused", zap.String("limit", c.name), most)
		return &engineio.BusyError{RetryAfter: time.Second, Message: message}
	}
	switch {
	case h.o.Sessions > 0 && open > int64(h.o.Sessions):
		return nil, refuse(&h.open, zap.Int("connections", h.o.Sessions), "This node has too many connections")
	case h.o.HeaderBytes > 0 && headers > 0 && kept > int64(h.o.HeaderBytes):
		return nil, refuse(&h.header, zap.Int("bytes", h.o.HeaderBytes), "This node has too many connections with large headers")
	case !h.all.Allow():
		return nil, refuse(&h.rate, zap.Int("in_a_second", h.o.Rate), "This node has too many new connections")
	}
	return release, nil
}

const (
	freeHeaders = 2 << 10 // of a request
	headerLine  = 64      // approximate memory of one line beside its text
)

// headerSize returns the approximate memory of a request's URL and headers.
func headerSize(r *http.Request) (bytes int64) {
	bytes = int64(len(r.RequestURI))
	for name, values := range r.Header {
		for _, value := range values {
			bytes += int64(headerLine + len(name) + len(value))
		}
	}
	return bytes
}

func (h *Handshakes) admitPeer(remote string) (left func(), err error) {
	if h.o.IPRate == 0 && h.o.IPConnections == 0 {
		return nil, nil
	}
	addr := network(remote)
	if h.o.Proxies.unknown(addr) {
		return nil, nil
	}
	refuse := func(c *counter, message string) {
		c.n.Add(1)
		h.notice.warn(c.name, "handshake refused", zap.String("limit", c.name), zap.Stringer("address", addr))
		err = &engineio.BusyError{Status: http.StatusTooManyRequests, RetryAfter: time.Second, Message: message}
	}
	h.peers.with(addr, func(p *peer) {
		switch {
		case h.o.IPConnections > 0 && (p.open >= h.o.IPConnections || p.open > 0 && h.crowds(p.open)):
			refuse(&h.ipOpen, "Too many connections from this address")
		case !h.each.take(&p.begun, h.now(), 1):
			refuse(&h.ipRate, "Too many new connections from this address")
		default:
			p.open++
		}
	})
	if err != nil {
		return nil, err
	}
	return func() { h.peers.with(addr, func(p *peer) { p.open-- }) }, nil
}

// crowds reports whether an address with some connections has as many as other addresses can still
// open. So a few addresses cannot use up the connections of a node, and an address without
// connections is always accepted while there is space.
func (h *Handshakes) crowds(open int) bool {
	return h.o.Sessions > 0 && int64(open) >= int64(h.o.Sessions)-h.sessions.Load()
}

// network returns the address whose limits apply to an address: itself, or its IPv6 network of 64
// bits.
func network(remote string) netip.Addr {
	addr := address(remote)
	if addr.Is6() && !addr.IsLoopback() {
		addr = netip.PrefixFrom(addr, 64).Masked().Addr()
	}
	return addr
}

// address returns the IP address in net/http's form of one, with or without a port; the zero
// address if it has none.
func address(remote string) netip.Addr {
	addr, err := netip.ParseAddr(remote)
	if err != nil {
		withPort, _ := netip.ParseAddrPort(remote)
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone("")
}

// Refused returns the number of refused connections, by limit.
func (h *Handshakes) Refused() map[string]uint64 {
	return counts(&h.rate, &h.ipRate, &h.ipOpen, &h.open, &h.header)
}
