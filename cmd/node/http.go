package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/certs"
)

// bodyTimeout is how long a request's body may take where its handler does not
// say otherwise, or does not read it.
const bodyTimeout = 30 * time.Second

// newHTTPServer bounds what a client can hold without being one. How long bodies
// and responses of clients may take is the engine's to say: a poll rightly takes
// long.
func (n *node) newHTTPServer(h http.Handler) *http.Server {
	errorLog, err := zap.NewStdLogAt(n.log, zap.DebugLevel) // mostly what strangers' clients do wrong
	if err != nil {
		panic(err) // zap does not know its own level
	}
	s := &http.Server{
		Handler:           boundBody(h),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10, // a session keeps its first request's
		ErrorLog:          errorLog,
		ConnContext:       boundSendBuffer,
		Protocols:         new(http.Protocols),
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

// boundBody gives each body a time in which it must have come.
func boundBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			// It stays until the next request, since the server reads what the handler has left.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // fails on a connection that has ended
		}
		next.ServeHTTP(w, r)
	})
}

// sendBuffer is what the kernel may hold for one connection. Without a bound it
// takes megabytes, and on a narrow link a ping would wait behind them until its
// client has given up.
const sendBuffer = 256 << 10

func boundSendBuffer(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBuffer) // fails on a connection that has ended
	}
	return ctx
}
