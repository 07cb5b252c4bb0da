package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

const callers = `{
	"orders": {"keys": ["the-key-of-orders", "the-new-key-of-orders"], "calls": ["emit", "batch", "join", "leave", "ask", "disconnect"], "rooms": ["order:*", "user:*"]},
	"reader": {"keys": ["the-key-of-reader"], "calls": ["members", "history", "rooms", "sockets"], "namespaces": ["/"], "rooms": ["order:*"]},
	"chat": {"keys": ["the-key-of-chat-"], "namespaces": ["/ch*"]},
	"ops": {"keys": ["the-key-of-ops--"], "calls": ["pprof"]}}`

func as(name string) string { return "X-API-Key: the-key-of-" + name }

// scoped returns an API with the callers.
func scoped(t *testing.T, o Options) (*API, *flaky) {
	t.Helper()
	var err error
	if o.Callers, err = ParseCallers(callers); err != nil {
		t.Fatal(err)
	}
	return start(t, o)
}

// TestScopes: a call beyond the scope of its caller is 403, names what is missing and has no effect.
func TestScopes(t *testing.T) {
	a, f := scoped(t, Options{})
	const e = `"event":"e"`
	for _, tt := range []struct {
		caller, path, body string
		lacks              string // "" if the call is allowed
	}{
		{"orders", "emit", `{` + e + `,"rooms":["order:1","order:2"]}`, ""},
		{"orders", "emit", `{` + e + `,"users":["ann"]}`, ""},
		{"orders", "emit", `{` + e + `,"rooms":["order:1"],"except":["vip"],"exceptSockets":["x"]}`, ""},
		{"orders", "emit", `{` + e + `,"namespace":"/chat","rooms":["order:1"]}`, ""},
		{"orders", "emit", `{` + e + `,"rooms":["order:1","vip"]}`, `"vip" in its rooms, which are order:*, user:*`},
		{"orders", "emit", `{` + e + `,"rooms":["Order:1"]}`, `"Order:1"`},
		{"orders", "emit", `{` + e + `,"rooms":["xorder:1"]}`, `"xorder:1"`},
		{"orders", "emit", `{` + e + `,"everyone":true}`, `everyone requires a scope without rooms`},
		{"orders", "emit", `{` + e + `,"sockets":["x"]}`, `sockets requires a scope without rooms`},
		{"orders", "emit", `{` + e + `,"rooms":["order:1"],"sockets":["x"]}`, `sockets requires`},
		{"orders", "join", `{"rooms":["order:1"],"join":["order:2"]}`, ""},
		{"orders", "join", `{"rooms":["order:1"],"join":["order:2","vip"]}`, `"vip"`},
		{"orders", "join", `{"rooms":["vip"],"join":["order:2"]}`, `"vip"`},
		{"orders", "leave", `{"rooms":["order:1"],"leave":["vip"]}`, `"vip"`},
		{"orders", "disconnect", `{"rooms":["order:1"]}`, ""},
		{"orders", "disconnect", `{"rooms":["order:1"],"except":["order:2"],"exceptUsers":["ann"],"close":true}`, ""},
		{"orders", "disconnect", `{"rooms":["order:1"],"except":["vip"]}`, `"vip"`},
		{"orders", "join", `{"rooms":["order:1"],"join":["order:2"],"except":["vip"]}`, `"vip"`},
		{"orders", "leave", `{"rooms":["order:1"],"leave":["order:2"],"except":["vip"]}`, `"vip"`},
		{"orders", "ask", `{` + e + `,"rooms":["order:1"],"except":["vip"],"timeout":1}`, `"vip"`},
		{"orders", "disconnect", `{"everyone":true}`, "everyone"},
		{"orders", "ask", `{` + e + `,"rooms":["vip"],"timeout":1}`, `"vip"`},
		{"orders", "rooms", "", `"rooms" in its calls, which are emit, batch, join, leave, ask, disconnect`},
		{"orders", "history?room=order:1", "", `"history"`},
		{"reader", "rooms", "", ""},
		{"reader", "members?room=order:1", "", ""},
		{"reader", "members?room=vip", "", `"vip"`},
		{"reader", "history?room=order:1", "", ""},
		{"reader", "history?room=vip", "", `"vip"`},
		{"reader", "history?room=order:1&namespace=/chat", "", `"/chat" in its namespaces, which are /`},
		{"reader", "rooms?namespace=/none", "", `"/none"`},
		{"reader", "sockets?room=order:1", "", ""},
		{"reader", "sockets?room=order:1&room=vip", "", `"vip"`},
		{"reader", "sockets?room=order:1&except=order:2", "", ""},
		{"reader", "sockets?room=order:1&except=vip", "", `"vip"`},
		{"reader", "sockets?room=order:1&except=user:ann", "", `"user:ann"`},
		{"reader", "sockets?user=ann", "", `"user:ann"`},
		{"reader", "sockets?socket=x", "", "sockets"},
		{"reader", "sockets", "", "everyone"},
		{"reader", "emit", `{` + e + `,"rooms":["order:1"]}`, `"emit"`},
		{"chat", "emit", `{` + e + `,"namespace":"/chat","everyone":true}`, ""},
		{"chat", "rooms?namespace=/chat", "", ""},
		{"chat", "disconnect", `{"namespace":"/chat","everyone":true}`, ""},
		{"chat", "disconnect", `{"namespace":"/chat","everyone":true,"close":true}`, `has only the namespaces /ch*; close requires`},
		{"chat", "emit", `{` + e + `,"everyone":true}`, `"/" in its namespaces, which are /ch*`},
		{"chat", "rooms", "", `"/"`},
		{"ops", "emit", `{` + e + `,"everyone":true}`, `"emit" in its calls, which are pprof`},
	} {
		method := "POST"
		if tt.body == "" {
			method = "GET"
		}
		key, before := as(tt.caller), f.count
		if len(tt.caller) < 5 {
			key += strings.Repeat("-", 5-len(tt.caller)) // as long as a key must be
		}
		w := call(a, method, tt.path, tt.body, "X-API-Key: ", key)
		if tt.lacks == "" {
			if w.Code >= 300 {
				t.Errorf("%s: %s %s: %d %s", tt.caller, tt.path, tt.body, w.Code, w.Body)
			}
			continue
		}
		p := problemOf(t, w)
		if w.Code != http.StatusForbidden || p.Code != missingScope.name || p.Open || f.count != before ||
			!strings.Contains(p.Detail, tt.lacks) || !strings.Contains(p.Detail, fmt.Sprintf("caller %q", tt.caller)) {
			t.Errorf("%s: %s %s: %d %+v; want missing_scope with %s", tt.caller, tt.path, tt.body, w.Code, p, tt.lacks)
		}
	}
}

