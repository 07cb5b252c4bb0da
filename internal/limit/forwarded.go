package limit

import (
	"net/http"
	"sync/atomic"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"
)

// A Quota bounds what takes the descriptors of a node.
type Quota struct {
	// Name is the limit's name in metrics and logs.
	Name string
	// Max is the maximum number, together with the result of Others: the other users of the same
	// descriptors or, if negative, those that use none. 0 means no limit; a nil Others counts as 0.
	Max    int
	Others func() int
	Tally  *Tally
}

// left returns what Others leave.
func (q *Quota) left() int {
	if q.Others == nil {
		return q.Max
	}
	return q.Max - q.Others()
}

// Forwarded bounds the requests and WebSockets that a node forwards to other nodes, or
// those that it receives from them: each takes a connection between the nodes. All
// methods are safe for concurrent use.
type Forwarded struct {
	o    Quota
	open atomic.Int64
}

// NewForwarded returns a bound of requests and WebSockets.
func NewForwarded(o Quota) *Forwarded { return &Forwarded{o: o} }

// Enter reports whether a request may be forwarded, and counts it until Leave. It reserves space
// for more important requests: a client whose upgrade is refused continues to poll, and a client
// whose poll is refused polls again, but a refused POST ends its session.
func (f *Forwarded) Enter(r *http.Request) bool {
	maximum, reserve := f.o.left(), (f.o.Max+63)/64
	switch {
	case websocket.IsWebSocketUpgrade(r):
		maximum -= 2 * reserve
	case r.Method == http.MethodGet:
		maximum -= reserve
	}
	for {
		open := f.open.Load()
		if f.o.Max > 0 && open >= int64(maximum) {
			f.o.Tally.refuse(f.o.Name, "too many forwarded requests", zap.Int("connections", f.o.Max))
			return false
		}
		if f.open.CompareAndSwap(open, open+1) { // those that are refused never count: they would refuse others
			return true
		}
	}
}

// Leave undoes one Enter.
func (f *Forwarded) Leave() { f.open.Add(-1) }

// Open returns the current number.
func (f *Forwarded) Open() int { return int(f.open.Load()) }

// Max returns the maximum number; 0 means no limit.
func (f *Forwarded) Max() int { return f.o.Max }
