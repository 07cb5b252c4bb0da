package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/api"
	"github.com/rejoin-io/rejoin/internal/app"
	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/certs"
	"github.com/rejoin-io/rejoin/internal/client"
	"github.com/rejoin-io/rejoin/internal/demo"
	"github.com/rejoin-io/rejoin/internal/forward"
	"github.com/rejoin-io/rejoin/internal/health"
	"github.com/rejoin-io/rejoin/internal/hooks"
	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/internal/metrics"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A node is everything that runs between start and stop.
type node struct {
	log         *zap.Logger
	logLevel    zap.AtomicLevel
	logDropped  prometheus.Counter
	backends    *api.API
	certificate *certs.Pair // of the public port; nil without TLS
	health      *health.State
	cluster     *cluster           // nil until it is joined
	sockets     *socketio.Server   // nil until there is a cluster
	auth        *auth.Verifier     // nil if clients need no token
	backend     *hooks.Backend     // nil if none is asked
	forward     *forward.Forwarder // nil for a single node
	limits      *limits
	public      *server
	internal    *server
	foreignName sync.Once  // logs the first
	failed      chan error // from the goroutines in running: an unexpected end
	running     sync.WaitGroup
}

// startAs is start with an id. giveUp reports whether an error ends the wait for the
// cluster.
func startAs(ctx context.Context, c config, giveUp func(error) bool, build metrics.Build, log logger) (_ *node, err error) {
	n := &node{
		log:        log.With(zap.String("node", c.NodeID)),
		logLevel:   log.level,
		logDropped: log.dropped,
		health:     health.New(c.NodeID, build.Version),
		failed:     make(chan error, 3),
	}
	// Both ports first: they are the most likely to fail.
	publicPort, err := net.Listen("tcp", c.Addr.String())
	if err != nil {
		return nil, fmt.Errorf("REJOIN_ADDR: %w", err)
	}
	internalPort, err := net.Listen("tcp", c.InternalAddr.String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("REJOIN_INTERNAL_ADDR: %w", err), publicPort.Close())
	}
	var public, internal swap
	allowed, err := engineio.ParseOrigins(c.Origins)
	if err != nil {
		return nil, errors.Join(err, publicPort.Close(), internalPort.Close())
	}
	public.use(allowed.CORS(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { unavailable(w) })))
	n.limits = newLimits(c, n.log)
	n.backends = api.New(api.Options{Keys: c.APIKeys.list, Callers: c.APICallers.all, Logger: n.log}) // unavailable until there are sockets
	internal.use(n.internalHandler(n.backends, metrics.Handler(build, n.earlyMetrics(c, func() (none socketio.Stats) { return none }, nil)...)))
	publicPort, internalPort = n.limits.public.Listener(publicPort), n.limits.internal.Listener(internalPort)
	n.public, n.internal = n.newPublicServer(c, &public), n.newHTTPServer(c, n.limits.internal, limit.ForwardedHeaderLines(n.limits.tally, &internal))
	if publicPort, err = n.secure(c, publicPort); err != nil {
		return nil, errors.Join(err, publicPort.Close(), internalPort.Close())
	}
	n.listen(n.public, publicPort)
	n.listen(n.internal, internalPort)
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			err = errors.Join(err, n.stop(ctx, stopGrace))
		}
	}()

	options, bundled, err := n.options(c)
	if err != nil {
		return nil, err
	}
	if n.cluster, err = n.join(ctx, c, internalPort.Addr(), giveUp); err != nil {
		return nil, err
	}
	options.Adapter, options.OffsetKey = n.cluster.adapter, n.cluster.key
	if n.cluster.sessions != nil {
		options.Sessions = n.cluster.sessions
	}
	if n.forward, err = newForwarder(c, n.cluster.adapter, n.limits, n.log); err != nil {
		return nil, err
	}
	if n.forward != nil {
		options.Engine.Forward = n.forward.Forward
	}
	// After the CORS headers, without which browsers would not show the refusal.
	options.Engine.Use = append(options.Engine.Use, func(next http.Handler) http.Handler {
		return onlyWhenReady(n.cluster.ready, next)
	})
	if n.sockets, err = socketio.NewServer(options); err != nil {
		return nil, err
	}
	if n.auth, err = newVerifier(c, n.log); err != nil {
		return nil, err
	}
	if n.auth != nil {
		n.health.Needs("tokens", n.auth.Ready)
	}
	if n.backend, err = newBackend(c, n.limits.tally, n.log); err != nil {
		return nil, err
	}
	backends := n.serving(c)
	application := app.New(app.Options{
		Verifier: n.auth, Anonymous: c.DefaultCan.or(auth.Everything()), Hooks: n.hooks(c, backends),
		Limits: n.limits.clients, Logger: n.log,
	})
	c.namespaces().register(application, n.sockets)
	internal.use(n.internalHandler(backends, metrics.Handler(build, n.metrics(c, application)...)))
	public.use(publicHandler(c, n.sockets, bundled))
	n.health.Serving()

	n.log.Info("listening", zap.Stringer("addr", publicPort.Addr()), zap.Stringer("internal_addr", internalPort.Addr()), zap.String("version", build.Version))
	if c.LogFormat == "console" && c.Demo {
		n.log.Info(fmt.Sprintf("open %s://%v/ in two tabs of a browser", c.scheme(), publicPort.Addr()))
	}
	return n, nil
}

