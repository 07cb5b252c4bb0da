package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/app"
	"github.com/rejoin-io/rejoin/internal/client"
	"github.com/rejoin-io/rejoin/internal/demo"
	"github.com/rejoin-io/rejoin/internal/health"
	"github.com/rejoin-io/rejoin/internal/metrics"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/session"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// stopTimeout bounds a clean stop.
const stopTimeout = 15 * time.Second

// serve runs the node until the context ends.
func serve(ctx context.Context, c config, log *zap.Logger) error {
	id := string(c.NodeID)
	if id == "" {
		id = rand.Text()[:4]
	}
	state := health.New(id, version)
	cluster, err := adapter.NewMemory(adapter.MemoryOptions{
		BacklogLimit: orNone(c.BacklogLimit), BacklogTTL: c.BacklogTTL,
	}).Node(adapter.NodeID(id))
	if err != nil {
		return err
	}
	defer func() { _ = cluster.Close() }() // in memory: nothing can fail
	files, err := clientFiles(c)
	if err != nil {
		return err
	}
	srv, err := socketio.NewServer(options(c, id, cluster, files, log))
	if err != nil {
		return err
	}
	for _, name := range c.Namespaces {
		app.Register(srv.Of(name))
	}
	// The main namespace always exists; where it is not served it refuses all.
	if !slices.Contains(c.Namespaces, "/") {
		srv.Use(func(context.Context, *socketio.Socket) error {
			return &socketio.ConnectError{Message: "Invalid namespace"}
		})
	}
	public, internal := http.NewServeMux(), http.NewServeMux()
	mountPublic(public, c, srv, files != nil)
	internal.Handle("/healthz", state.Live())
	internal.Handle("/readyz", state.Ready())
	internal.Handle("/metrics", metrics.Handler(build(), srv.Stats))

	err = listen(ctx, c, log, state, srv, public, internal)
	return err
}

// listen serves both ports until the context ends or one of them fails, and then
// stops in the reverse order: no new clients, the sockets, the ports.
func listen(ctx context.Context, c config, log *zap.Logger, state *health.State, srv *socketio.Server, public, internal http.Handler) error {
	failed := make(chan error, 2)
	publicServer, internalServer := newHTTPServer(public), newHTTPServer(internal)
	publicAddr, err := start(ctx, publicServer, c.Addr.String(), failed)
	if err != nil {
		return errors.Join(err, stop(srv, publicServer))
	}
	internalAddr, err := start(ctx, internalServer, c.InternalAddr.String(), failed)
	if err != nil {
		return errors.Join(err, stop(srv, publicServer, internalServer))
	}
	state.Serving()
	fields := []zap.Field{zap.String("addr", publicAddr), zap.String("internal_addr", internalAddr), zap.String("version", version)}
	if c.Demo {
		fields = append(fields, zap.String("demo", "http://"+publicAddr+"/"))
	}
	log.Info("listening", fields...)
	select {
	case err = <-failed:
	case <-ctx.Done():
		log.Info("stopping")
	}
	state.Stopping()
	err = errors.Join(err, stop(srv, publicServer, internalServer))
	log.Info("stopped")
	return err
}

// start listens on an address and serves it on a goroutine that ends when the
// server is shut down.
func start(ctx context.Context, s *http.Server, addr string, failed chan<- error) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("serving %s: %w", addr, err)
		}
	}()
	return l.Addr().String(), nil
}

// stop ends the sockets, so that their clients go elsewhere, and then the ports.
func stop(srv *socketio.Server, servers ...*http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := srv.Close(ctx)
	for _, s := range servers {
		err = errors.Join(err, s.Shutdown(ctx))
	}
	return err
}

func newHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}

// mountPublic puts together what clients and browsers see.
func mountPublic(mux *http.ServeMux, c config, srv *socketio.Server, hasClient bool) {
	mux.Handle(string(c.Path), srv)
	if !hasClient {
		for _, name := range client.Names {
			mux.Handle(string(c.Path)+name, client.Missing())
		}
	}
	if c.Demo {
		mux.Handle("/", demo.Handler(string(c.Path)))
	}
}

// clientFiles returns the JavaScript client to serve, or nil if there is none.
func clientFiles(c config) (fs.FS, error) {
	if c.ClientDir != "" {
		files, _, err := client.Open(c.ClientDir)
		return files, err
	}
	if files, _, ok := client.FS(); ok {
		return files, nil
	}
	return nil, nil
}

func options(c config, id string, cluster adapter.Adapter, files fs.FS, log *zap.Logger) socketio.Options {
	window := c.RecoveryWindow
	if !c.recovers() {
		window = -1
	}
	return socketio.Options{
		Engine: engineio.Options{
			Path: string(c.Path), NodeID: id,
			PingInterval: c.PingInterval, PingTimeout: c.PingTimeout, UpgradeTimeout: c.UpgradeTimeout,
			MaxPayload: int(c.MaxPayload), SendQueueBytes: int(c.SendQueueBytes),
			Transports: c.Transports, Origins: c.Origins,
		},
		Adapter: cluster, Sessions: session.NewMemory(),
		RecoveryWindow: window, ReplayLimit: c.ReplayLimit, ConnectTimeout: c.ConnectTimeout,
		Client: files, Logger: log,
	}
}

// orNone turns our 0, none, into the adapter's.
func orNone(n int) int {
	if n == 0 {
		return -1
	}
	return n
}
