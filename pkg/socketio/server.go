package socketio

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A Server serves Socket.IO clients. It is an http.Handler for all requests
// under its path, and may be mounted on a mux beside other routes. The methods of
// its main namespace, "/", are its own: srv.OnConnect, srv.To, srv.Emit.
//
// All methods are safe for concurrent use. Register handlers and middlewares before the first
// client connects; later ones apply to later clients.
type Server struct {
	*Namespace

	opts       Options
	log        *zap.Logger
	engine     *engineio.Server
	files      http.Handler // the client's files; nil for none
	adapter    adapter.Adapter
	ownsIt     bool          // the server created the adapter
	silence    time.Duration // see newSilence
	silent     uint64        // see isSilence; in milliseconds
	renewing   atomic.Int32  // goroutines that write sessions because of it
	sessions   session.Store
	offsets    offsets
	feed       feed
	owned      ownership // the sessions that this node serves
	evictions  evictions
	recoveries paces   // by private id
	replays    replays // the bytes that recoveries hold
	held       heldBudget

	memberships atomic.Int64  // cost of the memberships of all sockets, and of further sockets of a connection
	placed      atomic.Int64  // number of sockets in the index
	turns       turns         // of sockets that enter or leave many rooms
	writes      turns         // of those that write their sessions
	rewinds     chan struct{} // holds a token for each join with history
	queries     queries       // this node's open queries
	stats       counters
	fullLogs    logLimit // of full mailboxes
	pauseLogs   logLimit // of connections that were closed because of a pause

	unconnected unconnected
	received    receiveBudget
	// retryDelay is the minimum time that a connection with other sockets stays open after a
	// CONNECT was postponed; the maximum is twice that.
	retryDelay time.Duration

	msgpackOnce sync.Once // logs that a client uses another parser

	mu         sync.Mutex
	namespaces map[string]*Namespace
	parents    []*Parent
	dynamic    int // of namespaces, those with dynamic set
	onNew      []func(*Namespace)
	clients    map[string]*client // with an open connection, by its id
	closing    bool

	ctx   context.Context // ends when Close stops the loops
	stop  context.CancelFunc
	tasks tasks // all goroutines of this server
}

// NewServer creates a server and starts its feed. End the server with Close. The error for invalid
// options says what is allowed.
func NewServer(o Options) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts: o, log: o.Logger, adapter: o.Adapter, sessions: o.Sessions, offsets: newOffsets(o.OffsetKey),
		retryDelay: retryDelay,
		recoveries: paces{pace: pace{o.SessionRecoveries, recoveryInterval}, most: min(maxRecoveryDebt, o.RecoveryWindow/2)},
		turns:      newTurns(),
		writes:     newTurns(),
		rewinds:    make(chan struct{}, concurrentRewinds),
		replays:    replays{page: replayPage, budget: replayBudget, small: smallReplay, patience: readPatience},
	}
	s.held.most = int64(o.Engine.QueueBudget) / heldPart
	if budget := o.Engine.QueueBudget; budget > 0 {
		s.replays.budget = min(replayBudget, budget/2)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.stats.init()
	s.tasks.init()
	if s.sessions == nil {
		s.sessions = session.NewMemory()
	}
	if s.adapter == nil {
		a, err := adapter.NewMemory(adapter.MemoryOptions{}).Node("alone")
		if err != nil {
			return nil, err
		}
		s.adapter, s.ownsIt = a, true
	}
	s.silence = newSilence(s.adapter, o.sessionLife())
	s.silent = uint64(min(s.silence, o.quiet()).Milliseconds())
	if o.Engine.OnPanic == nil {
		o.Engine.OnPanic = func(hook string, value any, stack []byte) {
			s.reportPanic(&PanicError{Callback: "Engine." + hook, Value: value, Stack: stack})
		}
	}
	if s.engine, err = engineio.NewServer(o.Engine, s.serve); err != nil {
		return nil, errors.Join(err, s.closeAdapter())
	}
	if o.Client != nil {
		s.files = s.engine.CORS(newFiles(o.Client))
	}
	ctx, cancel := context.WithTimeout(s.ctx, storeTimeout)
	defer cancel()
	if s.feed.cursor, err = s.adapter.Head(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("socketio: read the adapter's newest position: %w", err), s.closeAdapter())
	}
	s.Namespace = s.Of("/")
	s.spawn(func() { s.runFeed(s.ctx) })
	s.spawn(func() { s.runMessages(s.ctx) })
	if o.recovery() {
		s.spawn(func() { s.runRefresh(s.ctx) })
	}
	return s, nil
}

// ServeHTTP serves the connections, and the client's files if Options.Client has them.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.files != nil {
		if name, ok := strings.CutPrefix(r.URL.Path, s.opts.Engine.Path); ok && isClientFile(name) {
			s.files.ServeHTTP(w, r)
			return
		}
	}
	s.engine.ServeHTTP(w, r)
}

// spawn runs f on a goroutine that Close waits for.
func (s *Server) spawn(f func()) { s.tasks.start(f) }

// cutAll closes every connection in a way that makes its client reconnect.
func (s *Server) cutAll() {
	for c := range s.engine.Conns() {
		s.spawn(func() { c.Close(engineio.TransportClose) })
	}
}

// Close ends the server: it refuses new clients, gives every socket's handlers the reason "server
// shutting down", closes the connections in a way that makes clients reconnect elsewhere, and waits
// until all its goroutines have ended. If the context ends first, Close stops waiting and returns
// the context's error. A second call has no effect: it returns nil and does not wait.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	already := s.closing
	s.closing = true
	var all []*Socket
	for _, n := range s.namespaces {
		for sock := range n.Sockets() {
			all = append(all, sock)
		}
	}
	s.mu.Unlock()
	if already {
		return nil
	}
	for _, sock := range all {
		sock.end(ServerShutdown)
	}
	err := s.engine.Close(ctx)
	for _, sock := range all {
		_ = sock.awaitEnd(ctx) // ctx is checked below
	}
	s.stop()
	return errors.Join(err, waitFor(ctx, s.tasks.await()), s.closeAdapter())
}

func (s *Server) closeAdapter() error {
	if s.ownsIt {
		return s.adapter.Close()
	}
	return nil
}

// Values of the Kind of a message between nodes.
const (
	messageAnswers uint8 = iota // to a query
	messageEvict                // a session that this node served has moved
)

// runMessages processes the node's messages until the adapter or the server closes.
func (s *Server) runMessages(ctx context.Context) {
	for {
		m, err := s.adapter.Receive(ctx)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, adapter.ErrClosed) {
				s.cutAll()
			}
			return
		}
		switch m.Kind {
		case messageAnswers:
			s.queries.take(m)
		case messageEvict:
			s.takeEvict(m)
		}
	}
}

// store returns a context for one round to the session store or the adapter, which a Close does not
// end.
func (s *Server) store() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), storeTimeout)
}

var _ http.Handler = (*Server)(nil)
