package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// TestRefused: an invalid request has no effect, and its answer states the reason.
func TestRefused(t *testing.T) {
	a, f := start(t, Options{})
	many := `["r"` + strings.Repeat(`,"r"`, maxNames) + `]`
	for _, tt := range []struct {
		method, path, body string
		code               code
		says               string
		headers            []string
	}{
		{"POST", "nothing", emitted, notFound, "openapi.yaml", nil},
		{"POST", "emit/", emitted, notFound, "", nil},
		{"GET", "emit", "", methodNotAllowed, "POST", nil},
		{"HEAD", "sockets", "", methodNotAllowed, "GET", nil},
		{"POST", "openapi.yaml", emitted, methodNotAllowed, "GET", nil},
		{"POST", "emit", emitted, notJSON, "Content-Type", []string{"Content-Type: "}},
		{"POST", "emit", emitted, notJSON, "", []string{"Content-Type: ", "Content-Type: text/plain"}},
		{"POST", "emit?a=1", emitted, badRequest, "query", nil},
		{"POST", "emit", "", badRequest, "empty", nil},
		{"POST", "emit", "{", badRequest, "ends too early", nil},
		{"POST", "emit", `{"event":"e",}`, badRequest, "byte 14", nil},
		{"POST", "emit", `{"everyone":"yes","event":"e"}`, badRequest, "everyone: got a string, want true or false", nil},
		{"POST", "emit", `{"rooms":[1],"event":"e"}`, badRequest, "rooms: got a number, want a string", nil},
		{"POST", "emit", `{"namespace":{},"event":"e"}`, badRequest, "namespace: got an object, want a string", nil},
		{"POST", "ask", `{"everyone":true,"event":"e","timeout":1.5}`, badRequest, "timeout: got a number, want an integer", nil},
		{"POST", "emit", emitted + "x", badRequest, "trailing", nil},
		{"POST", "emit", emitted + emitted, badRequest, "trailing", nil},
		{"POST", "emit", `null`, badRequest, "object", nil},
		{"POST", "emit", `[]`, badRequest, "got an array, want an object", nil},
		{"POST", "emit", "{\"everyone\":true,\"event\":\"\xff\"}", badRequest, "UTF-8", nil},
		{"POST", "emit", `{"everyone":true,"event":"e","room":["r"]}`, badRequest, `"room"`, nil},
		{"POST", "emit", `{"everyone":true,"event":"e","Rooms":["r"]}`, badRequest, `"Rooms"`, nil},
		{"POST", "emit", `{"Everyone":true,"event":"e"}`, badRequest, `"Everyone"`, nil},
		{"POST", "emit", `{"rooms":["r"],"event":"e","rooms":["s"]}`, badRequest, "duplicate", nil},
		{"POST", "emit", `{"everyone":true,"event":"e","args":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `,"args":[1]}`, badRequest, "duplicate", nil},
		{"POST", "emit", `{"":1,"everyone":true,"event":"e"}`, badRequest, "unknown field", nil},
		{"POST", "emit", `{"everyone":true,"event":"e","args":1}`, badRequest, "args", nil},
		{"POST", "emit", `{"everyone":true,"event":1}`, badRequest, "event", nil},
		{"POST", "emit", `{"everyone":true}`, badRequest, "event", nil},
		{"POST", "emit", `{"everyone":true,"event":"disconnect"}`, reservedEvent, "", nil},
		{"POST", "emit", `{"event":"e"}`, badRequest, "no target", nil},
		{"POST", "emit", `{"event":"e","rooms":null}`, badRequest, "no target", nil},
		{"POST", "emit", `{"event":"e","everyone":false}`, badRequest, "no target", nil},
		{"POST", "emit", `{"event":"e","except":["r"]}`, badRequest, "no target", nil},
		{"POST", "emit", `{"event":"e","everyone":true,"rooms":["r"]}`, badRequest, "combined", nil},
		{"POST", "emit", `{"event":"e","rooms":[]}`, badRequest, "no target", nil},
		{"POST", "emit", `{"event":"e","rooms":["r"],"users":[]}`, badRequest, "no target", nil},
		{"POST", "emit", `{"event":"e","everyone":true,"sockets":[]}`, badRequest, "no target", nil},
		{"POST", "emit", `{"event":"e","rooms":"r"}`, badRequest, "rooms: got a string, want an array of strings", nil},
		{"POST", "emit", `{"event":"e","rooms":[""]}`, badRequest, "1 to 200 bytes", nil},
		{"POST", "emit", `{"event":"e","rooms":["` + strings.Repeat("é", 101) + `"]}`, badRequest, "1 to 200 bytes", nil},
		{"POST", "emit", `{"event":"e","users":["` + strings.Repeat("u", 200) + `"]}`, badRequest, "user", nil},
		{"POST", "emit", `{"event":"e","exceptUsers":["` + strings.Repeat("u", 200) + `"],"everyone":true}`, badRequest, "user", nil},
		{"POST", "emit", `{"event":"e","rooms":` + many + `}`, tooMany, "rooms", nil},
		{"POST", "emit", `{"event":"e","everyone":true,"exceptSockets":` + many + `}`, tooMany, "exceptSockets", nil},
		{"POST", "emit", `{"event":"e","everyone":true,"namespace":"/none"}`, unknownNamespace, "/, /chat", nil},
		{"POST", "emit", `{"event":"e","everyone":true,"namespace":"` + strings.Repeat("é", 100_000) + `"}`, unknownNamespace, "…", nil},
		{"POST", "emit", `{"event":"e","everyone":true,"` + strings.Repeat("x", 100_000) + `":1}`, badRequest, "…", nil},
		{"POST", "emit", `{"event":"e","everyone":true,"namespace":""}`, unknownNamespace, "", nil},
		{"POST", "emit", `{"event":"e","everyone":true,"args":[` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `]}`, badRequest, "nested", nil},
		{"POST", "emit", `{"event":"e","everyone":true,"args":[1],"attachments":["AA=="]}`, badRequest, "1 attachments have 0 placeholders", nil},
		{"POST", "emit", `{"event":"e","everyone":true,"args":[{"_placeholder":true,"num":1}],"attachments":["AA=="]}`, badRequest, "", nil},
		{"POST", "emit", `{"event":"e","everyone":true,"attachments":["?"]}`, badRequest, "base64", nil},
		{"POST", "emit", `{"event":"e","everyone":true,"args":["` + strings.Repeat("x", maxBody) + `"]}`, tooLarge, "", nil},
		{"POST", "emit", emitted, badRequest, "Idempotency-Key", []string{"Idempotency-Key: ", "Idempotency-Key: a b"}},
		{"POST", "emit", emitted, badRequest, "Idempotency-Key", []string{"Idempotency-Key: a", "Idempotency-Key: b"}},
		{"POST", "emit", emitted, badRequest, "255", []string{"Idempotency-Key: " + strings.Repeat("k", 256)}},
		{"POST", "batch", `{}`, badRequest, "emits", nil},
		{"POST", "batch", `{"emits":[]}`, badRequest, "emits", nil},
		{"POST", "batch", `{"emits":[` + strings.Repeat("1,", maxBatch) + `1]}`, tooMany, "500", nil},
		{"POST", "ask", `{"everyone":true,"event":"e","timeout":0}`, badRequest, "timeout", nil},
		{"POST", "ask", `{"everyone":true,"event":"e","timeout":60001}`, badRequest, "timeout", nil},
		{"POST", "ask", `{"everyone":true,"event":"e","timeout":9223372036854775807}`, badRequest, "timeout", nil},
		{"POST", "ask", `{"everyone":true,"event":"e","volatile":true}`, badRequest, "volatile", nil},
		{"POST", "join", `{"everyone":true}`, badRequest, "join", nil},
		{"POST", "join", `{"everyone":true,"join":[]}`, badRequest, "join", nil},
		{"POST", "join", `{"everyone":true,"join":[""]}`, badRequest, "join", nil},
		{"POST", "join", `{"everyone":true,"join":["r","user:ann"]}`, badRequest, "reserved for users", nil},
		{"POST", "leave", `{"users":["ann"],"leave":["user:ann"]}`, badRequest, "reserved for users", nil},
		{"POST", "join", `{"join":["r"]}`, badRequest, "no target", nil},
		{"POST", "leave", `{"everyone":true,"leave":` + many + `}`, tooMany, "leave", nil},
		{"POST", "leave", `{"leave":["r"]}`, badRequest, "no target", nil},
		{"POST", "disconnect", `{}`, badRequest, "no target", nil},
		{"GET", "sockets?rooms=r", "", badRequest, `"rooms"`, nil},
		{"GET", "sockets?room=", "", badRequest, "1 to 200 bytes", nil},
		{"GET", "sockets?namespace=/&namespace=/chat", "", badRequest, "duplicate", nil},
		{"GET", "sockets?limit=0", "", badRequest, "limit", nil},
		{"GET", "rooms?limit=10001", "", badRequest, "limit", nil},
		{"GET", "members?room=r&after=a&after=b", "", badRequest, "duplicate", nil},
		{"GET", "rooms?namespace=/none", "", unknownNamespace, "", nil},
		{"GET", "rooms?namespace=", "", unknownNamespace, "", nil},
		{"GET", "members", "", badRequest, "room", nil},
		{"GET", "members?room=%ff", "", badRequest, "UTF-8", nil},
		{"GET", "history?room=r&limit=0", "", badRequest, "limit", nil},
		{"GET", "history?room=r&limit=201", "", badRequest, "limit", nil},
		{"GET", "history?room=r&limit=", "", badRequest, "limit", nil},
		{"GET", "history?room=r&before=x", "", badRequest, "before", nil},
	} {
		w := call(a, tt.method, tt.path, tt.body, tt.headers...)
		if w.Body.Len() > 2000 {
			t.Errorf("%s %s %.100s: the answer has %d bytes, want at most 2000", tt.method, tt.path, tt.body, w.Body.Len())
		}
		if p := problemOf(t, w); p.Code != tt.code.name || p.Open || !strings.Contains(p.Detail, tt.says) {
			t.Errorf("%s %s %.100s: %d %s, want %s with %q", tt.method, tt.path, tt.body, w.Code, w.Body, tt.code.name, tt.says)
		}
		if goes := regexp.MustCompile(`unmarshal|Go |struct|EOF|\bint\d`).FindString(problemOf(t, w).Detail); goes != "" {
			t.Errorf("%s %s %.100s: %s speaks of %q, which is Go's", tt.method, tt.path, tt.body, w.Body, goes)
		}
		if (w.Code == 405) != (w.Header().Get("Allow") != "") {
			t.Errorf("%s %s: Allow is %q", tt.method, tt.path, w.Header().Get("Allow"))
		}
	}
	if f.count > 0 {
		t.Errorf("%d events were published, want 0", f.count)
	}
}

// A list with far too many elements is refused before they are decoded.
func TestLongListsAreNotDecoded(t *testing.T) {
	a, _ := start(t, Options{})
	long := strings.Repeat("1,", 500_000) + "1]}"
	for _, tt := range []struct {
		path, body string
		code       code
	}{
		{"emit", `{"everyone":true,"event":"e","args":[` + long, badRequest},
		{"ask", `{"everyone":true,"event":"e","args":[` + long, badRequest},
		{"batch", `{"emits":[` + long, tooMany},
		{"emit", `{"event":"e","rooms":[` + strings.Repeat(`"r",`, 250_000) + `"r"]}`, tooMany},
		{"emit", `{"everyone":true,"event":"e","attachments":[` + strings.Repeat(`"",`, 300_000) + `""]}`, badRequest},
	} {
		var w *httptest.ResponseRecorder
		if n := testing.AllocsPerRun(1, func() { w = call(a, http.MethodPost, tt.path, tt.body) }); n > 50_000 {
			t.Errorf("%s %.40s: %v allocations, want at most 50000", tt.path, tt.body, n)
		}
		if p := problemOf(t, w); p.Code != tt.code.name {
			t.Errorf("%s %.40s: got %+v, want %s", tt.path, tt.body, p, tt.code.name)
		}
	}
}

func TestHead(t *testing.T) {
	many := strings.Repeat(`{"a":[1,2],"b":"\\\",]["},`, maxList-1)
	for value, want := range map[string]string{
		`[` + many + `1]`: `[` + many + `1]`, `[` + many + `"x,",2,3]`: `[` + many + `"x,"]`,
		`[]`: `[]`, `null`: `null`, `"` + strings.Repeat(",", maxList) + `"`: `"` + strings.Repeat(",", maxList) + `"`,
	} {
		if got := string(head([]byte(value))); got != want {
			t.Errorf("%.60s has the head %.60s…%s, want %.60s", value, got, got[max(0, len(got)-20):], want)
		}
	}
}

// Few large bodies are decoded at a time. Others wait until their call has timed out.
func TestLargeBodiesTakeTurns(t *testing.T) {
	a, _ := start(t, Options{})
	for range cap(a.decoding) {
		a.decoding <- struct{}{}
	}
	if w := call(a, http.MethodPost, "emit", emitted); w.Code != http.StatusOK {
		t.Errorf("a small body: got %d %s, want 200", w.Code, w.Body)
	}
	large := []byte(`{"everyone":true,"event":"e","args":["` + strings.Repeat("x", largeBody) + `"]}`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := (*failure)(nil)
	if err := a.decode(ctx, large, new(emitBody)); !errors.As(err, &f) || f.code != unavailable || f.open {
		t.Errorf("a large body after the timeout: %v, want unavailable", err)
	}
	<-a.decoding
	for range 2 {
		if w := call(a, http.MethodPost, "emit", string(large)); w.Code != http.StatusOK {
			t.Errorf("a large body: got %d %s, want 200", w.Code, w.Body)
		}
	}
}