// TestScopesInABatch: each emit of a batch is checked.
func TestScopesInABatch(t *testing.T) {
	a, f := scoped(t, Options{})
	w := call(a, "POST", "batch", `{"emits":[{"event":"e","rooms":["order:1"]},{"event":"e","rooms":["vip"]},{"event":"e","rooms":["order:2"]}]}`,
		"X-API-Key: ", "X-API-Key: the-new-key-of-orders")
	var got struct{ Results []batchResult }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Results) != 3 || f.count != 2 {
		t.Fatalf("%d %s: %v; %d published", w.Code, w.Body, err, f.count)
	}
	if p := got.Results[1].Problem; p == nil || p.Code != missingScope.name || p.Status != http.StatusForbidden {
		t.Errorf("got %s", w.Body)
	}
}

// TestScopesHideNamespaces: a caller with namespaces is not told which others there are.
func TestScopesHideNamespaces(t *testing.T) {
	a, _ := scoped(t, Options{})
	for k, names := range map[string]bool{"the-key-of-chat-": false, key: true} {
		p := problemOf(t, call(a, "GET", "rooms?namespace=/ch", "", "X-API-Key: ", "X-API-Key: "+k))
		if p.Code != unknownNamespace.name || strings.Contains(p.Detail, "/chat") != names {
			t.Errorf("%s: got %+v", k, p)
		}
	}
}

// TestProfilesNeedTheirScope: the profiles are for keys without a name, and callers whose calls
// include them.
func TestProfilesNeedTheirScope(t *testing.T) {
	a, _ := scoped(t, Options{})
	h := a.Protect(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "profile") }))
	for key, want := range map[string]int{key: 200, "the-key-of-ops--": 200, "the-key-of-orders": 403, "the-key-of-chat-": 403} {
		if w := call(h, "GET", "", "", "X-API-Key: ", "X-API-Key: "+key); w.Code != want {
			t.Errorf("%q: %d %s, want %d", key, w.Code, w.Body, want)
		}
	}
}

// TestCallersHaveOwnIdempotencyKeys: a caller gets no answer of another one's call.
func TestCallersHaveOwnIdempotencyKeys(t *testing.T) {
	a, f := scoped(t, Options{})
	const body = `{"event":"e","rooms":["order:1"]}`
	for i, tt := range []struct {
		key      string
		replayed string
	}{
		{"the-key-of-orders", ""}, {"the-new-key-of-orders", "true"}, {key, ""}, {"another key", "true"}, {"the-key-of-orders", "true"},
	} {
		w := call(a, "POST", "emit", body, "X-API-Key: ", "X-API-Key: "+tt.key, "Idempotency-Key: k")
		if got := w.Header().Get("Idempotency-Replayed"); w.Code != 200 || got != tt.replayed {
			t.Errorf("call %d: %d, replayed %q, want %q", i, w.Code, got, tt.replayed)
		}
	}
	if w := call(a, "POST", "emit", body, "X-API-Key: ", "X-API-Key: the-key-of-chat-", "Idempotency-Key: k"); w.Code != 403 || f.published != 2 {
		t.Errorf("%d %s; %d published, want 2", w.Code, w.Body, f.published)
	}
}

