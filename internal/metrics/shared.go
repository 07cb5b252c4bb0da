package metrics

import (
	"bytes"
	"maps"
	"net/http"
	"sync"
)

// A shared handler makes one answer at a time. Requests that arrive meanwhile, and are alike, share the
// next one. So connections that request metrics and do not read them take little processor time, and
// are soon blocked: see [github.com/rejoin-io/rejoin/internal/limit.Port].
type shared struct {
	handler http.Handler
	turn    sync.Mutex // held while an answer is made

	mu   sync.Mutex
	next map[string]*answer // those that have not begun, by what an answer depends on
}

// share returns a handler whose answers are shared. They must depend on the query, Accept and
// Accept-Encoding only.
func share(h http.Handler) *shared { return &shared{handler: h, next: make(map[string]*answer)} }

// ServeHTTP implements [http.Handler].
func (s *shared) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.URL.RawQuery + "\n" + r.Header.Get("Accept") + "\n" + r.Header.Get("Accept-Encoding")
	s.mu.Lock()
	a, known := s.next[key]
	if !known {
		a = &answer{header: make(http.Header), status: http.StatusOK, made: make(chan struct{})}
		s.next[key] = a
	}
	s.mu.Unlock()
	if !known {
		s.make(a, key, r)
	}
	<-a.made
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // a connection that has ended
}

// make waits for its turn and makes an answer. Requests that arrive later do not get it, because it
// would be older than they are.
func (s *shared) make(a *answer, key string, r *http.Request) {
	s.turn.Lock()
	defer s.turn.Unlock()
	defer close(a.made)
	s.mu.Lock()
	delete(s.next, key)
	s.mu.Unlock()
	s.handler.ServeHTTP(a, r)
}

// An answer is a recorded response.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
	made   chan struct{} // closed when it is complete
}

// Header implements [http.ResponseWriter].
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(status int) { a.status = status }

// Write implements [http.ResponseWriter].
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
