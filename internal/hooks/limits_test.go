package hooks

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin-io/rejoin/internal/limit"
	"go.uber.org/zap"
)

// A stub is a backend without a network.
type stub func(r *http.Request) (status int, body string, err error)

func (s stub) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body, err := s(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: status, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
		Header: http.Header{"Content-Type": {"application/json"}},
	}, nil
}

func stubbed(t *testing.T, o Options, s stub) *Backend {
	o.URL, o.Secrets, o.Transport = "http://127.0.0.1/", []string{secretA}, s
	return newBackend(t, o)
}

// At most Concurrency questions are in flight, in the order of their arrival, and 8 times as many wait.
// Others are refused at once.
func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tally := limit.NewTally(zap.NewNop())
		var order []string
		turn := make(chan struct{})
		b := stubbed(t, Options{Concurrency: 1, Tally: tally}, func(r *http.Request) (int, string, error) {
			body, _ := io.ReadAll(r.Body)
			order = append(order, string(body))
			<-turn
			return http.StatusNoContent, "", nil
		})
		var asking sync.WaitGroup
		ask := func(name string) {
			asking.Go(func() {
				if _, err := b.Event(t.Context(), Event{Event: name}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
			synctest.Wait()
		}
		for i := range 9 {
			ask(string(rune('a' + i)))
		}
		if s := b.queue.stats(); s.inFlight != 1 || s.waiting != 8 || s.bytes == 0 {
			t.Errorf("stats %+v", s)
		}
		if _, err := b.Event(t.Context(), Event{}); outcomeOf(err) != Busy || !errors.Is(err, errFull) {
			t.Errorf("the tenth: %v, want %v", err, errFull)
		}
		if n := tally.Refused()[limit.HookQuestions]; n != 1 {
			t.Errorf("%d counted as refused, want 1", n)
		}
		close(turn)
		asking.Wait()
		for i, body := range order {
			if name := string(rune('a' + i)); !strings.Contains(body, `"event":"`+name+`"`) {
				t.Errorf("question %d is %s, want event %s", i, body, name)
			}
		}
		if s := b.queue.stats(); s != (queueStats{}) {
			t.Errorf("in the end: %+v", s)
		}
	})
}

// An owner may have as many places as are left for others.
func TestOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn := make(chan struct{})
		b := stubbed(t, Options{Concurrency: 2}, func(*http.Request) (int, string, error) {
			<-turn
			return http.StatusNoContent, "", nil
		})
		var asking sync.WaitGroup
		ask := func(owner string, most int) (admitted int) {
			for range most {
				refused := make(chan struct{})
				asking.Go(func() {
					if _, err := b.Event(t.Context(), Event{Owner: owner}); errors.Is(err, errFull) {
						close(refused)
					}
				})
				synctest.Wait()
				select {
				case <-refused:
					return admitted
				default:
					admitted++
				}
			}
			return admitted
		}
		if n := ask("a", 18); n != 9 { // of 18
			t.Errorf("the first owner has %d places, want 9", n)
		}
		if n := ask("b", 18); n < 4 || n > 5 {
			t.Errorf("the second owner has %d places, want half of the rest", n)
		}
		if n := ask("", 2); n != 2 {
			t.Errorf("clients behind a proxy have %d places, want 2", n)
		}
		close(turn)
		asking.Wait()
		if len(b.queue.own) > 0 {
			t.Errorf("in the end: %v", b.queue.own)
		}
	})
}

// The bytes of all questions are bounded; a single one is not.
func TestBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tally := limit.NewTally(zap.NewNop())
		turn := make(chan struct{})
		b := stubbed(t, Options{Tally: tally}, func(*http.Request) (int, string, error) {
			<-turn
			return http.StatusNoContent, "", nil
		})
		large := Event{Event: strings.Repeat("x", maxBytes+1)}
		var asking sync.WaitGroup
		asking.Go(func() {
			if _, err := b.Event(t.Context(), large); err != nil {
				t.Errorf("a single large question: %v", err)
			}
		})
		synctest.Wait()
		if _, err := b.Event(t.Context(), Event{}); !errors.Is(err, errBytes) {
			t.Errorf("beside it: %v, want %v", err, errBytes)
		}
		close(turn)
		asking.Wait()
		if n := tally.Refused()[limit.HookBytes]; n != 1 {
			t.Errorf("%d counted as refused, want 1", n)
		}
	})
}

