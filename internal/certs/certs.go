// Package certs holds a TLS certificate whose files may be replaced at any time.
package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// period is the minimum interval between two checks of the files; the first handshake after it
// checks them.
const period = time.Second

// A Pair is a certificate and its key, read from two PEM files and again when their content
// changes. If the new pair is invalid, the previous one stays in use.
type Pair struct {
	certFile, keyFile string
	log               *zap.Logger

	mu     sync.Mutex
	cert   *tls.Certificate
	read   [sha256.Size]byte // of the files at the last check
	reason string            // the reason if they are invalid; "" if they are in use
	looked time.Time
}

// Open reads the files.
func Open(certFile, keyFile string, log *zap.Logger) (*Pair, error) {
	p := &Pair{certFile: certFile, keyFile: keyFile, log: log, looked: time.Now()}
	cert, sum, err := p.load()
	if err != nil {
		return nil, err
	}
	p.cert, p.read = cert, sum
	return p, nil
}

// load reads the files.
func (p *Pair) load() (_ *tls.Certificate, sum [sha256.Size]byte, _ error) {
	certPEM, err := os.ReadFile(p.certFile)
	if err != nil {
		return nil, sum, fmt.Errorf("certs: %w", err)
	}
	keyPEM, err := os.ReadFile(p.keyFile)
	if err != nil {
		return nil, sum, fmt.Errorf("certs: %w", err)
	}
	certSum, keySum := sha256.Sum256(certPEM), sha256.Sum256(keyPEM)
	sum = sha256.Sum256(append(certSum[:], keySum[:]...))
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, sum, fmt.Errorf("certs: %s and %s: %w", p.certFile, p.keyFile, err)
	}
	return &cert, sum, nil
}

// Certificate implements [tls.Config.GetCertificate].
func (p *Pair) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.looked) >= period {
		p.looked = now
		p.look()
	}
	return p.cert, nil
}

// Reload loads the files now if they have changed, rather than with the next handshake.
func (p *Pair) Reload() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looked = time.Now()
	p.look()
}

// look loads changed files, and logs their error once. p.mu is held.
func (p *Pair) look() {
	cert, sum, err := p.load()
	switch {
	case err != nil:
		if reason := err.Error(); sum != p.read || reason != p.reason {
			p.log.Warn("new TLS certificate unusable; the previous one stays in use", zap.Error(err))
			p.reason = reason
		}
	case sum != p.read || p.reason != "":
		p.log.Info("TLS certificate reloaded", zap.Time("expires", cert.Leaf.NotAfter))
		p.cert, p.reason = cert, ""
	}
	p.read = sum
}