// TestCallersAreNamed: logs and metrics have the name of the caller, and no key.
func TestCallersAreNamed(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	a, _ := scoped(t, Options{Logger: zap.New(core)})
	for _, k := range []string{"the-key-of-orders", "the-key-of-reader", key, "a guess"} {
		call(a, "POST", "emit", `{"event":"e","rooms":["order:1"]}`, "X-API-Key: ", "X-API-Key: "+k)
	}
	call(a, "GET", "openapi.yaml", "", "X-API-Key: ")
	for labels, want := range map[[3]string]float64{
		{"emit", "200", "orders"}: 1, {"emit", "403", "reader"}: 1, {"emit", "200", "unnamed"}: 1, {"emit", "401", "none"}: 1, {"openapi.yaml", "200", "none"}: 1,
	} {
		if got := testutil.ToFloat64(a.metrics.requests.WithLabelValues(labels[:]...)); got != want {
			t.Errorf("%v: %v, want %v", labels, got, want)
		}
	}
	var named []string
	for _, line := range logs.All() {
		text := fmt.Sprint(line.Message, line.ContextMap())
		named = append(named, fmt.Sprint(line.ContextMap()["caller"]))
		if strings.Contains(text, "the-key") || strings.Contains(text, key) || strings.Contains(text, "a guess") {
			t.Errorf("the log shows a key: %s", text)
		}
	}
	if want := []string{"orders", "reader", "unnamed", "none", "none"}; !slices.Equal(named, want) {
		t.Errorf("the log names %q, want %q", named, want)
	}
}

func TestParseCallers(t *testing.T) {
	const k = `"keys":["0123456789abcdef"]`
	for text, says := range map[string]string{
		``: "JSON object", `[]`: "JSON object", `null`: "JSON object", `{} {}`: "JSON object",
		`{"a":null}`:                                             "want an object",
		`{"a":{}}`:                                               "at least one key",
		`{"a":{"keys":[]}}`:                                      "at least one key",
		`{"a":{"keys":["too-short"]}}`:                           "16 visible",
		`{"a":{"keys":["0123456789 abcdef"]}}`:                   "16 visible",
		`{"a":{"keys":"0123456789abcdef"}}`:                      "each a list",
		`{"a":{"key":["0123456789abcdef"]}}`:                     "each a list",
		`{"a":{` + k + `,"Calls":["emit"]}}`:                     "each a list",
		`{"a":{` + k + `,` + k + `}}`:                            "each a list",
		`{"A":{` + k + `}}`:                                      "a name is",
		`{"":{` + k + `}}`:                                       "a name is",
		`{"none":{` + k + `}}`:                                   "a name is",
		`{"unnamed":{` + k + `}}`:                                "a name is",
		`{"` + strings.Repeat("a", 41) + `":{` + k + `}}`:        "a name is",
		`{"a":{` + k + `,"calls":[]}}`:                           "calls is empty",
		`{"a":{` + k + `,"rooms":[]}}`:                           "rooms is empty",
		`{"a":{` + k + `,"calls":null}}`:                         "calls is null",
		`{"a":{` + k + `,"namespaces":null}}`:                    "namespaces is null",
		`{"a":{` + k + `,"rooms":null}}`:                         "rooms is null",
		`{"a":{` + k + `,"calls":["Emit"]}}`:                     "unknown call",
		`{"a":{` + k + `,"calls":["openapi.yaml"]}}`:             "unknown call",
		`{"a":{` + k + `,"rooms":["["]}}`:                        "malformed pattern",
		`{"a":{` + k + `,"namespaces":[""]}}`:                    "namespaces",
		`{"a":{` + k + `},"a":{"keys":["another-0123456789"]}}`:  "duplicate",
		`{"a":{` + k + `},"b":{` + k + `}}`:                      "duplicate",
		`{"a":{"keys":["0123456789abcdef","0123456789abcdef"]}}`: "duplicate",
	} {
		if _, err := ParseCallers(text); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "0123456789") || strings.Contains(err.Error(), "too-short") {
			t.Errorf("%s: got %v, want %q and no key", text, err, says)
		}
	}
	many := new(strings.Builder)
	for i := range maxCallers + 1 {
		fmt.Fprintf(many, `,"c%d":{"keys":["0123456789abcdef%d"]}`, i, i)
	}
	if _, err := ParseCallers("{" + many.String()[1:] + "}"); err == nil || !strings.Contains(err.Error(), "more than 100") {
		t.Errorf("%d callers: %v", maxCallers+1, err)
	}
	if all, err := ParseCallers(callers); err != nil || len(all) != 4 {
		t.Errorf("got %d callers, %v", len(all), err)
	}
}
