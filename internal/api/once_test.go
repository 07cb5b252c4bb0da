package api

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// TestOpen: a failure with an unknown outcome states that, and is the permanent answer for
// its key. A failure without an effect frees the key.
func TestOpen(t *testing.T) {
	a, f := start(t, Options{})
	for i, tt := range []struct {
		err  error
		code code
		open bool
	}{
		{fmt.Errorf("%w: silence", adapter.ErrUnavailable), unavailable, true},
		{fmt.Errorf("%w: silence", adapter.ErrNotPublished), unavailable, false},
		{context.DeadlineExceeded, timedOut, true},
		{context.Canceled, timedOut, true},
		{socketio.ErrDisconnected, unavailable, true},
		{adapter.ErrClosed, unavailable, false},
	} {
		key := fmt.Sprint("Idempotency-Key: ", i)
		f.fail = tt.err
		w := call(a, "POST", "emit", emitted, key)
		if p := problemOf(t, w); p.Code != tt.code.name || p.Open != tt.open || strings.Contains(w.Body.String(), "silence") ||
			strings.Contains(p.Detail, "may have completed") != tt.open {
			t.Errorf("%v: got %s, want code %s, open %v", tt.err, w.Body, tt.code.name, tt.open)
		}
		f.fail = nil
		before := f.count
		again := call(a, "POST", "emit", emitted, key)
		if tt.open && (f.count > before || again.Body.String() != w.Body.String() || again.Header().Get("Idempotency-Replayed") != "true") {
			t.Errorf("%v, again: %d %s", tt.err, again.Code, again.Body)
		}
		if !tt.open && again.Code != 200 {
			t.Errorf("%v, again: %d %s", tt.err, again.Code, again.Body)
		}
	}
}

// A failing store is unreachable for some of its calls.
type failing struct {
	idempotency.Store
	claim, finish error
}

func (f *failing) Claim(ctx context.Context, c idempotency.Claim) (*idempotency.Record, error) {
	if errors.Is(f.claim, idempotency.ErrFull) {
		return nil, f.claim
	}
	r, err := f.Store.Claim(ctx, c) // which Redis may have received
	if f.claim != nil {
		return nil, f.claim
	}
	return r, err
}

func (f *failing) Finish(ctx context.Context, c idempotency.Claim, r idempotency.Response) error {
	if f.finish != nil {
		return f.finish
	}
	return f.Store.Finish(ctx, c, r)
}

// TestStoreFails: without the store a call with a key is not executed. A call whose end
// could not be stored is not repeated.
func TestStoreFails(t *testing.T) {
	store := &failing{Store: idempotency.NewMemory(idempotency.MemoryOptions{})}
	a, f := start(t, Options{Calls: store})
	for _, err := range []error{errors.New("silence"), idempotency.ErrFull} {
		store.claim = err
		w := call(a, "POST", "emit", emitted, "Idempotency-Key: key")
		if p := problemOf(t, w); p.Code != unavailable.name || p.Open || w.Header().Get("Retry-After") == "" || f.count > 0 {
			t.Errorf("%v: got %s and %d events, want %s and none", err, w.Body, f.count, unavailable.name)
		}
		store.claim = nil
		c := idempotency.NewClaim("key", "call")
		if r, err := store.Claim(t.Context(), c); r != nil || err != nil {
			t.Errorf("the key is not free: %+v, %v", r, err)
		}
		if err := store.Free(t.Context(), c); err != nil {
			t.Error(err)
		}
	}
	store.finish = errors.New("silence")
	if w := call(a, "POST", "emit", emitted, "Idempotency-Key: new"); w.Code != 200 {
		t.Errorf("got %d %s, want 200", w.Code, w.Body)
	}
	w := call(a, "POST", "emit", emitted, "Idempotency-Key: new")
	if p := problemOf(t, w); p.Code != underWay.name || !p.Open || w.Header().Get("Retry-After") == "" || f.count != 1 {
		t.Errorf("%s; %d published", w.Body, f.count)
	}
}

// TestRepeatedCalls: the answer to a repeated call depends on the record of the first one.
func TestRepeatedCalls(t *testing.T) {
	c := idempotency.NewClaim("key", "call")
	kept := &idempotency.Response{Status: 503, Body: []byte(`{"status":503}`)}
	for _, tt := range []struct {
		former idempotency.Record
		status int
		code   code
	}{
		{idempotency.Record{Call: "call", Age: time.Second}, 409, underWay},
		{idempotency.Record{Call: "call", Age: timeout + endMargin}, 409, outcomeUnknown},
		{idempotency.Record{Call: "another", Age: time.Second}, 422, keyReused},
		{idempotency.Record{Call: "another", Response: kept}, 422, keyReused},
		{idempotency.Record{Call: "call", Response: kept}, 503, code{}},
	} {
		res := again(c, tt.former, timeout)
		if res.status != tt.status || tt.code != (code{}) && res.failure.code != tt.code || tt.code == (code{}) && !(res.replayed && res.contentType == contentProblem) {
			t.Errorf("%+v: got %+v, want status %d, code %q", tt.former, res, tt.status, tt.code.name)
		}
	}
}

// TestLargeAnswersAreNotKept: of a call with a large answer only its completion is stored.
func TestLargeAnswersAreNotKept(t *testing.T) {
	a, _ := start(t, Options{})
	r := httptest.NewRequest("POST", Prefix+"ask", nil)
	ctx := context.WithValue(t.Context(), requestKey{}, &request{caller: new(Caller)})
	large := func() response {
		return answered(strings.Repeat("x", maxAnswer), nil, mayHave)
	}
	if res := a.once(ctx, r, "key", nil, timeout, large); res.status != 200 {
		t.Errorf("the first call: got failure %+v, want none", res.failure)
	}
	res := a.once(ctx, r, "key", nil, timeout, large)
	if res.status != 409 || !res.replayed || !strings.Contains(string(res.body), `"answer_not_kept"`) {
		t.Errorf("the second call: got %d %.200s, want 409 answer_not_kept", res.status, res.body)
	}
}

// TestCallEndsWithoutItsClient: a call completes even if its client has disconnected.
func TestCallEndsWithoutItsClient(t *testing.T) {
	a, f := start(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, "POST", Prefix+"emit", strings.NewReader(emitted))
	r.Header.Set("X-API-Key", key)
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	w := httptest.NewRecorder()
	if a.ServeHTTP(w, r); w.Code != 200 || f.count != 1 {
		t.Errorf("got %d %s, %d published, want 200, 1", w.Code, w.Body, f.count)
	}
}
