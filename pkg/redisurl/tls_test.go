package redisurl

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

// startTLS starts a server that also accepts TLS, and returns its TLS address.
func startTLS(t *testing.T, certificate, key string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()
	redistest.Start(t, "tls-port "+strconv.Itoa(addr.Port), "tls-auth-clients no",
		"tls-cert-file "+filepath.Join(certificates, certificate), "tls-key-file "+filepath.Join(certificates, key),
		"tls-ca-cert-file "+filepath.Join(certificates, certificate))
	return addr.String()
}

func TestTLS(t *testing.T) {
	addr := startTLS(t, "cert.pem", "key.pem")
	target := parse(t, "rediss://"+addr)
	set(t, target, "k")
	if err := target.Check(deadline(t, 20*time.Second)); err != nil {
		t.Errorf("Check: %v", err)
	}
	if err := parse(t, "redis://"+addr).Check(deadline(t, 20*time.Second)); err == nil {
		t.Error("TLS is not used")
	}
}

func TestServersProveTheirName(t *testing.T) {
	addr := startTLS(t, "other.pem", "other-key.pem")
	if err := parse(t, "rediss://"+addr).Check(deadline(t, 20*time.Second)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Check of a server of another name: %v", err)
	}
	if err := parse(t, "rediss://"+addr+"?skip_verify=true").Check(deadline(t, 20*time.Second)); err != nil {
		t.Errorf("Check without verification: %v", err)
	}
}

// With a server that accepts and sends nothing, the handshake ends with the context.
func TestTLSHeedsTheContext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	o := parse(t, "rediss://"+silent.Addr().String()).at(silent.Addr().String())
	if _, err := o.Dialer(ctx, "tcp", o.Addr); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial: %v, want context.DeadlineExceeded", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v, want at most %v", took, 3*time.Second)
	}
}
