package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns a certificate and its key for a name.
func pair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert1, key1 := pair(t, "first")
	cert2, key2 := pair(t, "second")
	core, logs := observer.New(zapcore.DebugLevel)
	synctest.Test(t, func(t *testing.T) {
		write(t, certFile, cert1)
		write(t, keyFile, key1)
		p, err := Open(certFile, keyFile, zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		serves := func(want string, warnings, reloads int) {
			t.Helper()
			for range 3 {
				cert, err := p.Certificate(nil)
				if err != nil || cert.Leaf.Subject.CommonName != want {
					t.Fatalf("%v %v, want %s", cert.Leaf.Subject, err, want)
				}
				time.Sleep(period)
			}
			if w, r := logs.FilterLevelExact(zapcore.WarnLevel).Len(), logs.FilterLevelExact(zapcore.InfoLevel).Len(); w != warnings || r != reloads {
				t.Errorf("%d warnings and %d reloads are logged, want %d and %d", w, r, warnings, reloads)
			}
		}
		serves("first", 0, 0)
		write(t, certFile, cert2) // between two writes the two do not match
		serves("first", 1, 0)
		write(t, keyFile, key2)
		serves("second", 1, 1)
		write(t, keyFile, []byte("nonsense"))
		serves("second", 2, 1)
		if err := os.Remove(certFile); err != nil {
			t.Fatal(err)
		}
		serves("second", 3, 1)
		write(t, certFile, cert2)
		write(t, keyFile, key2)
		serves("second", 3, 2)
	})
	for _, line := range logs.All() {
		for _, field := range line.Context {
			if err, ok := field.Interface.(error); ok && strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("the log shows a key: %v", err)
			}
		}
	}
}

func TestBadFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert, _ := pair(t, "one")
	_, other := pair(t, "other")
	if _, err := Open(certFile, keyFile, zap.NewNop()); err == nil {
		t.Error("files that are not there")
	}
	write(t, certFile, cert)
	write(t, keyFile, other)
	if _, err := Open(certFile, keyFile, zap.NewNop()); err == nil || !strings.HasPrefix(err.Error(), "certs: ") {
		t.Errorf("another's key: %v", err)
	}
}
