package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Every behavior of a backend has its outcome, and its number of attempts.
func TestOutcomes(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, test := range map[string]struct {
		answer   http.HandlerFunc
		want     Outcome
		attempts int
	}{
		"200":                        {status(200, `{"ack":[1]}`), Answered, 1},
		"204":                        {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, Answered, 1},
		"201":                        {status(201, `{}`), Failed, 1},
		"a redirect":                 {status(302, `{}`, "Location", "/"), Failed, 1},
		"a permanent redirect":       {status(308, `{}`, "Location", "/"), Failed, 1},
		"malformed":                  {status(200, `{"ack":[1]`), Failed, 1},
		"an unknown name":            {status(200, `{"acks":[1]}`), Failed, 1},
		"another case":               {status(200, `{"Ack":[1]}`), Failed, 1},
		"a duplicate":                {status(200, `{"ack":[1],"ack":[2]}`), Failed, 1},
		"trailing data":              {status(200, `{}{}`), Failed, 1},
		"null":                       {status(200, `null`), Failed, 1},
		"an array":                   {status(200, `[]`), Failed, 1},
		"nothing":                    {status(200, ``), Failed, 1},
		"another type":               {status(200, `{}`, "Content-Type", "text/html"), Failed, 1},
		"a type with parameters":     {status(200, `{}`, "Content-Type", "application/json; charset=utf-8"), Answered, 1},
		"refused":                    {status(409, `{"code":"sold_out"}`), Refused, 1},
		"refused with a problem":     {status(403, `{"code":"no","detail":"x","title":"Forbidden","more":1}`, "Content-Type", "application/problem+json"), Refused, 1},
		"404 of a proxy":             {status(404, `<html>`, "Content-Type", "text/html"), Failed, 1},
		"4xx as text":                {status(400, `{"code":"x"}`, "Content-Type", "text/plain"), Failed, 1},
		"4xx without a code":         {status(400, `{"error":"x"}`), Failed, 1},
		"4xx with a long code":       {status(400, `{"code":"`+strings.Repeat("x", 65)+`"}`), Failed, 1},
		"4xx with a large body":      {status(400, `{"code":"x","detail":"`+strings.Repeat("x", 20<<10)+`"}`), Failed, 1},
		"500":                        {status(500, `{}`), Unavailable, 1},
		"503":                        {status(503, `{}`), Unavailable, 1},
		"503, come later":            {status(503, `{}`, "Retry-After", "3600"), Busy, 1},
		"503, come on a later day":   {status(503, `{}`, "Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)), Busy, 1},
		"429":                        {status(429, `{}`), Busy, 1},
		"408":                        {status(408, `{}`), Unavailable, 1},
		"too large":                  {status(200, `{"ack":["`+strings.Repeat("x", maxAnswer)+`"]}`), Failed, 1},
		"never answers":              {hang, Timeout, 1},
		"answers, and never ends":    {endless(1, 5*time.Millisecond), Timeout, 1},
		"cut":                        {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, Unavailable, 1},
		"cut amid the answer":        {cutAmid, Unavailable, 1},
		"too many headers":           {status(200, `{}`, "X", strings.Repeat("x", 100<<10)), Unavailable, 1},
		"503, come soon, and a 200":  {later(status(503, `{}`, "Retry-After", "0"), status(200, `{}`)), Answered, 2},
		"429, come soon, and a 200":  {later(status(429, `{}`, "Retry-After", "0"), status(200, `{}`)), Answered, 2},
		"429, come soon, and a hang": {later(status(429, `{}`, "Retry-After", "0"), hang), Timeout, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, b := serve(t, Options{Timeout: 2 * time.Second}, test.answer)
			began := time.Now()
			_, err := b.Event(t.Context(), Event{})
			if got := outcomeOf(err); got != test.want || s.requests() != test.attempts {
				t.Errorf("got %s after %d attempts, want %s after %d: %v", got, s.requests(), test.want, test.attempts, err)
			}
			if took := time.Since(began); took > patience {
				t.Errorf("took %v", took)
			}
		})
	}
}

// endless answers with spaces for ever, in chunks.
func endless(chunk int, pause time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for part := strings.Repeat(" ", chunk); r.Context().Err() == nil; {
			if _, err := fmt.Fprint(w, part); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			if pause > 0 {
				time.Sleep(pause)
			}
		}
	}
}

func cutAmid(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "100")
	fmt.Fprint(w, `{"ack":`)
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// later answers once with the first and then with the second.
func later(first, second http.HandlerFunc) http.HandlerFunc {
	var asked atomic.Bool
	return func(w http.ResponseWriter, r *http.Request) {
		if asked.Swap(true) {
			first = second
		}
		first(w, r)
	}
}

