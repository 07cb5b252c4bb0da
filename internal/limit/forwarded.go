package limit

import (
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"
)

// ForwardedOptions configure a [Forwarded].
type ForwardedOptions struct {
	// Name is the limit's name in metrics and logs.
	Name string
	// Max is the maximum number of requests and WebSockets, together with the result of Others: the
	// other users of the same descriptors. 0 means no limit; a nil Others counts as 0.
	Max    int
	Others func() int
	Log    *zap.Logger
}

// Forwarded bounds the requests and WebSockets that a node forwards to other nodes, or
// those that it receives from them: each takes a connection between the nodes. All
// methods are safe for concurrent use.
type Forwarded struct {
	o       ForwardedOptions
	refused counter
	notice  notice

	mu   sync.Mutex
	open int
}

// NewForwarded returns a bound.
func NewForwarded(o ForwardedOptions) *Forwarded {
	return &Forwarded{o: o, refused: counter{name: o.Name}, notice: notice{log: o.Log}}
}

// Enter reports whether a request may be forwarded, and counts it until Leave. It reserves space
// for more important requests: a client whose upgrade is refused continues to poll, and a client
// whose poll is refused polls again, but a refused POST ends its session.
func (f *Forwarded) Enter(r *http.Request) bool {
	most := f.o.Max
	reserve := (most + 63) / 64
	switch {
	case websocket.IsWebSocketUpgrade(r):
		most -= 2 * reserve
	case r.Method == http.MethodGet:
		most -= reserve
	}
	if f.o.Others != nil {
		most -= f.o.Others()
	}
	f.mu.Lock()
	full := f.o.Max > 0 && f.open >= most
	if !full {
		f.open++
	}
	f.mu.Unlock()
	if full {
		f.refused.n.Add(1)
		f.notice.warn(f.o.Name, "too many forwarded requests", zap.String("limit", f.o.Name), zap.Int("connections", f.o.Max))
	}
	return !full
}

// Leave undoes one Enter.
func (f *Forwarded) Leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
}

// Open returns the current number.
func (f *Forwarded) Open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}

// Max returns the maximum number; 0 means no limit.
func (f *Forwarded) Max() int { return f.o.Max }

// Refused returns the number of refused requests.
func (f *Forwarded) Refused() map[string]uint64 { return counts(&f.refused) }
