package engineio

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const anOldSession = "AAAAAAAAAAAAAAAAAAAA"

// Section 1.1 of the protocol: the answer of each refusal.
func TestRefusals(t *testing.T) {
	type told struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	refused := make(chan told, 100)
	count := map[int]uint64{}
	b := setUp(t, Options{
		OnRefused: func(_ *http.Request, code int, message string) { refused <- told{code, message} },
		AllowRequest: func(r *http.Request) error {
			if r.URL.Query().Has("stranger") {
				return errors.New(`go "away"`)
			}
			return nil
		},
		GenerateID: func(r *http.Request) (string, error) {
			if r.URL.Query().Has("noid") {
				return "", errors.New("none left")
			}
			return randomString(20), nil
		},
	})
	polling := b.open()
	upgraded := b.open()
	b.upgrade(upgraded)

	for _, test := range []struct {
		name, method, query string
		header              []string
		status              int
		body                string
	}{
		{"no transport", "GET", "?EIO=4", nil, 400, `{"code":0,"message":"Transport unknown"}`},
		{"unknown transport", "GET", "?EIO=4&transport=pigeon", nil, 400, `{"code":0,"message":"Transport unknown"}`},
		{"WebTransport", "GET", "?EIO=4&transport=webtransport", nil, 400, `{"code":0,"message":"Transport unknown"}`},
		{"a name of Object's", "GET", "?EIO=4&transport=constructor", nil, 400, `{"code":0,"message":"Transport unknown"}`},
		{"the last of two counts", "GET", "?EIO=4&transport=polling&transport=pigeon", nil, 400, `{"code":0,"message":"Transport unknown"}`},
		{"unknown session", "GET", "?EIO=4&transport=polling&sid=" + anOldSession, nil, 400, `{"code":1,"message":"Session ID unknown"}`},
		{"POST to an unknown session", "POST", "?EIO=4&transport=polling&sid=" + anOldSession, nil, 400, `{"code":1,"message":"Session ID unknown"}`},
		{"handshake by POST", "POST", "?EIO=4&transport=polling", nil, 400, `{"code":2,"message":"Bad handshake method"}`},
		{"handshake by PUT", "PUT", "?EIO=4&transport=polling", nil, 400, `{"code":2,"message":"Bad handshake method"}`},
		{"OPTIONS without a preflight's headers", "OPTIONS", "?EIO=4&transport=polling", nil, 204, ``},
		{"OPTIONS in a session", "OPTIONS", "?EIO=4&transport=polling&sid=" + polling, nil, 204, ``},
		{"websocket without upgrade", "GET", "?EIO=4&transport=websocket", nil, 400, `{"code":3,"message":"Bad request"}`},
		{"websocket without upgrade, with session", "GET", "?EIO=4&transport=websocket&sid=" + upgraded, nil, 400, `{"code":3,"message":"Bad request"}`},
		{"poll after an upgrade", "GET", "?EIO=4&transport=polling&sid=" + upgraded, nil, 400, `{"code":3,"message":"Bad request"}`},
		{"another revision in a session", "GET", "?EIO=3&transport=polling&sid=" + polling, nil, 400, `{"code":3,"message":"Bad request"}`},
		{"no id", "GET", "?EIO=4&transport=polling&noid", nil, 400, `{"code":3,"message":"Bad request"}`},
		{"JSONP", "GET", "?EIO=4&transport=polling&j=0", nil, 400, `{"code":3,"message":"Bad request"}`},
		{"JSONP in a session", "GET", "?EIO=4&transport=polling&j=0&sid=" + polling, nil, 400, `{"code":3,"message":"Bad request"}`},
		{"refused by AllowRequest", "GET", "?EIO=4&transport=polling&stranger", nil, 403, `{"code":4,"message":"go \"away\""}`},
		{"refused before the version counts", "GET", "?EIO=3&transport=polling&stranger", nil, 403, `{"code":4,"message":"go \"away\""}`},
		{"another origin", "GET", "?EIO=4&transport=polling", []string{"Origin", "https://elsewhere.example"}, 403, `{"code":4,"message":"Forbidden"}`},
		{"another origin in a session", "GET", "?EIO=4&transport=polling&sid=" + polling, []string{"Origin", "https://elsewhere.example"}, 403, `{"code":4,"message":"Forbidden"}`},
		{"revision 3", "GET", "?EIO=3&transport=polling", nil, 400, `{"code":5,"message":"Unsupported protocol version"}`},
		{"no revision", "GET", "?transport=polling", nil, 400, `{"code":5,"message":"Unsupported protocol version"}`},
		{"PUT in a session", "PUT", "?EIO=4&transport=polling&sid=" + polling, nil, 500, ``},
		{"DELETE in a session", "DELETE", "?EIO=4&transport=polling&sid=" + polling, nil, 500, ``},
	} {
		t.Run(test.name, func(t *testing.T) {
			res, body, err := b.raw(test.method, "/engine.io/"+test.query, "", test.header...)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != test.status || body != test.body {
				t.Errorf("got %d %s, want %d %s", res.StatusCode, body, test.status, test.body)
			}
			if !strings.HasPrefix(body, "{") {
				return
			}
			if res.Header.Get("Content-Type") != "application/json" {
				t.Errorf(`content type %q, want "application/json"`, res.Header.Get("Content-Type"))
			}
			var want told
			if err := json.Unmarshal([]byte(body), &want); err != nil {
				t.Fatal(err)
			}
			if len(refused) == 0 { // a connection refused it
				return
			}
			if got := <-refused; got != want {
				t.Errorf("OnRefused was told of %+v, want %+v", got, want)
			}
			count[want.Code]++
		})
	}
	for code, n := range b.Stats().Refused {
		if n != count[code] || n == 0 && code >= 0 {
			t.Errorf("%d refusals with code %d are counted, want %d", n, code, count[code])
		}
	}

	for _, test := range []struct {
		name, query string
		header      []string
		body        string
	}{
		{"unknown transport", "?EIO=4&transport=pigeon", nil, "Transport unknown"},
		{"WebTransport", "?EIO=4&transport=webtransport", nil, "Transport unknown"},
		{"unknown session", "?EIO=4&transport=websocket&sid=" + anOldSession, nil, "Session ID unknown"},
		{"another revision in a session", "?EIO=3&transport=websocket&sid=" + polling, nil, "Bad request"},
		{"no id", "?EIO=4&transport=websocket&noid", nil, "Bad request"},
		{"refused by AllowRequest", "?EIO=4&transport=websocket&stranger", nil, `go "away"`},
		{"another origin", "?EIO=4&transport=websocket", []string{"Origin", "https://elsewhere.example"}, "Forbidden"},
		{"revision 3, before the 101", "?EIO=3&transport=websocket", nil, "Unsupported protocol version"},
		{"no revision", "?transport=websocket", nil, "Unsupported protocol version"},
	} {
		t.Run("upgrade/"+test.name, func(t *testing.T) {
			_, res, err := b.tryDial(test.query, test.header...)
			if err == nil {
				t.Fatal("accepted")
			}
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != 400 || string(body) != test.body || res.Header.Get("Content-Type") != "text/html" {
				t.Errorf("got %d %s %q, want 400 text/html %q", res.StatusCode, res.Header.Get("Content-Type"), body, test.body)
			}
		})
	}
	t.Run("upgrade/not a WebSocket handshake", func(t *testing.T) {
		res, body, err := b.raw("GET", "/engine.io/?EIO=4&transport=websocket", "",
			"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "12")
		if err != nil || res.StatusCode != 400 || body != "Bad request" {
			t.Errorf("got %v %v %q", err, res.Status, body)
		}
	})
}

func TestIllegalOriginIsABadRequest(t *testing.T) {
	b := setUp(t, Options{Origins: []string{"*"}})
	r := httptest.NewRequest("GET", "/engine.io/?EIO=4&transport=polling", nil)
	r.Header["Origin"] = []string{"https://a\x01b"} // net/http would refuse it
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	if w.Code != 400 || w.Body.String() != `{"code":3,"message":"Bad request"}` {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestHandshakePacket(t *testing.T) {
	for _, test := range []struct {
		name     string
		o        Options
		upgrades []string
	}{
		{"default", Options{}, []string{"websocket"}},
		{"upgrades disabled", Options{DisableUpgrades: true}, []string{}},
		{"no websocket", Options{Transports: []string{"polling"}}, []string{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.o.NodeID = "n-_1"
			test.o.PingInterval, test.o.PingTimeout, test.o.MaxPayload = 300*time.Millisecond, 200*time.Millisecond, 1234
			test.o.InitialPacket = Text([]byte("hi"))
			b := setUp(t, test.o)
			res, body := b.do("GET", "", "")
			want := `^0\{"sid":"(n-_1[A-Za-z0-9_-]{16})","upgrades":` + regexp.QuoteMeta(toJSON(t, test.upgrades)) +
				`,"pingInterval":300,"pingTimeout":200,"maxPayload":1234\}` + "\x1e4hi$"
			if !regexp.MustCompile(want).MatchString(body) {
				t.Errorf("got %q, want %s", body, want)
			}
			for k, v := range map[string]string{"Content-Type": "text/plain; charset=UTF-8", "Cache-Control": "no-store"} {
				if res.Header.Get(k) != v {
					t.Errorf("%s is %q, want %q", k, res.Header.Get(k), v)
				}
			}
			if res.ContentLength != int64(len(body)) || len(res.TransferEncoding) > 0 {
				t.Errorf("length %d, transfer encoding %v", res.ContentLength, res.TransferEncoding)
			}
		})
	}
	t.Run("websocket", func(t *testing.T) {
		b := setUp(t, Options{InitialPacket: Text([]byte("hi"))})
		ws := b.dial("")
		want := `^0\{"sid":"[A-Za-z0-9_-]{20}","upgrades":\[\],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000\}$`
		if first := b.read(ws); !regexp.MustCompile(want).MatchString(first) {
			t.Errorf("got %q", first)
		}
		if second := b.read(ws); second != "4hi" {
			t.Errorf(`then %q, want "4hi"`, second)
		}
	})
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestDisabledTransports(t *testing.T) {
	b := setUp(t, Options{Transports: []string{"websocket"}})
	if res, body := b.do("GET", "", ""); res.StatusCode != 400 || body != `{"code":0,"message":"Transport unknown"}` {
		t.Errorf("polling: %s %s", res.Status, body)
	}
	b.dialOpen()

	b = setUp(t, Options{Transports: []string{"polling"}})
	if _, _, err := b.tryDial("?EIO=4&transport=websocket"); err == nil {
		t.Error("a WebSocket was accepted")
	}
	if _, _, err := b.tryDial("?EIO=4&transport=websocket&sid=" + b.open()); err == nil {
		t.Error("an upgrade was accepted")
	}

	b = setUp(t, Options{DisableUpgrades: true})
	if _, _, err := b.tryDial("?EIO=4&transport=websocket&sid=" + b.open()); err == nil {
		t.Error("an upgrade was accepted where none is allowed")
	}
}

func TestAllowRequestIsAskedOncePerSession(t *testing.T) {
	asked := 0
	b := setUp(t, Options{AllowRequest: func(*http.Request) error { asked++; return nil }})
	sid := b.open()
	b.post(sid, "4a")
	b.gets("a", false)
	b.upgrade(sid)
	if asked != 1 {
		t.Errorf("asked %d times, want 1", asked)
	}
}

func TestCookie(t *testing.T) {
	b := setUp(t, Options{Cookie: &http.Cookie{}})
	res, body := b.do("GET", "", "")
	sid := body[9:29]
	if got, want := res.Header.Get("Set-Cookie"), "io="+sid+"; Path=/; HttpOnly; SameSite=Lax"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b.post(sid, "4a")
	if res, _ := b.do("POST", sid, "4a"); res.Header.Get("Set-Cookie") != "" {
		t.Error("a POST sets the cookie")
	}
	_, res, err := b.tryDial("?EIO=4&transport=websocket")
	if err != nil {
		t.Fatal(err)
	}
	if res.Header.Get("Set-Cookie") != "" {
		t.Error("a WebSocket handshake sets the cookie")
	}

	b = setUp(t, Options{Cookie: &http.Cookie{Name: "s", Path: "/x", Secure: true, MaxAge: 60, SameSite: http.SameSiteStrictMode}})
	res, body = b.do("GET", "", "")
	if got, want := res.Header.Get("Set-Cookie"), "s="+body[9:29]+"; Path=/x; Max-Age=60; HttpOnly; Secure; SameSite=Strict"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestHeaderHooks(t *testing.T) {
	b := setUp(t, Options{
		InitialHeaders: func(h http.Header, _ *http.Request) { h.Set("X-First", "yes") },
		Headers:        func(h http.Header, r *http.Request) { h.Set("X-Each", r.Method) },
		Use: []func(http.Handler) http.Handler{
			tag("X-Outer", "1"), tag("X-Inner", "1"),
		},
	})
	check := func(what string, h http.Header, first, each string) {
		t.Helper()
		if h.Get("X-First") != first || h.Get("X-Each") != each || h.Get("X-Outer") != "1" || h.Get("X-Inner") != "1" {
			t.Errorf("%s has the headers %v", what, h)
		}
	}
	res, body := b.do("GET", "", "")
	check("a handshake", res.Header, "yes", "GET")
	res, _ = b.do("POST", body[9:29], "4a")
	check("a POST", res.Header, "", "POST")
	_, res, err := b.tryDial("?EIO=4&transport=websocket")
	if err != nil {
		t.Fatal(err)
	}
	check("a WebSocket handshake", res.Header, "yes", "GET")
	_, res, err = b.tryDial("?EIO=4&transport=websocket&sid=" + body[9:29])
	if err != nil {
		t.Fatal(err)
	}
	check("an upgrade", res.Header, "", "GET")
}

func tag(key, value string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(key, value)
			next.ServeHTTP(w, r)
		})
	}
}

func TestMiddlewareCanAnswerItself(t *testing.T) {
	b := setUp(t, Options{Use: []func(http.Handler) http.Handler{func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	}}})
	if res, _ := b.do("GET", "", ""); res.StatusCode != http.StatusTeapot {
		t.Errorf("got %s", res.Status)
	}
	if _, res, err := b.tryDial("?EIO=4&transport=websocket"); err == nil || res.StatusCode != http.StatusTeapot {
		t.Errorf("got %v", err)
	}
}

func TestHandshakeIsKept(t *testing.T) {
	b := setUp(t, Options{})
	b.dial("&room=a&room=b", "X-Token", "secret")
	h := receive(t, b.conns).Handshake()
	if h.Header.Get("X-Token") != "secret" || h.Header.Get("Sec-Websocket-Key") != "" {
		t.Errorf("headers %v", h.Header)
	}
	if got := h.Query()["room"]; len(got) != 2 || got[1] != "b" {
		t.Errorf("query %v", h.Query())
	}
	if h.URL != "/engine.io/?EIO=4&transport=websocket&room=a&room=b" || h.TLS ||
		!strings.HasPrefix(h.RemoteAddr, "127.0.0.1:") || time.Since(h.Time) > patience {
		t.Errorf("got %+v, want the URL, address and time of the request", h)
	}
}

// TestHandshakeKeepsSomeHeaders: a handshake keeps short headers, and neither too many nor
// long ones.
func TestHandshakeKeepsSomeHeaders(t *testing.T) {
	long := make(http.Header)
	long.Set("Authorization", "Bearer x")
	long.Set("Cookie", strings.Repeat("x", keptHeaderBytes))
	if h := keptHeader(long); len(h) != 1 || h.Get("Authorization") != "Bearer x" {
		t.Errorf("of a long one and a short one %v are kept", slices.Collect(maps.Keys(h)))
	}
	for _, name := range []string{"Authorization", "Cookie"} {
		h := http.Header{name: {strings.Repeat("x", keptHeaderBytes/2)}}
		for i := range 5 {
			h.Set(fmt.Sprint("X", i), strings.Repeat("x", keptHeaderBytes/6))
		}
		if got := keptHeader(h); got.Get(name) == "" || len(got) != 3 {
			t.Errorf("of a request with %s %d headers are kept: %v", name, len(got), slices.Sorted(maps.Keys(got)))
		}
	}
	many := make(http.Header)
	for i := range 300 {
		many.Add(fmt.Sprint("X", i%150), fmt.Sprint(i))
	}
	if h := keptHeader(many); len(h) != keptHeaderLines/2 || h.Get("X0") != "0" {
		t.Errorf("%d names of two values each are kept", len(h))
	}
}

func TestPathIsAPrefix(t *testing.T) {
	b := setUp(t, Options{Path: "/live"})
	for path, status := range map[string]int{"/live": 200, "/live/": 200, "/lively/x": 200, "/engine.io/": 404, "/": 404} {
		res, _, err := b.raw("GET", path+"?EIO=4&transport=polling", "")
		if err != nil || res.StatusCode != status {
			t.Errorf("%s: %v %v, want %d", path, err, res.Status, status)
		}
	}
}

func TestIDsAreUnique(t *testing.T) {
	b := setUp(t, Options{GenerateID: func(r *http.Request) (string, error) { return r.URL.Query().Get("id"), nil }})
	get := func() int {
		res, _, err := b.raw("GET", "/engine.io/?EIO=4&transport=polling&id=one", "")
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode
	}
	if first, second := get(), get(); first != 200 || second != 400 {
		t.Errorf("the first got %d, the second %d, want 200, 400", first, second)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"node id":         {NodeID: "abc"},
		"node id letters": {NodeID: "ab/c"},
		"interval":        {PingInterval: -1},
		"timeout":         {PingTimeout: time.Microsecond},
		"upgrade timeout": {UpgradeTimeout: -1},
		"payload":         {MaxPayload: -1},
		"queue":           {SendQueueBytes: -1},
		"transport":       {Transports: []string{"webtransport"}},
		"origin":          {Origins: []string{"example.com"}},
		"origin's path":   {Origins: []string{"https://example.com/"}},
	} {
		if s, err := NewServer(o, func(*Conn) {}); err == nil {
			t.Errorf("%s: accepted", name)
			_ = s.Close(t.Context())
		}
	}
}

// Clients with addTrailingSlash: false request the path without its slash.
func TestPathWithoutTrailingSlash(t *testing.T) {
	b := setUp(t, Options{})
	res, body, err := b.raw("GET", "/engine.io?EIO=4&transport=polling", "")
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("handshake: %v, %v", res, err)
	}
	sid := body[9:29]
	if res, body, err := b.raw("POST", "/engine.io?EIO=4&transport=polling&sid="+sid, "4a"); err != nil || res.StatusCode != 200 {
		t.Errorf("POST: %s, %v", body, err)
	}
	b.gets("a", false)
	for _, path := range []string{"/engine.iox", "/engine.io.js", "/engine", "/"} {
		if res, _, err := b.raw("GET", path+"?EIO=4&transport=polling", ""); err != nil || res.StatusCode != 404 {
			t.Errorf("%s: got %v, %v, want 404", path, res, err)
		}
	}
}
