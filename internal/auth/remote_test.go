package auth

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A jwksServer serves keys over HTTP. Its behavior can be changed at any time.
type jwksServer struct {
	*httptest.Server
	mu    sync.Mutex
	serve http.HandlerFunc
	asked int
}

func startJWKS(t *testing.T) *jwksServer {
	t.Helper()
	s := &jwksServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked++
		serve := s.serve
		s.mu.Unlock()
		serve(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *jwksServer) does(serve http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serve = serve
}

// shows makes the server return a set of keys.
func (s *jwksServer) shows(keys ...json.RawMessage) {
	body, _ := json.Marshal(map[string]any{"keys": keys})
	s.does(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
}

func (s *jwksServer) fails() {
	s.does(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "later", http.StatusServiceUnavailable) })
}

func (s *jwksServer) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// jwk returns a public key in the form of a JWKS server.
func jwk(t *testing.T, kid string, key crypto.Signer, more ...string) json.RawMessage {
	t.Helper()
	j, err := jwkset.NewJWKFromKey(key.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: kid}})
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	text, _ := json.Marshal(j.Marshal())
	_ = json.Unmarshal(text, &members)
	for i := 0; i < len(more); i += 2 {
		members[more[i]] = more[i+1]
	}
	text, _ = json.Marshal(members)
	return text
}

