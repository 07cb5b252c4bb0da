// Package engineio serves Engine.IO v4: connections that begin with HTTP long-polling or a
// WebSocket, upgrade from one to the other, detect a dead peer, and carry text and binary messages
// in order.
//
// A [Server] is an http.Handler. It hands each new [Conn] to a function that reads it. Outgoing
// messages are [Packet] values, each encoded once for any number of connections.
//
// WebTransport, JSONP and revision 3 of the protocol are not served.
package engineio

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// A Server accepts connections. It is an http.Handler, to be mounted at its path. All its methods
// are safe for concurrent use.
type Server struct {
	o             Options
	serve         func(*Conn)
	log           *zap.Logger
	shed          chan struct{} // capacity 1: the queue budget is exceeded
	origins       *Origins
	badOrigins    refusedOrigins
	oversize      logLimit
	notCompressed logLimit
	arriving      arrivals
	compressed    *rate.Limiter // bytes of polling responses
	hijackOnce    sync.Once     // logs that a WebSocket is impossible
	handler       http.Handler
	parameters    string // in the packet that begins a session
	counts        counts

	// Set with mu held.
	refusing atomic.Bool // new connections
	closing  atomic.Bool

	tasks    sync.WaitGroup // goroutines of connections; none is added once closing
	shedding sync.WaitGroup
	allDone  chan struct{} // closed when the last goroutine has ended

	// Guarded by mu, which is taken after a connection's.
	mu           sync.Mutex
	conns        map[string]*Conn             // includes closed ones for which something is left to write
	probes       map[*websocketTransport]bool // WebSockets that belong to no connection yet
	clients      map[string]int               // open connections by transport
	opened       uint64
	closed       map[Reason]uint64
	upgradeCount uint64
}

// NewServer returns a server that calls serve on a separate goroutine for each new connection.
// serve calls [Conn.Recv] until that fails, and then returns; the connection is closed when serve
// returns or panics. The server holds a goroutine; end it with Close.
func NewServer(o Options, serve func(*Conn)) (*Server, error) {
	o, err := o.WithDefaults()
	if err != nil {
		return nil, err
	}
	allowed, err := newOrigins(&o)
	if err != nil {
		return nil, err
	}
	s := &Server{
		o:       o,
		serve:   serve,
		log:     o.Logger,
		origins: allowed,
		conns:   make(map[string]*Conn),
		probes:  make(map[*websocketTransport]bool),
		clients: make(map[string]int),
		closed:  make(map[Reason]uint64),

		parameters: fmt.Sprintf(`,"pingInterval":%d,"pingTimeout":%d,"maxPayload":%d}`,
			o.PingInterval.Milliseconds(), o.PingTimeout.Milliseconds(), o.MaxPayload),

		compressed: rate.NewLimiter(compressionRate, compressionBurst),

		shed:    make(chan struct{}, 1),
		allDone: make(chan struct{}),
	}
	s.arriving.budget, s.arriving.log, s.arriving.open = o.ReceiveBudget, o.Logger, make(map[*arrival]struct{})
	s.arriving.most = max(o.ReceiveBudget/4*3, min(o.ReceiveBudget, 3*o.MaxPayload)) // one of any size fits
	s.handler = http.HandlerFunc(s.dispatch)
	for _, use := range slices.Backward(o.Use) {
		s.handler = use(s.handler)
	}
	s.handler = s.origins.CORS(s.handler)
	if o.QueueBudget > 0 {
		s.shedding.Go(s.shedAll) // until awaitTasks closes shed
	}
	return s, nil
}

// CORS allows the origins that may use the server to use another handler: it adds the CORS headers,
// and answers browsers' preflights. The handler is called for every other request, of any origin.
func (s *Server) CORS(next http.Handler) http.Handler { return s.origins.CORS(next) }

func (s *Server) lookup(id string) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[id]
}

// addHeaders calls a hook for the headers of a response.
func (s *Server) addHeaders(name string, hook func(http.Header, *http.Request), h http.Header, r *http.Request) {
	if hook != nil {
		s.o.guard(name, func() { hook(h, r) })
	}
}

// upgradeHeader returns the headers of a 101: those that middlewares have set.
func (s *Server) upgradeHeader(w http.ResponseWriter, r *http.Request) http.Header {
	h := w.Header().Clone()
	s.addHeaders("Headers", s.o.Headers, h, r)
	return h
}

// admit registers a new connection. It returns false if the server refuses it, or the id is in use.
func (s *Server) admit(c *Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refusing.Load() || s.conns[c.id] != nil {
		return false
	}
	s.conns[c.id] = c
	s.clients[c.transport()]++
	s.opened++
	s.tasks.Add(1)
	return true
}

// runProbe runs f for a WebSocket on a goroutine that Close waits for, unless the server is closed.
// Close may cut the WebSocket meanwhile.
func (s *Server) runProbe(t *websocketTransport, f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.probes[t] = true
	s.tasks.Go(func() {
		f()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.probes, t)
	})
	return true
}

func (s *Server) countUpgrade() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[Polling]--
	s.clients[WebSocket]++
	s.upgradeCount++
}

func (s *Server) countClosed(transport string, reason Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[transport]--
	s.closed[reason]++
}

// forget removes a closed connection. Its id is unknown from here on.
func (s *Server) forget(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[c.id] == c {
		delete(s.conns, c.id)
		close(c.forgotten)
	}
}

// Refuse refuses new connections from now on: their first requests get a 503, after which stock
// clients retry, elsewhere if a load balancer allows it. Existing connections continue, and may
// still upgrade to a WebSocket.
func (s *Server) Refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusing.Store(true)
}

// known returns the connections that are open, or for which something is left to write.
func (s *Server) known() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.conns))
}

// size returns the number of the same connections, at least 1.
func (s *Server) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(1, len(s.conns))
}

// Conns returns the open connections. The iteration holds no lock; some may have closed, and others
// opened, since it began.
func (s *Server) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		for _, c := range s.known() {
			if c.ctx.Err() == nil && !yield(c) {
				return
			}
		}
	}
}

// closeGrace is the time that Server.Close gives clients to receive their queued packets and
// the close.
const closeGrace = time.Second

// Close refuses new connections from now on, closes all existing ones with [ForcedClose], and waits
// for all their goroutines. Clients receive their queued packets and the close, except polling
// clients without a pending poll. Connections that have not finished within a second, or when ctx
// ends, are cut, so that only serve functions can delay Close further. When ctx ends Close returns
// the cause, and does not wait for them.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	first := s.closing.CompareAndSwap(false, true)
	s.refusing.Store(true)
	s.mu.Unlock()
	for _, c := range s.known() {
		c.shutDown()
	}
	if first {
		go s.awaitTasks() // until the last goroutine has ended
	}
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	select {
	case <-s.allDone:
		return nil
	case <-grace.C:
	case <-ctx.Done():
	}
	s.cut()
	select {
	case <-s.allDone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cut cuts all connections, which are closed, and all WebSockets that belong to none.
func (s *Server) cut() {
	for _, c := range s.known() {
		c.mu.Lock()
		c.cut()
		c.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.probes {
		t.cut()
	}
}

// awaitTasks waits for all goroutines of connections, and then stops the shedder.
func (s *Server) awaitTasks() {
	s.tasks.Wait()
	close(s.shed) // no connection is left
	s.shedding.Wait()
	close(s.allDone)
}
