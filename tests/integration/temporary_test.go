package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// A keyServer is a JWKS server with one key, which can be down.
type keyServer struct {
	*httptest.Server
	key *ecdsa.PrivateKey
	up  atomic.Bool
}

func startKeyServer(t *testing.T) *keyServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := &keyServer{key: key}
	point, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	k.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !k.up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":"k","use":"sig","alg":"ES256","x":%q,"y":%q}]}`,
			encode(point[1:33]), encode(point[33:]))
	}))
	t.Cleanup(k.Close)
	return k
}

// token returns one that the server's key has signed.
func (k *keyServer) token(t *testing.T, user string) string {
	t.Helper()
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signed := part(map[string]string{"alg": "ES256", "kid": "k"}) + "." +
		part(map[string]any{"sub": user, "exp": time.Now().Add(longLived).Unix()})
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, k.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// TestTemporaryRefusal: stock clients whose token cannot be checked now connect by
// themselves once it can. One whose token is invalid gets a connect error and does
// not retry.
func TestTemporaryRefusal(t *testing.T) {
	t.Parallel()
	keys := startKeyServer(t)
	n := startUnready(t, "REJOIN_JWKS_URL="+keys.URL)
	d := startDriver(t)
	waiting := map[string]*npmSocket{}
	for _, version := range versions {
		options := with(keys.token(t, "ann"))
		delete(options, "transports") // polling first
		waiting[version] = d.opening("waiting "+version, version, n.url(), options)
	}
	n.eventually("turning clients away", func() error {
		if got := n.metrics()["rejoin_connects_postponed_total"]; got < 4 {
			return fmt.Errorf("%v connects were postponed", got)
		}
		return nil
	})
	keys.up.Store(true)
	for version, s := range waiting {
		r, err := s.reports.Take(4*patience, func(r report) bool { return r.Report == "connect" || r.Report == "connect_error" })
		if err != nil || r.Report != "connect" {
			t.Errorf("%s: %v, %v", version, r, err)
		}
	}

	refused := d.opening("refused", newest, n.url(), with("not a token"))
	if code := refused.refused(); code != "token_invalid" {
		t.Errorf("refused with %q", code)
	}
	if st := refused.state(); st.Connected {
		t.Errorf("after the refusal: %+v", st)
	}
}

// startUnready is startNode for a node that is not ready before its clients come.
func startUnready(t *testing.T, variables ...string) *node {
	t.Helper()
	n := launch(t, append([]string{
		"REJOIN_ADDR=127.0.0.1:0", "REJOIN_INTERNAL_ADDR=127.0.0.1:0", "REJOIN_DRAIN_DELAY=0s", "REJOIN_DRAIN_BUDGET=0s",
	}, variables...)...)
	t.Cleanup(n.stop)
	return n
}
