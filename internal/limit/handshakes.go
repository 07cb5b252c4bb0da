package limit

import (
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// HandshakeOptions configure [Handshakes]. A zero is no limit.
type HandshakeOptions struct {
	// Rate is how many connections may begin in a second on this node.
	Rate int
}

// Handshakes decide which new connections a node takes. All methods may be called
// at once.
type Handshakes struct {
	o    HandshakeOptions
	all  *rate.Limiter
	rate counter
}

// NewHandshakes returns the limits of a node. Each rate allows one second's worth
// at once.
func NewHandshakes(o HandshakeOptions) *Handshakes {
	return &Handshakes{o: o, all: perSecond(o.Rate, o.Rate), rate: counter{name: HandshakeRate}}
}

// perSecond returns a limiter of n in a second, of which burst may come at once.
func perSecond(n, burst int) *rate.Limiter {
	if n == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(n), burst)
}

// Admit has the form of [engineio.Options.Admit].
func (h *Handshakes) Admit(*http.Request) (ended func(), err error) {
	if !h.all.Allow() {
		h.rate.n.Add(1)
		return nil, &engineio.BusyError{RetryAfter: time.Second, Message: "This node has too many new connections"}
	}
	return nil, nil
}

// Refused returns how many connections were refused, by limit.
func (h *Handshakes) Refused() map[string]uint64 { return counts(&h.rate) }
