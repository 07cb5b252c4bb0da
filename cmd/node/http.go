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

// headTimeout is how long a request's line and headers may take.
const headTimeout = 10 * time.Second

// silence is how long a body may take where its handler does not say otherwise, or
// does not read it: as long as a client may be silent, but no less than a head.
func (c *config) silence() time.Duration { return max(c.PingInterval+c.PingTimeout, headTimeout) }

// newPublicServer bounds what is not the engine's to bound, since only it knows when
// the wait for a poll's answer is over: how long a client may take to take a response.
// A poll waits for one silence at most, so that there is another left to write in,
// also where it is another node's answer.
func (n *node) newPublicServer(c config, h http.Handler) *server {
	s := n.newHTTPServer(c, n.limits.public, n.limits.headers.Public(n.withHealth(c, c.proxies().Handler(n.onlyOwnNames(c, h)))))
	s.IdleTimeout = c.KeepAlive
	s.WriteTimeout = 2 * c.silence()
	return s
}

// withHealth adds the health path, which tells clients nothing but whether the node
// is ready.
func (n *node) withHealth(c config, next http.Handler) http.Handler {
	if c.HealthPath == "" {
		return next
	}
	ready := n.health.Public()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == string(c.HealthPath) {
			ready.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// proxies are those in front of the public address.
func (c *config) proxies() limit.Proxies {
	return limit.Proxies{Networks: c.TrustedProxies, Header: string(c.ClientIPHeader)}
}

// newHTTPServer bounds what a client can hold without being one.
func (n *node) newHTTPServer(c config, port *limit.Port, h http.Handler) *server {
	errorLog, err := zap.NewStdLogAt(n.log, zap.DebugLevel) // mostly what strangers' clients do wrong
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
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			boundSendBuffer(c)
			return port.ConnContext(ctx, c)
		},
		Protocols: new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true) // WebSockets take the connection over, which HTTP/2 has for all requests
	return s
}

// secure makes the public port one of TLS, if there is a certificate.
func (n *node) secure(c config, port net.Listener) (net.Listener, error) {
	if c.TLSCert == "" {
		return port, nil
	}
	pair, err := certs.Open(c.TLSCert, c.TLSKey, n.log)
	if err != nil {
		return port, err
	}
	return tls.NewListener(port, &tls.Config{
		GetCertificate: pair.Certificate,
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
	}), nil
}

// scheme is that of the public port's URLs.
func (c *config) scheme() string {
	if c.TLSCert != "" {
		return "https"
	}
	return "http"
}

// sendBuffer is what the kernel may hold for one connection. Without a bound it
// takes megabytes, and on a narrow link a ping would wait behind them until its
// client has given up.
const sendBuffer = 256 << 10

func boundSendBuffer(c net.Conn) {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if tcp, ok := c.(*limit.Conn); ok {
		_ = tcp.SetWriteBuffer(sendBuffer) // fails on a connection that has ended
	}
}

// A server is an HTTP server that ends in time.
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

// answerGrace is how long answers may take to leave after their requests were handled.
const answerGrace = 200 * time.Millisecond

// shut closes the server's port, waits for the requests that are being handled, and
// closes what is left when ctx ends. Unlike Shutdown it does not wait for connections
// on which no request has arrived, or only a part of one.
func (s *server) shut(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }() // waited for
	tick := time.NewTicker(answerGrace / 4)
	defer tick.Stop()
	for idle := 0; idle < 4; {
		select {
		case err := <-done:
			if ctx.Err() != nil {
				err = nil // what clients have not taken by now is cut
			}
			return errors.Join(err, s.Close())
		case <-tick.C:
			if idle++; s.serving.Load() > 0 {
				idle = 0
			}
		}
	}
	cancel()
	err := <-done
	if errors.Is(err, context.Canceled) {
		err = nil // the connections that are left have no request
	}
	return errors.Join(err, s.Close())
}
