package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// asked is an ask, whose key is claimed.
const asked = `{"everyone":true,"event":"well?","timeout":100}`

// failures are errors of the library, and what callers learn of them.
var failures = []struct {
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
}

// TestOpen: a failure with an unknown outcome states that, and is the permanent answer for
// the key of an ask. A failure without an effect frees the key.
func TestOpen(t *testing.T) {
	a, f := start(t, Options{})
	for i, tt := range failures {
		key := fmt.Sprint("Idempotency-Key: ", i)
		f.fail = tt.err
		w := call(a, "POST", "ask", asked, key)
		if p := problemOf(t, w); p.Code != tt.code.name || p.Open != tt.open || strings.Contains(w.Body.String(), "silence") ||
			strings.Contains(p.Detail, "may have completed") != tt.open {
			t.Errorf("%v: got %s, want code %s, open %v", tt.err, w.Body, tt.code.name, tt.open)
		}
		f.fail = nil
		before := f.count
		again := call(a, "POST", "ask", asked, key)
		if tt.open && (f.count > before || again.Body.String() != w.Body.String() || again.Header().Get("Idempotency-Replayed") != "true") {
			t.Errorf("%v, again: %d %s", tt.err, again.Code, again.Body)
		}
		if !tt.open && again.Code != 200 {
			t.Errorf("%v, again: %d %s", tt.err, again.Code, again.Body)
		}
	}
}

// writes are calls that publish one event, and their routes.
var writes = map[string]string{
	"emit":       emitted,
	"batch":      `{"emits":[` + emitted + `]}`,
	"join":       `{"everyone":true,"join":["a"]}`,
	"leave":      `{"everyone":true,"leave":["a"]}`,
	"disconnect": `{"everyone":true}`,
}

// TestRetries: a write that has failed is repeated with its key until it succeeds, and is published
// once, whether the failure came before its publication or after it.
func TestRetries(t *testing.T) {
	for path, body := range writes {
		a, f := start(t, Options{})
		for i, tt := range failures {
			for _, lost := range []bool{true, false} { // the event, or its answer
				key := fmt.Sprintf("Idempotency-Key: %s-%d-%v", path, i, lost)
				f.published, f.lost, f.fail = 0, lost, tt.err
				for range 2 {
					if w := call(a, "POST", path, body, key); w.Code < 500 && path != "batch" || w.Header().Get("Idempotency-Replayed") != "" {
						t.Errorf("%s, %v: %d %s", path, tt.err, w.Code, w.Body)
					}
				}
				f.fail = nil
				first := call(a, "POST", path, body, key)
				again := call(a, "POST", path, body, key)
				if first.Code >= 300 || again.Code != first.Code || again.Body.String() != first.Body.String() || f.published != 1 ||
					(first.Header().Get("Idempotency-Replayed") == "true") == lost || again.Header().Get("Idempotency-Replayed") != "true" {
					t.Errorf("%s, %v: %d %s %v, and again %d %s %v; %d published", path, tt.err, first.Code, first.Body, first.Header(),
						again.Code, again.Body, again.Header(), f.published)
				}
				w := call(a, "POST", path, body+" ", key)
				if p := problemOf(t, w); p.Code != keyReused.name || p.Open || f.published != 1 {
					t.Errorf("%s, another body: %d %s", path, w.Code, w.Body)
				}
			}
		}
	}
}

// TestBatchContinues: a batch that stopped is completed by a call with the same key, and the invalid
// emits in it change nothing.
func TestBatchContinues(t *testing.T) {
	a, f := start(t, Options{})
	body := `{"emits":[` + emitted + `,{},` + emitted + `,` + emitted + `]}`
	send := func() (statuses []int, replayed string) {
		w := call(a, "POST", "batch", body, "Idempotency-Key: key")
		var got struct{ Results []batchResult }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		for _, r := range got.Results {
			statuses = append(statuses, r.Status)
		}
		return statuses, w.Header().Get("Idempotency-Replayed")
	}
	f.fail, f.after, f.lost = adapter.ErrNotPublished, 1, true
	for i, want := range []struct {
		statuses  []int
		replayed  string
		published int
	}{
		{[]int{200, 400, 503, 503}, "", 1},
		{[]int{200, 400, 200, 200}, "", 3},
		{[]int{200, 400, 200, 200}, "true", 3},
	} {
		statuses, replayed := send()
		if !slices.Equal(statuses, want.statuses) || replayed != want.replayed || f.published != want.published {
			t.Errorf("call %d: %d, %q, %d published, want %+v", i, statuses, replayed, f.published, want)
		}
		f.fail = nil
	}
}