func TestJWKS(t *testing.T) {
	t.Parallel()
	s := startJWKS(t)
	s.shows(
		jwk(t, "r", rsaKey), jwk(t, "e", ecKey, "alg", "ES256", "use", "sig"), jwk(t, "d", edKey),
		jwk(t, "enc", otherRSA, "use", "enc"), jwk(t, "short", shortRSA),
		json.RawMessage(`{"kty":"oct","kid":"o","k":"YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBjaGFyYWN0ZXJz"}`),
		json.RawMessage(`{"kty":"quantum","kid":"q"}`), json.RawMessage(`7`),
	)
	v := verifier(t, Options{JWKSURL: s.URL})
	for name, test := range map[string]struct {
		token string
		want  Code
	}{
		"RSA":                    {sign(t, "RS256", rsaKey, nil, "kid", "r"), ""},
		"RSA-PSS":                {sign(t, "PS512", rsaKey, nil, "kid", "r"), ""},
		"ECDSA":                  {sign(t, "ES256", ecKey, nil, "kid", "e"), ""},
		"EdDSA":                  {sign(t, "EdDSA", edKey, nil, "kid", "d"), ""},
		"without a kid":          {sign(t, "EdDSA", edKey, nil), ""},
		"another key's kid":      {sign(t, "RS256", rsaKey, nil, "kid", "e"), TokenInvalid},
		"a forged one":           {sign(t, "RS256", otherRSA, nil, "kid", "r"), TokenInvalid},
		"a symmetric key":        {sign(t, "HS256", secret, nil, "kid", "o"), TokenInvalid},
		"the public key as HMAC": {sign(t, "HS256", public(t, rsaKey), nil, "kid", "r"), TokenInvalid},
	} {
		if got := judge(t, v, test.token); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	if n := s.requests(); n != 1 {
		t.Errorf("asked %d times for keys that are known, want 1", n)
	}
	for name, token := range map[string]string{
		"not for signatures": sign(t, "RS256", otherRSA, nil, "kid", "enc"),
		"too short":          sign(t, "RS256", shortRSA, nil, "kid", "short"),
	} {
		if got := judge(t, v, token); got != TokenInvalid {
			t.Errorf("%s: %q, want %q", name, got, TokenInvalid)
		}
	}
}

// TestRotation: a new key is found when its first token arrives, and an old key is then
// forgotten. Tokens with unknown keys cause few requests.
func TestRotation(t *testing.T) {
	t.Parallel()
	s := startJWKS(t)
	s.shows(jwk(t, "1", ecKey))
	v := verifier(t, Options{JWKSURL: s.URL, PublicKeys: public(t, edKey)})
	first, second := sign(t, "ES256", ecKey, nil, "kid", "1"), sign(t, "ES256", otherEC, nil, "kid", "2")
	if got := judge(t, v, first); got != "" {
		t.Fatal(got)
	}
	if got := judge(t, v, sign(t, "EdDSA", edKey, nil, "kid", "of the PEM key")); got != "" || s.requests() != 1 {
		t.Errorf(`a configured key beside the server's: %q after %d requests, want "", 1`, got, s.requests())
	}
	var strangers sync.WaitGroup
	began := time.Now()
	for i := range 100 {
		strangers.Go(func() {
			if got := judge(t, v, sign(t, "ES256", otherEC, nil, "kid", fmt.Sprint("stranger ", i))); got != TokenInvalid {
				t.Errorf("a stranger's: %q, want %q", got, TokenInvalid)
			}
		})
	}
	s.shows(jwk(t, "2", otherEC))
	if got := judge(t, v, second); got != "" {
		t.Errorf(`the new key's: %q, want ""`, got)
	}
	strangers.Wait()
	if n, most := s.requests(), 2+int(time.Since(began)/refreshLeast); n > most {
		t.Errorf("got %d requests in %v, want at most %d", n, time.Since(began), most)
	}
	if got := judge(t, v, first); got != TokenInvalid {
		t.Errorf("the withdrawn key's: %q, want %q", got, TokenInvalid)
	}
}

// TestServerIsDown: known keys stay valid, and tokens of other keys are unavailable.
func TestServerIsDown(t *testing.T) {
	t.Parallel()
	s := startJWKS(t)
	s.shows(jwk(t, "1", ecKey))
	seen, logs := observer.New(zap.DebugLevel)
	v := verifier(t, Options{JWKSURL: withSecrets(s.URL), Logger: zap.New(seen)})
	known, unknown := sign(t, "ES256", ecKey, nil, "kid", "1"), sign(t, "ES256", ecKey, nil, "kid", "2")
	if got := judge(t, v, known); got != "" {
		t.Fatal(got)
	}
	s.fails()
	for range 2 {
		if got := judge(t, v, unknown); got != Unavailable {
			t.Errorf("an unknown key's: %q, want %q", got, Unavailable)
		}
	}
	if got := judge(t, v, known); got != "" || v.Ready() != nil {
		t.Errorf("a known key's: %q, %v", got, v.Ready())
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := v.Verify(ctx, unknown); err == nil || err.(*Error).Code != Unavailable { //nolint:errorlint // by contract
		t.Errorf("with a context that ends: %v", err)
	}
	if n := logs.FilterMessageSnippet("JWKS not fetched").Len(); n != 1 {
		t.Errorf("got %d lines for one outage, want 1", n)
	}
	noSecrets(t, v, logs)
}

// TestNoServer: an unreachable server is reported without secrets from its URL.
func TestNoServer(t *testing.T) {
	t.Parallel()
	s := startJWKS(t)
	s.Close()
	seen, logs := observer.New(zap.DebugLevel)
	v := verifier(t, Options{JWKSURL: withSecrets(s.URL), Logger: zap.New(seen)})
	if got := judge(t, v, sign(t, "ES256", ecKey, nil)); got != Unavailable {
		t.Errorf("with no keys: %q, want %q", got, Unavailable)
	}
	noSecrets(t, v, logs)
}

// withSecrets returns a URL with secrets in every part that may have them.
func withSecrets(address string) string {
	return strings.Replace(address, "http://", "http://s3cret:s3cret@", 1) + "/keys?key=s3cret#s3cret"
}

// noSecrets checks that neither the logs nor the reason why a verifier is not ready contain
// these secrets.
func noSecrets(t *testing.T, v *Verifier, logs *observer.ObservedLogs) {
	t.Helper()
	if text := fmt.Sprint(v.Ready()); strings.Contains(text, "s3cret") {
		t.Errorf("not ready: %s", text)
	}
	for _, line := range logs.All() {
		if text := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(text, "s3cret") || !strings.Contains(text, "/keys") {
			t.Errorf("logged: %s", text)
		}
	}
	if logs.Len() == 0 {
		t.Error("nothing is logged")
	}
}

// TestBadAnswers: after an invalid answer of the server there are no keys, and the verifier
// is not ready.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	other := startJWKS(t)
	other.shows(jwk(t, "1", ecKey))
	token := sign(t, "ES256", ecKey, nil, "kid", "1")
	for name, serve := range map[string]http.HandlerFunc{
		"an error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "x", http.StatusNotFound) },
		"no JSON":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"no keys":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[]}`) },
		"too much": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":[`, strings.Repeat(" ", maxJWKS), `]}`)
		},
		"nothing":      func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"byte by byte": func(w http.ResponseWriter, r *http.Request) { drip(w, r) },
		"another place": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "ftp://127.0.0.1/", http.StatusFound)
		},
		"itself": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startJWKS(t)
			s.does(serve)
			v := verifier(t, Options{JWKSURL: s.URL, Secret: secret})
			if got := judge(t, v, token); got != Unavailable {
				t.Errorf("got %q, want %q", got, Unavailable)
			}
			if v.Ready() == nil {
				t.Error("is ready without keys")
			}
			if got := judge(t, v, sign(t, "HS256", secret, nil)); got != "" {
				t.Errorf(`a token by the secret: %q, want ""`, got)
			}
			s.shows(jwk(t, "1", ecKey))
			if got := judge(t, v, token); got != "" || v.Ready() != nil {
				t.Errorf("when the server is well again: %q, %v", got, v.Ready())
			}
		})
	}
}

// drip answers without an end.
func drip(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write([]byte(" ")); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(50 * time.Millisecond): // the test needs a slow answer
		}
	}
}
