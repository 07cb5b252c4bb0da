package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/metrics"
	"github.com/rejoin-io/rejoin/internal/redistest"
)

// lockedBuffer is a log that a test reads while a node writes it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestReload: a running node uses new values in files after a SIGHUP, all or none of them, and names
// those that need a restart.
func TestReload(t *testing.T) {
	dir, internal, public := t.TempDir(), "127.0.0.1:"+redistest.FreePort(t), "127.0.0.1:"+redistest.FreePort(t)
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certificate := func(serial int64) {
		t.Helper()
		cert, key := newCertificate(t, serial)
		write("key.pem", key)
		write("cert.pem", cert)
	}
	certificate(1)
	environment(t, map[string]string{
		"REJOIN_ADDR": public, "REJOIN_INTERNAL_ADDR": internal,
		"REJOIN_LOG_LEVEL_FILE": write("level", "info\n"), "REJOIN_API_KEYS_FILE": write("keys", "first-of-the-keys"),
		"REJOIN_API_CALLERS_FILE": write("callers", `{"orders":{"keys":["first-of-the-orders"]}}`),
		"REJOIN_JWT_SECRET_FILE":  write("secret", strings.Repeat("1", 32)), "REJOIN_CLUSTER_SECRET_FILE": write("cluster", "the first of the cluster"),
		"REJOIN_TLS_CERT": filepath.Join(dir, "cert.pem"), "REJOIN_TLS_KEY": filepath.Join(dir, "key.pem"),
	})
	c, r := load()
	if len(r.problems) > 0 {
		t.Fatal(r.problems)
	}
	var log lockedBuffer
	reloads, ended := make(chan os.Signal), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- serve(ctx, ctx, reloads, c, metrics.Build{}, newLogger(c, &log)) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	reload := func() { // the second is taken when the first is done
		t.Helper()
		for range 2 {
			select {
			case reloads <- os.Interrupt:
			case <-time.After(20 * time.Second):
				t.Fatal("timed out")
			}
		}
	}
	uses := func(key, secret string, serial int64) {
		t.Helper()
		for _, k := range []string{"first-of-the-keys", "second-of-the-keys", "first-of-the-orders", "second-of-the-orders"} {
			q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+internal+"/api/v1/rooms", nil)
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("X-API-Key", k)
			answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(q)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if ok := answer.StatusCode == http.StatusOK; ok != (k[:5] == key[:5]) {
				t.Errorf("API key %s: status %d, want only keys such as %s to be accepted", k, answer.StatusCode, key)
			}
		}
		for _, s := range []string{"1", "2"} {
			token, err := auth.Sign(auth.Options{Secret: []byte(strings.Repeat(s, 32))}, `{"sub":"ann"}`)
			if err != nil {
				t.Fatal(err)
			}
			session := "https://" + public + "/socket.io/?EIO=4&transport=polling"
			_, sid, _ := strings.Cut(secureExchange(t, http.MethodGet, session, ""), `"sid":"`)
			sid, _, _ = strings.Cut(sid, `"`)
			secureExchange(t, http.MethodPost, session+"&sid="+sid, `40{"token":"`+token+`"}`)
			if got := secureExchange(t, http.MethodGet, session+"&sid="+sid, ""); strings.HasPrefix(got, "40") != (s == secret) {
				t.Errorf("a token with the secret %s is answered %s, want only that of %s to be accepted", s, got, secret)
			}
		}
		conn, err := tls.Dial("tcp", public, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a certificate of this test
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != serial {
			t.Errorf("got the certificate %d, want %d", got, serial)
		}
	}

	reload() // waits for the start
	uses("first-of-the-keys", "1", 1)
	if strings.Contains(log.String(), "restart") {
		t.Errorf("nothing has changed: %s", &log)
	}

	write("keys", "second-of-the-keys")
	write("callers", `{"orders":{"keys":["second-of-the-orders"]}}`)
	write("secret", "short")
	reload()
	uses("first-of-the-keys", "1", 1)
	if !strings.Contains(log.String(), "reload refused") || !strings.Contains(log.String(), "REJOIN_JWT_SECRET") {
		t.Errorf("no refusal in the log: %s", &log)
	}

	write("secret", strings.Repeat("2", 32))
	write("cluster", "the second of the cluster")
	certificate(2)
	reload()
	uses("second-of-the-keys", "2", 2)
	for _, want := range []string{`"changed":["REJOIN_JWT_SECRET","REJOIN_API_KEYS","REJOIN_API_CALLERS"]`, "need a restart", `"variables":["REJOIN_CLUSTER_SECRET"]`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log: %s", want, &log)
		}
	}

	write("level", "error")
	reload()
	before := len(log.String())
	reload()
	if more := log.String()[before:]; more != "" {
		t.Errorf("at the level error: %s", more)
	}
}

// secureExchange is exchange with any certificate. It returns the body.
func secureExchange(t *testing.T, method, url, body string) string {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // a certificate of this test
	answer, err := transport.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var said bytes.Buffer
	if _, err := said.ReadFrom(answer.Body); err != nil {
		t.Fatal(err)
	}
	return said.String()
}

// newCertificate returns a certificate and its key as PEM.
func newCertificate(t *testing.T, serial int64) (cert, key string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", pkcs8)
}