// TestBatchWithInvalidEmits: the key of a batch is not free for another call, even if the first emits
// of the batch are invalid, or other ones than before.
func TestBatchWithInvalidEmits(t *testing.T) {
	for name, body := range map[string]string{
		"first emit":   `{"emits":[{"everyone":true,"event":"connect"},` + emitted + `,` + emitted + `]}`,
		"first emits":  `{"emits":[{},{"everyone":true},` + emitted + `,` + emitted + `]}`,
		"second emit":  `{"emits":[` + emitted + `,{},` + emitted + `]}`,
		"another body": `{"emits":[` + emitted + `,` + emitted + `]}`,
	} {
		a, f := start(t, Options{})
		for i := range 2 {
			w := call(a, "POST", "batch", body, "Idempotency-Key: key")
			if replayed := w.Header().Get("Idempotency-Replayed") == "true"; w.Code != 200 || f.published != 2 || replayed != (i > 0) {
				t.Errorf("%s: %d %s, %d published, replayed %v", name, w.Code, w.Body, f.published, replayed)
			}
		}
		for path, other := range map[string]string{"emit": emitted, "batch": `{"emits":[{},` + emitted + `,` + emitted + `]} `, "join": `{"everyone":true,"join":["a"]}`} {
			w := call(a, "POST", path, other, "Idempotency-Key: key")
			if p := problemOf(t, w); p.Code != keyReused.name || p.Open || f.published != 2 {
				t.Errorf("%s, then another %s: %d %s, %d published", name, path, w.Code, w.Body, f.published)
			}
		}
	}
}

// TestNamesOfABatch: nodes that do not agree on which emits are invalid do not take one emit for another.
func TestNamesOfABatch(t *testing.T) {
	names := func(valid ...bool) (all []socketio.Once) {
		k := &callKey{key: "key", content: "content"}
		for _, ok := range valid {
			o := k.next()
			if ok {
				all = append(all, *o)
			} else {
				k.drop(true)
			}
		}
		return all
	}
	for _, old := range [][]bool{{false, true, true}, {true, false, true}, {false, false, true}} {
		for _, young := range [][]bool{{true, true, true}, {false, true, true}, {true, false, true}, {true, true, false}} {
			content := make(map[string]string)
			for _, o := range names(old...) {
				content[o.ID] = o.Content
			}
			if o := names(young...)[0]; (content[o.ID] == o.Content) != (slices.Index(old, true) == slices.Index(young, true)) {
				t.Errorf("valid %v, then %v: %+v, in %q", old, young, o, content)
			}
		}
	}
}

// TestPartlyDoneInABatch: an emit that is published in part, for good, does not keep those after it from
// being sent. The name of it stays used.
func TestPartlyDoneInABatch(t *testing.T) {
	a, f := start(t, Options{})
	body := `{"emits":[` + emitted + `,` + emitted + `,` + emitted + `]}`
	for i := range 2 {
		f.fail, f.fails = errors.Join(adapter.ErrUnavailable, adapter.ErrIncomplete), 1
		w := call(a, "POST", "batch", body, "Idempotency-Key: key")
		var got struct{ Results []batchResult }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || len(got.Results) != 3 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if p := got.Results[0].Problem; p == nil || p.Code != partlyDone.name || !p.Open || got.Results[1].Status != 200 || got.Results[2].Status != 200 {
			t.Errorf("%s", w.Body)
		}
		if f.published != 3 || w.Header().Get("Idempotency-Replayed") == "true" != (i > 0) {
			t.Errorf("call %d: %d published, %v", i, f.published, w.Header())
		}
	}
}

// TestPartlyDone: a call that was published in part, or meets the event of another call after a part of
// it was published, says that something has happened.
func TestPartlyDone(t *testing.T) {
	a, f := start(t, Options{})
	for _, tt := range []struct {
		err    error
		status int
		code   code
		open   bool
	}{
		{errors.Join(adapter.ErrUnavailable, adapter.ErrIncomplete), 409, partlyDone, true},
		{errors.Join(adapter.ErrUnavailable, adapter.ErrReused), 422, keyReused, true},
		{adapter.ErrReused, 422, keyReused, false},
	} {
		for _, path := range []string{"emit", "join"} {
			f.fail = tt.err
			w := call(a, "POST", path, writes[path], "Idempotency-Key: key")
			if p := problemOf(t, w); w.Code != tt.status || p.Code != tt.code.name || p.Open != tt.open {
				t.Errorf("%v: %d %s", tt.err, w.Code, w.Body)
			}
		}
	}
	f.fail, f.after = adapter.ErrReused, 1
	w := call(a, "POST", "batch", `{"emits":[`+emitted+`,`+emitted+`]}`, "Idempotency-Key: batch")
	if p := problemOf(t, w); p.Code != keyReused.name || !p.Open {
		t.Errorf("the second emit of a batch: %d %s", w.Code, w.Body)
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
		w := call(a, "POST", "ask", asked, "Idempotency-Key: key")
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
	if w := call(a, "POST", "ask", asked, "Idempotency-Key: new"); w.Code != 200 {
		t.Errorf("got %d %s, want 200", w.Code, w.Body)
	}
	w := call(a, "POST", "ask", asked, "Idempotency-Key: new")
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
	k := &callKey{key: "key", content: "content"}
	large := func() response {
		return answered(strings.Repeat("x", maxAnswer), nil, mayHave)
	}
	if res := a.claimed(t.Context(), k, timeout, large); res.status != 200 {
		t.Errorf("the first call: got failure %+v, want none", res.failure)
	}
	res := a.claimed(t.Context(), k, timeout, large)
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
