package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rejoin-io/rejoin/internal/api/idempotency"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "a key that nobody guesses"

// A flaky adapter publishes, and returns fail as the error if it is set.
type flaky struct {
	adapter.Adapter
	fail      error
	after     int  // calls that do not fail
	fails     int  // calls that fail; 0: all
	lost      bool // it does not publish what fails
	count     int
	published int // not repeated
}

func (f *flaky) Publish(ctx context.Context, e adapter.Event) (r adapter.Receipt, err error) {
	f.count++
	fails := f.fail != nil && f.after == 0
	f.after = max(0, f.after-1)
	if fails && f.fails == 1 {
		defer func() { f.fail = nil }()
	}
	f.fails = max(0, f.fails-1)
	if !fails || !f.lost {
		if r, err = f.Adapter.Publish(ctx, e); err == nil && !r.Repeated {
			f.published++
		}
	}
	if fails {
		return adapter.Receipt{}, f.fail
	}
	return r, err
}

// start returns an API over one server, in memory, and its adapter.
func start(t testing.TB, o Options) (*API, *flaky) {
	t.Helper()
	node, err := adapter.NewMemory(adapter.MemoryOptions{BacklogBytes: 8 << 20}).Node("node")
	if err != nil {
		t.Fatal(err)
	}
	f := &flaky{Adapter: node}
	srv, err := socketio.NewServer(socketio.Options{Adapter: f})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(srv.Close(context.Background()), node.Close()); err != nil {
			t.Error(err)
		}
	})
	o.Namespaces = map[string]*socketio.Namespace{"/": srv.Of("/"), "/chat": srv.Of("/chat")}
	if o.Keys == nil {
		o.Keys = []string{"another key", key}
	}
	if o.Calls == nil {
		o.Calls = idempotency.NewMemory(idempotency.MemoryOptions{})
	}
	return New(o), f
}

// call makes a request with a key and more headers, "Name: value".
func call(h http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, Prefix+path, strings.NewReader(body))
	r.Header.Set("X-API-Key", key)
	r.Header.Set("Content-Type", "application/json")
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		if value == "" {
			r.Header.Del(name)
		} else {
			r.Header.Add(name, value)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// problemOf returns the problem document in an answer, which must be well-formed.
func problemOf(t testing.TB, w *httptest.ResponseRecorder) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Header().Get("Content-Type") != "application/problem+json" ||
		p.Status != w.Code || p.Title != http.StatusText(w.Code) || p.Type != "about:blank" || p.Detail == "" {
		t.Errorf("no problem document: %d %s %s", w.Code, w.Header(), w.Body)
	}
	return p
}

const emitted = `{"everyone":true,"event":"news"}`

// TestBatchStops: once an emit of a batch has failed, those after it do not come
// before it.
func TestBatchStops(t *testing.T) {
	a, f := start(t, Options{})
	f.fail = adapter.ErrUnavailable
	w := call(a, "POST", "batch", `{"emits":[`+emitted+`,`+emitted+`,`+emitted+`]}`)
	var got struct{ Results []batchResult }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Results) != 3 || f.count != 1 {
		t.Fatalf("%d %s: %v; %d published", w.Code, w.Body, err, f.count)
	}
	if p := got.Results[0].Problem; p.Code != unavailable.name || !p.Open {
		t.Errorf("the first: %+v", p)
	}
	for _, r := range got.Results[1:] {
		if r.Problem.Code != notTried.name || r.Problem.Open || r.Status != 503 {
			t.Errorf("after it: %+v", r)
		}
	}
}

func TestNotReady(t *testing.T) {
	w := call(New(Options{Keys: []string{key}}), "POST", "emit", emitted)
	if p := problemOf(t, w); p.Code != unavailable.name || p.Open || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %s, want %s with Retry-After", w.Code, w.Body, unavailable.name)
	}
}

// TestLog: each failure is one line without keys, and attempts with wrong keys cannot fill
// the log.
func TestLog(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	a, f := start(t, Options{Logger: zap.New(core)})
	for range 100 {
		call(a, "POST", "emit", emitted, "X-API-Key: ", "X-API-Key: a guess")
	}
	if n := logs.Len(); n < 1 || n > 30 {
		t.Errorf("got %d lines, want at least 1, at most 30", n)
	}
	f.fail = fmt.Errorf("%w: the cause", adapter.ErrUnavailable)
	call(a, "POST", "emit", emitted)
	last := logs.FilterLevelExact(zap.WarnLevel).All()
	if len(last) != 1 || !strings.Contains(fmt.Sprint(last[0].ContextMap()), "the cause") {
		t.Errorf("logged %v, want one warning with the cause", last)
	}
	for _, line := range logs.All() {
		if text := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(text, key) || strings.Contains(text, "a guess") {
			t.Errorf("the log shows a key: %s", text)
		}
	}
}

// TestConnectionIsUsableAfterAnAnswer: the deadlines of an answer end with it.
func TestConnectionIsUsableAfterAnAnswer(t *testing.T) {
	a, _ := start(t, Options{})
	server := httptest.NewServer(a)
	defer server.Close()
	client := server.Client()
	for range 2 {
		r, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+Prefix+"emit", strings.NewReader(emitted))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-API-Key", key)
		r.Header.Set("Content-Type", "application/json")
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 || res.ContentLength != int64(len(body)) {
			t.Errorf("got %d, %d bytes of %d, %v, want the whole answer", res.StatusCode, len(body), res.ContentLength, err)
		}
	}
}

// TestCodesAreDocumented: the contract and the manual name the codes of problems, all
// of them and no others.
func TestCodesAreDocumented(t *testing.T) {
	source, err := os.ReadFile("problem.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`code\{"(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		want = append(want, m[1])
	}
	slices.Sort(want)
	_, list, _ := strings.Cut(string(openAPI), "description: machine-readable\n          enum:")
	manual, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for where, found := range map[string][][]string{
		"openapi.yaml": regexp.MustCompile(`(?m)^ {12}- (\w+)$`).FindAllStringSubmatch(list, -1),
		"api.md":       regexp.MustCompile("(?m)^\\| `(\\w+)` \\| \\d").FindAllStringSubmatch(string(manual), -1),
	} {
		var got []string
		for _, m := range found {
			got = append(got, m[1])
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s has\n%q, want\n%q", where, got, want)
		}
	}
}
