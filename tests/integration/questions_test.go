package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// hookSecret signs the questions of these tests.
const hookSecret = "whsec_dGhlIHNlY3JldCBvZiB0aGUgdGVzdHMnIHF1ZXN0aW9ucw=="

// A questioned is a backend that answers the questions of nodes, and checks that they have signed them.
type questioned struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	asked  []asked
	answer func(w http.ResponseWriter, q asked)
}

// An asked is a question that a backend has got.
type asked struct {
	id     string          // webhook-id
	gone   <-chan struct{} // closed when nobody waits for the answer any more
	header http.Header
	body   json.RawMessage

	Type      string            `json:"type"`
	ID        string            `json:"id"`
	Namespace string            `json:"namespace"`
	User      string            `json:"user"`
	Returning bool              `json:"returning"`
	Auth      map[string]any    `json:"auth"`
	Address   string            `json:"address"`
	Transport string            `json:"transport"`
	Headers   map[string]string `json:"headers"`
	Event     string            `json:"event"`
	Args      []json.RawMessage `json:"args"`
	Ack       bool              `json:"ack"`
	// Of an event, an object.
	Socket json.RawMessage `json:"socket"`
}

// startBackend starts a backend that gives an answer, concurrently, and returns it with the node's
// variables.
func startBackend(t *testing.T, answer func(w http.ResponseWriter, q asked)) (*questioned, []string) {
	t.Helper()
	b := &questioned{t: t, answer: answer}
	b.Server = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.Close)
	return b, []string{"REJOIN_HOOK_URL=" + b.URL + "/hooks", "REJOIN_HOOK_SECRETS=" + hookSecret}
}

// startNode starts a node that asks the backend. At its end it keeps no connections to the backend.
func (b *questioned) startNode(variables ...string) *node {
	b.t.Helper()
	n := startNode(b.t, variables...)
	b.t.Cleanup(b.CloseClientConnections)
	return n
}

func (b *questioned) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Errorf("question: %v", err)
	}
	verifier, err := standardwebhooks.NewWebhook(hookSecret)
	if err == nil {
		err = verifier.Verify(body, r.Header)
	}
	q := asked{id: r.Header.Get("webhook-id"), header: r.Header, body: body, gone: r.Context().Done()}
	if err == nil {
		err = json.Unmarshal(body, &q)
	}
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/hooks" || q.ID != q.id {
		b.t.Errorf("question %s %s with id %q: %v: %s", r.Method, r.URL, q.id, err, body)
	}
	b.mu.Lock()
	b.asked = append(b.asked, q)
	answer := b.answer
	b.mu.Unlock()
	answer(w, q)
}

// questions returns the questions of a type so far.
func (b *questioned) questions(kind string) (list []asked) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, q := range b.asked {
		if q.Type == kind {
			list = append(list, q)
		}
	}
	return list
}

// answers replaces the answer.
func (b *questioned) answers(answer func(w http.ResponseWriter, q asked)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

// say answers with JSON.
func say(w http.ResponseWriter, status int, text string, args ...any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, text, args...)
}