// An answer of a gigabyte costs a bounded amount: the node stops reading it.
func TestEndlessAnswerIsNotRead(t *testing.T) {
	var sent atomic.Int64
	_, b := serve(t, Options{Timeout: patience}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		part := strings.Repeat(" ", 64<<10)
		for range 1 << 14 { // a gigabyte
			n, err := fmt.Fprint(w, part)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := b.Event(t.Context(), Event{})
	runtime.ReadMemStats(&after)
	if outcomeOf(err) != Failed {
		t.Errorf("got %v, want %s", err, Failed)
	}
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 32<<20 {
		t.Errorf("it took %d bytes", taken)
	}
	if n := sent.Load(); n > 100<<20 {
		t.Errorf("the backend has sent %d bytes", n)
	}
}

// What was not sent has not happened, and is tried again within the time.
func TestUnreachableBackend(t *testing.T) {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := port.Addr().String()
	if err := port.Close(); err != nil {
		t.Fatal(err)
	}
	b := newBackend(t, Options{URL: "http://" + address, Secrets: []string{secretA}, Timeout: 300 * time.Millisecond})
	if _, err := b.Event(t.Context(), Event{}); outcomeOf(err) != Busy {
		t.Errorf("got %v, want %s", err, Busy)
	}

	b = newBackend(t, Options{URL: "http://" + address, Secrets: []string{secretA}, Timeout: patience})
	back := make(chan struct{})
	go func() { // until the server is closed
		defer close(back)
		if port, err = net.Listen("tcp", address); err != nil {
			t.Error(err)
			return
		}
		s := httptest.NewUnstartedServer(status(200, `{}`))
		_ = s.Listener.Close()
		s.Listener = port
		s.Start()
		t.Cleanup(s.Close)
	}()
	if _, err := b.Event(t.Context(), Event{}); err != nil {
		t.Errorf("after the backend has returned: %v", err)
	}
	<-back
}

// Certificates are verified.
func TestUnknownCertificate(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(status(200, `{}`))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	b := newBackend(t, Options{URL: s.URL, Secrets: []string{secretA}, Timeout: 2 * time.Second})
	if _, err := b.Event(t.Context(), Event{}); outcomeOf(err) != Busy || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want %s because of the certificate", err, Busy)
	}
}

// A question that its client has named is tried again after a failure, with the same id; another is
// not.
func TestOnlyNamedQuestionsAreRepeated(t *testing.T) {
	id := NamedID("/", "ann", "0123456789abcdef")
	for _, named := range []string{"", id} {
		s, b := serve(t, Options{}, later(status(500, `{}`), status(200, `{}`)))
		_, err := b.Event(t.Context(), Event{ID: named, Args: json.RawMessage(`[]`)})
		want, attempts := Unavailable, 1
		if named != "" {
			want, attempts = Answered, 2
		}
		if outcomeOf(err) != want || s.requests() != attempts {
			t.Errorf("named %q: got %v after %d attempts, want %s after %d", named, err, s.requests(), want, attempts)
		}
		for _, r := range s.got {
			if got := r.Header.Get("webhook-id"); named != "" && got != named || got != r.Header.Get("ce-id") {
				t.Errorf("attempt with the id %q, want %q", got, named)
			}
		}
	}
	// An earlier attempt may have been processed.
	s, b := serve(t, Options{}, later(status(500, `{}`), status(429, `{}`)))
	if _, err := b.Event(t.Context(), Event{ID: id}); outcomeOf(err) != Unavailable || s.requests() != 2 {
		t.Errorf("a failure and a 429: %v after %d attempts, want %s after 2", err, s.requests(), Unavailable)
	}
	if other := NamedID("/", "bob", "0123456789abcdef"); other == id {
		t.Error("two users have the same id")
	}
}

// Each question has an id of its own.
func TestIDs(t *testing.T) {
	s, b := serve(t, Options{}, status(200, `{}`))
	ids := make(map[string]bool)
	for range 3 {
		if _, err := b.Event(t.Context(), Event{}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Connect(t.Context(), Connect{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range s.got {
		ids[r.Header.Get("webhook-id")] = true
	}
	if len(ids) != 6 {
		t.Errorf("ids %v, want 6 different ones", ids)
	}
}

// A question whose asker has gone ends, and is not a failure of the backend.
func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, b := serve(t, Options{Timeout: patience}, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, _, err := b.Connect(ctx, Connect{}); outcomeOf(err) != canceled {
		t.Errorf("got %v, want %s", err, canceled)
	}
	if c := b.breakers[typeConnect].Counts(); c.TotalFailures != 0 {
		t.Errorf("the breaker counts %+v", c)
	}
}
