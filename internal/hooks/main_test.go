package hooks

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secretA = "whsec_dGhlIGZpcnN0IHNlY3JldCBvZiB0aGVzZSB0ZXN0cyE="
	secretB = "whsec_dGhlIHNlY29uZCBzZWNyZXQgb2YgdGhlc2UgdGVzdHM="
)

// A server is a backend that gives one answer.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	got   []*http.Request
	texts []string
}

// serve starts a backend, which must get only questions that are signed with both secrets, and returns
// it with one that asks it.
func serve(t *testing.T, o Options, answer http.HandlerFunc) (*server, *Backend) {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		for _, secret := range []string{secretA, secretB} {
			verifier, err := standardwebhooks.NewWebhook(secret)
			if err == nil {
				err = verifier.Verify(text, r.Header)
			}
			if err != nil {
				t.Errorf("with secret %s: %v", secret, err)
			}
		}
		s.mu.Lock()
		s.got, s.texts = append(s.got, r), append(s.texts, string(text))
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	o.URL, o.Secrets, o.Node = s.URL+"/hooks?x=1", []string{secretA, secretB}, "aaaa"
	return s, newBackend(t, o)
}

func newBackend(t *testing.T, o Options) *Backend {
	t.Helper()
	o.Logger = zaptest.NewLogger(t)
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func (s *server) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// status answers with a status, headers, and a JSON body.
func status(code int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// patience bounds the waits of tests.
const patience = 20 * time.Second