// A question that has no turn in its time was not sent.
func TestNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := stubbed(t, Options{Concurrency: 1, Timeout: 5 * time.Second}, func(r *http.Request) (int, string, error) {
			<-r.Context().Done()
			return 0, "", r.Context().Err()
		})
		var asking sync.WaitGroup
		asking.Go(func() { _, _ = b.Event(t.Context(), Event{}) })
		synctest.Wait()
		began := time.Now()
		if _, err := b.Event(t.Context(), Event{}); outcomeOf(err) != Busy || time.Since(began) != 5*time.Second {
			t.Errorf("after %v: %v, want %s after 5 s", time.Since(began), err, Busy)
		}
		asking.Wait()
	})
}

// After ten failures in a row nothing is sent, except one question per second, until one is answered.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts atomic.Int32
		var up atomic.Bool
		b := stubbed(t, Options{}, func(*http.Request) (int, string, error) {
			attempts.Add(1)
			if up.Load() {
				return http.StatusNoContent, "", nil
			}
			return http.StatusInternalServerError, "", nil
		})
		ask := func() Outcome {
			_, err := b.Event(t.Context(), Event{})
			return outcomeOf(err)
		}
		for range 3 * breakerRow {
			ask()
		}
		if n := attempts.Load(); n != breakerRow {
			t.Errorf("%d attempts, want %d", n, breakerRow)
		}
		if got := ask(); got != Busy {
			t.Errorf("while it is open: %s, want %s", got, Busy)
		}
		for range 30 { // in 3 s
			time.Sleep(100 * time.Millisecond)
			ask()
		}
		if n := attempts.Load() - breakerRow; n < 2 || n > 3 {
			t.Errorf("%d attempts in three seconds, want one per second", n)
		}
		up.Store(true)
		time.Sleep(breakerPause + time.Millisecond)
		for i := range 5 {
			if got := ask(); got != Answered {
				t.Errorf("question %d after the backend has returned: %s", i, got)
			}
		}
	})
}

// Refusals, and the request to come later, do not open the breaker, and neither do askers that go.
func TestBreakerCountsFailuresOnly(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, answer := range map[string]stub{
		"refused":  func(*http.Request) (int, string, error) { return http.StatusConflict, `{"code":"no"}`, nil },
		"later":    func(*http.Request) (int, string, error) { return http.StatusTooManyRequests, "", nil },
		"garbled":  func(*http.Request) (int, string, error) { return http.StatusOK, `{"x":1}`, nil },
		"canceled": func(r *http.Request) (int, string, error) { return 0, "", r.Context().Err() },
	} {
		attempts := 0
		b := stubbed(t, Options{}, func(r *http.Request) (int, string, error) {
			attempts++
			return answer(r)
		})
		ctx := t.Context()
		if name == "canceled" {
			ctx = gone
		}
		for range 3 * breakerRow {
			_, _ = b.Event(ctx, Event{})
		}
		if name != "canceled" && attempts != 3*breakerRow {
			t.Errorf("%s: %d attempts, want %d", name, attempts, 3*breakerRow)
		}
		if c := b.breakers[typeEvent].Counts(); c.TotalFailures > 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-1": 0, "1.5": 0, "0": time.Millisecond, "3": 3 * time.Second,
		"99999999999":                   0,
		"Mon, 30 Nov 2026 12:00:07 GMT": 7 * time.Second,
		"Mon, 30 Nov 2026 11:00:00 GMT": time.Millisecond,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: got %v, want %v", value, got, want)
		}
	}
}

func TestCheckSecret(t *testing.T) {
	for secret, good := range map[string]bool{
		secretA: true, "whsec_": false, "": false, secretA[len(secretPrefix):]: false,
		"whsec_c2hvcnQ=": false, "whsec_" + strings.Repeat("!", 32): false, "whsec_" + strings.Repeat("AAAA", 30): false,
	} {
		if err := CheckSecret(secret); (err == nil) != good || err != nil && len(secret) > 10 && strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", secret, err)
		}
	}
	if _, err := New(Options{URL: "http://127.0.0.1/"}); err == nil {
		t.Error("a backend without a secret")
	}
}

func TestPercentEncoded(t *testing.T) {
	for text, want := range map[string]string{"/chat": "/chat", "/a b": "/a%20b", "/\"%\r\n": "/%22%25%0D%0A", "/é": "/%C3%A9"} {
		if got := percentEncoded(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// TestBytesOfOneOwner: one owner's questions leave bytes to others.
func TestBytesOfOneOwner(t *testing.T) {
	q := newQueue(128)
	for range 16 {
		_, _ = q.enter(t.Context(), "user mallory", 1<<20-10) // refused beyond its share
	}
	if _, err := q.enter(t.Context(), "user ann", 1000); err != nil {
		t.Errorf("another owner's question of 1 kB: %v", err)
	}
}
