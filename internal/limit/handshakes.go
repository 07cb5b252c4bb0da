package limit

import (
	"cmp"
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
	// not counted. If IPConnections is set, one address may have at most as much of it as is left for
	// others.
	HeaderBytes int
	Proxies     Proxies
	Tally       *Tally // by default one of its own, which logs nothing
}

// Handshakes decide which new connections a node accepts. All methods are safe for concurrent use.
type Handshakes struct {
	o HandshakeOptions
	clock
	all   *rate.Limiter
	each  pace
	peers *table[netip.Addr, peer]

	sessions, headerBytes atomic.Int64
}

// A peer is the use of the limits by one address.
type peer struct {
	begun   due
	open    int
	headers int64 // bytes of those that count
}

// NewHandshakes returns the limits of a node. Rate allows a burst of one second's worth, and IPRate
// of ten.
func NewHandshakes(o HandshakeOptions) *Handshakes {
	o.Tally = cmp.Or(o.Tally, NewTally(zap.NewNop()))
	h := &Handshakes{o: o, clock: newClock(), all: rate.NewLimiter(rate.Limit(o.Rate), o.Rate), each: paced(o.IPRate, 1)}
	h.peers = newTable[netip.Addr](func(p *peer) bool { return p.open == 0 && int64(p.begun) <= h.now() })
	return h
}

// Admit implements [engineio.Options.Admit]. An address that exceeds its own limits uses nothing of
// the common ones.
func (h *Handshakes) Admit(r *http.Request) (ended func(), err error) {
	headers := max(0, headerSize(r)-freeHeaders)
	left, err := h.admitPeer(r.RemoteAddr, headers)
	if err != nil {
		return nil, err
	}
	open, kept := h.sessions.Add(1), h.headerBytes.Add(headers)
	release := func() {
		h.sessions.Add(-1)
		h.headerBytes.Add(-headers)
		left()
	}
	refuse := func(limit string, maximum zap.Field, message string) error {
		release()
		h.o.Tally.refuse(limit, "handshake refused", maximum)
		return &engineio.BusyError{RetryAfter: time.Second, Message: message}
	}
	switch {
	case h.o.Sessions > 0 && open > int64(h.o.Sessions):
		return nil, refuse(Sessions, zap.Int("connections", h.o.Sessions), "This node has too many connections")
	case h.o.HeaderBytes > 0 && headers > 0 && kept > int64(h.o.HeaderBytes):
		return nil, refuse(HeaderBytes, zap.Int("bytes", h.o.HeaderBytes), "This node has too many connections with large headers")
	case h.o.Rate > 0 && !h.all.Allow():
		return nil, refuse(HandshakeRate, zap.Int("in_a_second", h.o.Rate), "This node has too many new connections")
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

func (h *Handshakes) admitPeer(remote string, headers int64) (left func(), err error) {
	addr := network(remote)
	if h.o.IPRate == 0 && h.o.IPConnections == 0 || h.o.Proxies.unknown(addr) {
		return func() {}, nil
	}
	refuse := func(limit, message string) {
		h.o.Tally.refuse(limit, "handshake refused", zap.Stringer("address", addr))
		err = &engineio.BusyError{Status: http.StatusTooManyRequests, RetryAfter: time.Second, Message: message}
	}
	h.peers.with(addr, func(p *peer) {
		switch {
		case h.o.IPConnections > 0 && (p.open >= h.o.IPConnections || exceedsShare(int64(p.open), 1, h.o.Sessions, &h.sessions)):
			refuse(IPConnections, "Too many connections from this address")
		case h.o.IPConnections > 0 && exceedsShare(p.headers, headers, h.o.HeaderBytes, &h.headerBytes):
			refuse(HeaderBytes, "Too many connections with large headers from this address")
		case !h.each.take(&p.begun, h.now(), 1):
			refuse(IPHandshakeRate, "Too many new connections from this address")
		default:
			p.open++
			p.headers += headers
		}
	})
	if err != nil {
		return nil, err
	}
	return func() { h.peers.with(addr, func(p *peer) { p.open, p.headers = p.open-1, p.headers-headers }) }, nil
}

// exceedsShare reports whether an address that has some of a limit would have more than others can still have.
// So a few addresses cannot use it up, and an address that has nothing is always accepted while there is
// space.
func exceedsShare(has, wants int64, maximum int, used *atomic.Int64) bool {
	return maximum > 0 && has > 0 && wants > 0 && has+wants > int64(maximum)-used.Load()
}
