package limit

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// Waiting bounds the TCP connections of a server on which no request is under
// way: those that have sent none yet, and those between two. If there are more,
// the one that has waited longest is closed. Its ConnState belongs into an
// [http.Server].
type Waiting struct {
	most   int
	closed counter

	mu    sync.Mutex
	order *list.List // of net.Conn, the longest wait first
	place map[net.Conn]*list.Element
}

// NewWaiting returns a bound of that many connections.
func NewWaiting(most int) *Waiting {
	return &Waiting{most: most, closed: counter{name: IdleConnections}, order: list.New(), place: make(map[net.Conn]*list.Element)}
}

// ConnState has the form of [http.Server.ConnState].
func (w *Waiting) ConnState(c net.Conn, state http.ConnState) {
	w.mu.Lock()
	if at := w.place[c]; at != nil {
		w.order.Remove(at)
		delete(w.place, c)
	}
	var longest net.Conn
	if state == http.StateNew || state == http.StateIdle {
		w.place[c] = w.order.PushBack(c)
		if w.order.Len() > w.most {
			longest = w.order.Remove(w.order.Front()).(net.Conn)
			delete(w.place, longest)
		}
	}
	w.mu.Unlock()
	if longest == nil {
		return
	}
	w.closed.n.Add(1)
	if secure, ok := longest.(*tls.Conn); ok {
		longest = secure.NetConn() // no goodbye, which could take long
	}
	_ = longest.Close() // nobody waits for anything
}

// Refused returns how many connections were closed.
func (w *Waiting) Refused() map[string]uint64 { return counts(&w.closed) }
