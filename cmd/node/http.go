package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/certs"
	"github.com/rejoin-io/rejoin/internal/limit"
)

// headTimeout is the time limit of a request's line and headers.
const headTimeout = 10 * time.Second

// silence is the default time limit of a body, also of one that the handler does
// not read: as long as a client may be silent, but at least headTimeout.
func (c *config) silence() time.Duration { return max(c.PingInterval+c.PingTimeout, headTimeout) }

// newPublicServer limits the time of a request and its response. A poll waits for at
// most one silence, so another one is left for writing the response, also one of
// another node. The engine sets its own deadlines, because only the engine knows when
// a poll's wait ends.
func (n *node) newPublicServer(c config, h http.Handler) *server {
	s := n.newHTTPServer(c, n.limits.public, limit.HeaderLines(n.limits.tally, n.withHealth(c, c.proxies().Handler(n.onlyOwnNames(c, h)))))
	s.IdleTimeout = c.KeepAlive
	s.WriteTimeout = 2 * c.silence()
	return s
}

// withHealth adds the health path, which reveals only whether the node is ready.
func (n *node) withHealth(c config, next http.Handler) http.Handler {
	if c.HealthPath == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == c.HealthPath {
			n.health.Public(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// proxies returns the trusted proxies in front of the public address.
func (c *config) proxies() limit.Proxies {
	return limit.Proxies{Networks: c.TrustedProxies, Header: c.ClientIPHeader}
}

// newHTTPServer limits the resources of connections that are not clients yet.
func (n *node) newHTTPServer(c config, port *limit.Port, h http.Handler) *server {
	errorLog, err := zap.NewStdLogAt(n.log, zap.DebugLevel) // mostly errors of untrusted clients
	if err != nil {
		panic(err) // zap does not know its own level
	}
	s := &server{}
	s.Server = http.Server{
		Handler:           s.count(port.Body(h, c.silence())),
		ReadHeaderTimeout: headTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          errorLog,
		ConnState:         port.ConnState,
		ConnContext:       port.ConnContext,
		Protocols:         new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true) // WebSockets take over the connection, which all requests share in HTTP/2
	return s
}

// secure adds TLS to the public port if there is a certificate.
func (n *node) secure(c config, port net.Listener) (net.Listener, error) {
	if c.TLSCert == "" {
		return port, nil
	}
	pair, err := certs.Open(c.TLSCert, c.TLSKey, n.log)
	if err != nil {
		return port, err
	}
	n.certificate = pair
	return tls.NewListener(port, &tls.Config{
		GetCertificate: pair.Certificate,
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
	}), nil
}

// scheme returns the scheme of the public port's URLs.
func (c *config) scheme() string {
	if c.TLSCert != "" {
		return "https"
	}
	return "http"
}

// A server is an HTTP server whose shutdown is limited in time.
type server struct {
	http.Server
	serving atomic.Int64 // requests that are being handled
}

func (s *server) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.serving.Add(1)
		defer s.serving.Add(-1)
		next.ServeHTTP(w, r)
	})
}

// answerGrace is the time for sending answers after their requests were handled.
const answerGrace = 200 * time.Millisecond

// shut closes the server's port, waits for the requests that are being handled, and
// closes the remaining connections when ctx ends. Unlike Shutdown it does not wait
// for connections on which no request has arrived, or only a part of one.
func (s *server) shut(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }() // waited for
	tick := time.NewTicker(answerGrace / 4)
	defer tick.Stop()
	for idle := 0; ; {
		select {
		case err := <-done:
			if ctx.Err() != nil {
				err = nil // what is cut are responses that clients have not read, and connections without a request
			}
			return errors.Join(err, s.Close())
		case <-tick.C:
			if idle++; s.serving.Load() > 0 {
				idle = 0
			}
			if idle == 4 {
				cancel()
			}
		}
	}
}
