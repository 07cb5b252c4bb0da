package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeCertificate makes a certificate for a name and writes it with its key.
func writeCertificate(t *testing.T, name, certFile, keyFile string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTLS: stock clients talk over TLS on every transport, many frames in one write
// and large ones included, recover over it, and a new certificate needs no restart.
func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeCertificate(t, "first", certFile, keyFile)
	// All requests of a client may be pending: one that is cut loses the request
	// that it was just sending.
	n := startNode(t, "REJOIN_TLS_CERT="+certFile, "REJOIN_TLS_KEY="+keyFile, "REJOIN_SEND_QUEUE_BYTES=16MiB")
	d := startDriver(t)
	large := strings.Repeat("x", 300_000)
	for name, options := range transports {
		options = maps.Clone(options)
		options["rejectUnauthorized"] = false
		s := d.open(name, newest, "https://"+n.addr, options)
		if name == "upgrade" {
			s.awaitUpgrade()
		}
		s.call("join", "room")
		for i := range 20 {
			s.emit("self", "small", i)
			s.emit("self", "large", large)
		}
		for i := range 20 {
			s.hears("small", fmt.Sprint(i))
			s.hears("large", `"`+large+`"`)
		}
		id := s.state().ID
		s.must("cut", nil)
		s.await("disconnect")
		if r := s.await("connect"); !r.Recovered || r.ID != id {
			t.Errorf("%s: reconnected as %+v", name, r.state)
		}
	}

	serves := func(want string, most uint16) error {
		c, err := tls.Dial("tcp", n.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: most, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			return err
		}
		defer c.Close()
		state := c.ConnectionState()
		if got := state.PeerCertificates[0].Subject.CommonName; got != want || state.NegotiatedProtocol != "http/1.1" {
			return fmt.Errorf("certificate %s, protocol %s", got, state.NegotiatedProtocol)
		}
		return nil
	}
	if err := serves("first", 0); err != nil {
		t.Error(err)
	}
	if err := serves("first", tls.VersionTLS11); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	writeCertificate(t, "second", certFile, keyFile)
	eventually(t, "the new certificate is not served", func() error { return serves("second", 0) })
	if err := os.WriteFile(keyFile, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log does not say what is wrong", func() error {
		if err := serves("second", 0); err != nil {
			t.Fatal(err)
		}
		if !n.log.Contains("new TLS certificate unusable") {
			return fmt.Errorf("it is silent")
		}
		return nil
	})
}

// TestTrustedProxy: behind a proxy the limits apply to the client that it
// names, and only a trusted proxy can name one.
func TestTrustedProxy(t *testing.T) {
	t.Parallel()
	behind := startNode(t, "REJOIN_TRUSTED_PROXIES=127.0.0.1", "REJOIN_IP_CONNECTIONS=1")
	direct := startNode(t, "REJOIN_IP_CONNECTIONS=1")
	d := startDriver(t)
	from := func(n *node, name, addr string) *npmSocket {
		return d.opening(name, newest, n.url(), map[string]any{
			"transports": []string{"websocket"}, "reconnection": false, "extraHeaders": map[string]string{"X-Forwarded-For": addr},
		})
	}
	from(behind, "a", "192.0.2.1").await("connect")
	from(behind, "b", "192.0.2.2").await("connect")
	from(behind, "c", "203.0.113.9, 192.0.2.1").await("connect_error")
	if n := behind.metrics()[`rejoin_limited_total{limit="ip_connections"}`]; n != 1 {
		t.Errorf("%v refusals are counted", n)
	}
	from(direct, "d", "192.0.2.1").await("connect") // it is from the loopback interface
	from(direct, "e", "192.0.2.1").await("connect")
}
