package redisurl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// certificates holds cert.pem, which is for 127.0.0.1 and which this process
// trusts, key.pem, and the same as other.pem and other-key.pem for a server of
// another name.
var certificates string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "redisurl")
	if err != nil {
		panic(err)
	}
	certificates = dir
	writeCertificate("cert.pem", "key.pem", x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	writeCertificate("other.pem", "other-key.pem", x509.Certificate{DNSNames: []string{"other.test"}})
	// Read once, by the first handshake.
	os.Setenv("SSL_CERT_DIR", dir)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func writeCertificate(certificate, key string, template x509.Certificate) {
	writeCertificateTo(certificates, certificate, key, template)
}

func writeCertificateTo(dir, certificate, key string, template x509.Certificate) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: certificate}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.IsCA, template.BasicConstraintsValid = true, true
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		panic(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		panic(err)
	}
	for name, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			panic(err)
		}
	}
}