// stop is start in reverse. Clients are closed as by a lost connection, so they reconnect
// to other nodes and recover. Their requests in progress are cut after a grace period. The
// error names the parts that have not ended when ctx ends.
func (n *node) stop(ctx context.Context, grace time.Duration) error {
	n.health.Stopping()
	// A server closes its port immediately, then waits for the polling requests that
	// closing the sockets answers.
	var publicErr, err error
	var shutdown sync.WaitGroup
	shutdown.Go(func() {
		within, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		publicErr = n.public.shut(within)
	})
	if n.forward != nil {
		err = n.forward.Close(ctx)
	}
	if n.backend != nil { // handlers that wait for it must not delay the stop
		defer time.AfterFunc(grace, n.backend.Close).Stop()
	}
	if n.sockets != nil {
		err = errors.Join(err, n.sockets.Close(ctx))
	}
	shutdown.Wait()
	// Calls of backends end before the cluster, which their answers and
	// keys need.
	err = errors.Join(err, publicErr, n.internal.shut(ctx))
	if n.auth != nil {
		n.auth.Close()
	}
	if n.backend != nil {
		n.backend.Close()
	}
	if n.cluster != nil {
		err = errors.Join(err, n.cluster.close())
	}
	if err != nil {
		err = fmt.Errorf("stop: %w", err)
	}
	n.running.Wait()
	return err
}

// A swap is a handler that is replaced when its successor is ready.
type swap struct{ now atomic.Pointer[http.Handler] }

func (s *swap) use(h http.Handler) { s.now.Store(&h) }

func (s *swap) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*s.now.Load()).ServeHTTP(w, r) }

// listen serves a port until its server is shut down.
func (n *node) listen(s *server, port net.Listener) {
	n.running.Go(func() {
		if err := s.Serve(port); !errors.Is(err, http.ErrServerClosed) {
			n.failed <- fmt.Errorf("listening on %v: %w", port.Addr(), err)
		}
	})
}

// options translates the configuration for the library, where a zero means the
// default and never "none". bundled reports whether there are client files.
func (n *node) options(c config) (_ socketio.Options, bundled bool, err error) {
	window := c.RecoveryWindow
	if !c.recovers() {
		window = -1
	}
	files, version, bundled := client.FS()
	if c.ClientDir != "" {
		if files, version, err = client.Open(c.ClientDir); err != nil {
			return socketio.Options{}, false, fmt.Errorf("REJOIN_CLIENT_DIR: %w", err)
		}
		bundled = true
	}
	if bundled {
		n.log.Debug("serving the JavaScript client", zap.String("version", version))
	} else {
		n.log.Warn("no JavaScript client to serve: run `make client`, or set REJOIN_CLIENT_DIR")
	}
	return socketio.Options{
		Engine: engineio.Options{
			Path:           c.Path,
			NodeID:         c.NodeID,
			PingInterval:   c.PingInterval,
			PingTimeout:    c.PingTimeout,
			UpgradeTimeout: c.UpgradeTimeout,
			MaxPayload:     int(c.MaxPayload),
			SendQueueBytes: int(c.SendQueueBytes),
			QueueBudget:    c.queueBudget(),
			Transports:     c.Transports,
			Origins:        c.Origins,
			Admit:          n.limits.handshakes.Admit,
		},
		RecoveryWindow:          window,
		Recovers:                recovers(c.RecoveryClients),
		ReplayLimit:             c.ReplayLimit,
		ConnectTimeout:          c.ConnectTimeout,
		RoomsPerSocket:          c.RoomsPerSocket,
		MembershipBudget:        c.membershipBudget(),
		MailboxEvents:           c.MailboxEvents,
		MailboxBytes:            int(c.MailboxBytes),
		NamespacesPerConnection: c.NamespacesPerConnection,
		DynamicNamespaces:       c.DynamicNamespaces,
		UnconnectedSessions:     c.UnconnectedSessions,
		ReceiveBudget:           c.receiveBudget(),
		SessionRecoveries:       c.SessionRecoveries,
		RecoveryLimit: func(r *socketio.ConnectRequest) socketio.RecoveryLimit {
			return n.limits.clients.Client(r.User(), r.Handshake().RemoteAddr)
		},
		Client: files,
		Logger: n.log,
	}, bundled, nil
}

// recovers returns the function that decides for clients that do not choose, or
// nil for the library's default.
func recovers(clients string) func(string, *engineio.Handshake) bool {
	switch clients {
	case "requested":
		return func(string, *engineio.Handshake) bool { return false }
	case "all":
		return func(string, *engineio.Handshake) bool { return true }
	}
	return nil
}

// publicHandler routes requests of clients.
func publicHandler(c config, sockets http.Handler, bundled bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(c.Path, sockets)
	mux.Handle(strings.TrimSuffix(c.Path, "/"), sockets) // otherwise the mux would redirect there
	if !bundled {
		for _, name := range client.Names {
			mux.Handle(c.Path+name, client.Missing())
		}
	}
	if c.Demo {
		mux.Handle("/", demo.Handler(c.Path, c.authenticates()))
	}
	return mux
}
