package engineio

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A list of origins has the same answer on every transport.
func TestOrigins(t *testing.T) {
	for _, test := range []struct {
		name    string
		origins []string
		origin  string // HOST stands for the server's own
		allowed bool
		header  string // Access-Control-Allow-Origin
	}{
		{"no origin", nil, "", true, ""},
		{"the same", nil, "http://HOST", true, ""},
		{"the same by another scheme", nil, "https://HOST", true, ""},
		{"another", nil, "https://other.example", false, ""},
		{"another port", nil, "http://127.0.0.1:1", false, ""},
		{"opaque", nil, "null", false, ""},
		{"listed", []string{"https://a.example:8443"}, "https://a.example:8443", true, "https://a.example:8443"},
		{"listed in capitals", []string{"https://A.example"}, "https://a.EXAMPLE", true, "https://a.EXAMPLE"},
		{"not listed", []string{"https://a.example"}, "https://b.example", false, ""},
		{"listed with another port", []string{"https://a.example"}, "https://a.example:8443", false, ""},
		{"the same, not listed", []string{"https://a.example"}, "http://HOST", true, ""},
		{"the same as a WebSocket's", nil, "ws://HOST", true, ""},
		{"default port listed, sent without", []string{"https://a.example:443"}, "https://a.example", true, "https://a.example"},
		{"listed without port, default port sent", []string{"https://a.example"}, "https://a.example:443", true, "https://a.example:443"},
		{"default port of http", []string{"http://a.example:80"}, "http://a.example", true, "http://a.example"},
		{"default port of the other scheme", []string{"http://a.example"}, "http://a.example:443", false, ""},
		{"wss listed", []string{"wss://a.example"}, "https://a.example", true, "https://a.example"},
		{"wss sent", []string{"https://a.example"}, "wss://a.example", true, "wss://a.example"},
		{"wss is not http", []string{"wss://a.example"}, "http://a.example", false, ""},
		{"subdomain", []string{"https://*.a.example"}, "https://b.a.example", true, "https://b.a.example"},
		{"subdomain of a subdomain", []string{"https://*.a.example"}, "https://c.b.A.example:443", true, "https://c.b.A.example:443"},
		{"the domain of a wildcard", []string{"https://*.a.example"}, "https://a.example", false, ""},
		{"a name that ends like the wildcard's", []string{"https://*.a.example"}, "https://evila.example", false, ""},
		{"subdomain, another scheme", []string{"https://*.a.example"}, "http://b.a.example", false, ""},
		{"subdomain, another port", []string{"https://*.a.example"}, "https://b.a.example:8443", false, ""},
		{"subdomain with a port", []string{"https://*.a.example:8443"}, "https://b.a.example:8443", true, "https://b.a.example:8443"},
		{"subdomain of localhost", []string{"http://*.localhost:3000"}, "http://b.localhost:3000", true, "http://b.localhost:3000"},
		{"file", []string{"file://"}, "file://", true, "file://"},
		{"file, not listed", []string{"https://a.example"}, "file://", false, ""},
		{"Capacitor", []string{"capacitor://localhost"}, "capacitor://localhost", true, "capacitor://localhost"},
		{"Tauri", []string{"https://a.example", "tauri://localhost"}, "tauri://localhost", true, "tauri://localhost"},
		{"a custom scheme without host", []string{"app://"}, "app://", true, "app://"},
		{"a custom scheme, not listed", []string{"capacitor://localhost"}, "ionic://localhost", false, ""},
		{"an extension", []string{"chrome-extension://abcdefghij"}, "chrome-extension://abcdefghij", true, "chrome-extension://abcdefghij"},
		{"IPv6", []string{"http://[::1]:8080"}, "http://[::1]:8080", true, "http://[::1]:8080"},
		{"opaque, not listed", []string{"https://a.example"}, "null", false, ""},
		{"malformed", []string{"https://a.example"}, "https://a.example/", false, ""},
		{"a name that ends alike", []string{"https://a.example"}, "https://a.example.evil.example", false, ""},
		{"none listed", []string{}, "http://HOST", true, ""},
		{"any", []string{"*"}, "https://b.example", true, "*"},
		{"opaque, listed", []string{"null"}, "null", true, "null"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := setUp(t, Options{Origins: test.origins})
			var header []string
			if test.origin != "" {
				origin := test.origin
				if len(origin) > 4 && origin[len(origin)-4:] == "HOST" {
					origin = origin[:len(origin)-4] + b.http.Listener.Addr().String()
				}
				header = []string{"Origin", origin}
			}
			res, _ := b.do("GET", "", "", header...)
			if (res.StatusCode == 200) != test.allowed || (res.StatusCode == 403) == test.allowed {
				t.Errorf("polling: %s", res.Status)
			}
			if got := res.Header.Get("Access-Control-Allow-Origin"); got != test.header {
				t.Errorf("Access-Control-Allow-Origin is %q, want %q", got, test.header)
			}
			if got := res.Header.Get("Access-Control-Allow-Credentials"); (got == "true") != (test.header != "" && test.header != "*") {
				t.Errorf("Access-Control-Allow-Credentials is %q", got)
			}
			if _, _, err := b.tryDial("?EIO=4&transport=websocket", header...); (err == nil) != test.allowed {
				t.Errorf("websocket: %v", err)
			}
		})
	}
}

func TestPreflight(t *testing.T) {
	b := setUp(t, Options{Origins: []string{"https://a.example"}})
	ask := func(origin string) *http.Response {
		res, _ := b.do("OPTIONS", "", "", "Origin", origin,
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-token")
		return res
	}
	res := ask("https://a.example")
	for k, v := range map[string]string{
		"Access-Control-Allow-Origin":      "https://a.example",
		"Access-Control-Allow-Methods":     "POST",
		"Access-Control-Allow-Headers":     "x-token",
		"Access-Control-Allow-Credentials": "true",
	} {
		if res.StatusCode != http.StatusNoContent || res.Header.Get(k) != v {
			t.Errorf("%s: %s is %q, want %q", res.Status, k, res.Header.Get(k), v)
		}
	}
	if res := ask("https://b.example"); res.Header.Get("Access-Control-Allow-Origin") != "" || res.Header.Get("Vary") == "" {
		t.Errorf("another origin: %s %v", res.Status, res.Header)
	}
}

func TestCORSForOtherHandlers(t *testing.T) {
	b := setUp(t, Options{Origins: []string{"https://a.example"}})
	h := b.CORS(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for origin, allowed := range map[string]string{"https://a.example": "https://a.example", "https://b.example": ""} {
		r := httptest.NewRequest("GET", "/client.js", nil)
		r.Header.Set("Origin", origin)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Access-Control-Allow-Origin"); w.Code != http.StatusTeapot || got != allowed {
			t.Errorf("%s: %d, %q, want %d, %q", origin, w.Code, got, http.StatusTeapot, allowed)
		}
	}
}

// The server's own origin, as far as it follows from a request.
func TestOwnOrigin(t *testing.T) {
	none, err := ParseOrigins(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		host   string
		tls    bool
		scheme string // as a middleware sets it
		origin string
		want   bool
	}{
		{"app", false, "", "http://app", true},
		{"app", false, "", "https://app", true}, // there may be TLS in front
		{"app:443", false, "", "https://app", true},
		{"app", false, "", "https://app:443", true},
		{"app:80", false, "", "http://app", true},
		{"app:443", false, "", "http://app", false},
		{"app:8080", false, "", "http://app:8080", true},
		{"app:8080", false, "", "http://app", false},
		{"APP", false, "", "http://app", true},
		{"app", true, "", "https://app", true},
		{"app", true, "", "wss://app", true},
		{"app", true, "", "http://app", false},
		{"app", false, "https", "https://app", true},
		{"app", false, "https", "http://app", false},
		{"app", false, "wss", "https://app", true},
		{"app", true, "http", "http://app", true},
		{"[::1]:443", false, "https", "https://[::1]", true},
		{"app", false, "", "capacitor://app", false},
		{"", false, "", "null", false},
		{"", false, "", "file://", false},
	} {
		r := httptest.NewRequest("GET", "/engine.io/", nil)
		r.Host, r.URL.Scheme = test.host, test.scheme
		if test.tls {
			r.TLS = new(tls.ConnectionState)
		}
		r.Header.Set("Origin", test.origin)
		if got := none.allow(r); got != test.want {
			t.Errorf("%q for host %q (TLS %v, scheme %q): allowed %v", test.origin, test.host, test.tls, test.scheme, got)
		}
	}
	// A request line with a URL is the client's.
	r := httptest.NewRequest("GET", "http://app/engine.io/", nil)
	r.TLS = new(tls.ConnectionState)
	r.Header.Set("Origin", "http://app")
	if none.allow(r) {
		t.Error("the client's request line tells the scheme")
	}
}

func TestMalformedOrigins(t *testing.T) {
	for _, test := range []struct{ origin, hint string }{
		{"", "missing scheme"},
		{"app.example", `write "https://app.example"`},
		{"app.example:8443", "missing scheme"},
		{"*.app.example", "missing scheme"},
		{"*.com/path", "missing scheme"},
		{"//app.example", "missing scheme"},
		{"https://app.example/", `write "https://app.example"`},
		{"https://*.app.example/path", `write "https://*.app.example"`},
		{"https://app.example?a", `write "https://app.example"`},
		{"https://user@app.example", "no user name"},
		{"https://", "write scheme://host"},
		{"https://:443", "write scheme://host"},
		{"https://app.example:", "write scheme://host"},
		{"https://app.example:port", "write scheme://host"},
		{"https://app.example:0", "write scheme://host"},
		{"https://app.example:70000", "write scheme://host"},
		{"https://app .example", "ASCII"},
		{"https://bücher.example", "xn--"},
		{"https://*", "scheme://*.domain"},
		{"https://*.com", "scheme://*.domain.example"},
		{"https://*.127.0.0.1", "scheme://*.domain.example"},
		{"https://*.", "write scheme://host"},
		{"https://*..example", "write scheme://host"},
		{"https://app.*", "scheme://*.domain"},
		{"https://*app.example", "scheme://*.domain"},
		{"https://a.*.example", "scheme://*.domain"},
		{"https://*.*.example", "scheme://*.domain"},
		{"https://app.example:*", "scheme://*.domain"},
		{"*://app.example", "one origin for each scheme"},
		{"capacitor:localhost", "missing scheme"},
		{"1://app.example", "write scheme://host"},
	} {
		_, err := NewServer(Options{Origins: []string{"https://good.example", test.origin}}, nil)
		if err == nil {
			t.Errorf("%q is accepted", test.origin)
		} else if !strings.Contains(err.Error(), test.hint) || !strings.Contains(err.Error(), strconv.Quote(test.origin)) {
			t.Errorf("%q: %v, want %q", test.origin, err, test.hint)
		}
	}
	yes := func(*http.Request, string) bool { return true }
	for name, o := range map[string]Options{
		"all and one":        {Origins: []string{"*", "https://app.example"}},
		"all and a function": {Origins: []string{"*"}, AllowOrigin: yes},
	} {
		if _, err := NewServer(o, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// AllowOrigin is called for origins that are not listed. If it panics the origin is
// refused.
func TestAllowOrigin(t *testing.T) {
	seen, logs := observer.New(zap.ErrorLevel)
	b := setUp(t, Options{
		Origins: []string{"https://listed.example"},
		AllowOrigin: func(r *http.Request, origin string) bool {
			if origin == "https://listed.example" || r.Host == "" {
				t.Errorf("asked about %q", origin)
			}
			if origin == "https://panic.example" {
				panic("of the function")
			}
			return origin == "https://a.example" || origin == "null"
		},
		Logger: zap.New(seen),
	})
	for origin, want := range map[string]bool{
		"https://listed.example": true, "https://a.example": true, "null": true,
		"https://b.example": false, "https://panic.example": false,
	} {
		res, _ := b.do("GET", "", "", "Origin", origin)
		cors := res.Header.Get("Access-Control-Allow-Origin") == origin && res.Header.Get("Access-Control-Allow-Credentials") == "true"
		if (res.StatusCode == 200) != want || cors != want {
			t.Errorf("%s: got %s, %v, want allowed: %v", origin, res.Status, res.Header, want)
		}
		if _, _, err := b.tryDial("?EIO=4&transport=websocket", "Origin", origin); (err == nil) != want {
			t.Errorf("%s: WebSocket: %v", origin, err)
		}
	}
	if n := logs.FilterMessage("hook panicked").FilterField(zap.String("hook", "AllowOrigin")).Len(); n == 0 {
		t.Error("the panic is not logged")
	}
}

// Each refused origin is logged once, with the allowed ones; the number of lines is
// bounded.
func TestRefusedOriginIsLoggedOnce(t *testing.T) {
	seen, logs := observer.New(zap.WarnLevel)
	b := setUp(t, Options{Origins: []string{"https://a.example"}, Logger: zap.New(seen)})
	for range 3 {
		b.do("GET", "", "", "Origin", "https://b.example")
		b.do("GET", "", "", "Origin", "https://a.example")
	}
	_, _, _ = b.tryDial("?EIO=4&transport=websocket", "Origin", "https://b.example")
	lines := logs.TakeAll()
	if len(lines) != 1 || lines[0].Message != "origin refused" {
		t.Fatalf("logged %+v", lines)
	}
	fields := lines[0].ContextMap()
	if fields["origin"] != "https://b.example" || fields["own_host"] != b.http.Listener.Addr().String() || fmt.Sprint(fields["allowed"]) != "[https://a.example]" {
		t.Errorf("fields %v", fields)
	}
	for i := range 2 * maxRefusedOrigins {
		b.do("GET", "", "", "Origin", fmt.Sprintf("https://b%d.example%s", i, strings.Repeat("x", 1000)))
	}
	if n, last := logs.Len(), logs.All()[logs.Len()-1]; n != maxRefusedOrigins || last.Message != "further refused origins are not logged" {
		t.Errorf("%d lines, the last %+v", n, last)
	}
	b.Server.badOrigins.mu.Lock()
	b.Server.badOrigins.forget = time.Now() // an hour has passed
	b.Server.badOrigins.mu.Unlock()
	_, _, _ = b.tryDial("?EIO=4&transport=websocket", "Origin", "https://own.example")
	if last := logs.All()[logs.Len()-1]; last.ContextMap()["origin"] != "https://own.example" {
		t.Errorf("an hour later the last line is %+v", last)
	}
	for _, line := range logs.All() {
		if s, _ := line.ContextMap()["origin"].(string); len(s) > maxLoggedOrigin {
			t.Fatalf("logged %d bytes, want at most %d", len(s), maxLoggedOrigin)
		}
	}
}

// Browsers show a refusal only if it has CORS headers.
func TestRefusalsHaveCORSHeaders(t *testing.T) {
	const page = "https://a.example"
	b := setUp(t, Options{
		Origins:    []string{page},
		MaxPayload: 100,
		Admit: func(r *http.Request) (func(), error) {
			if r.URL.Query().Has("busy") {
				return nil, &BusyError{Message: "busy"}
			}
			return nil, nil
		},
		AllowRequest: func(r *http.Request) error {
			if r.URL.Query().Has("stranger") {
				return errors.New("stranger")
			}
			return nil
		},
		Use: []func(http.Handler) http.Handler{func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Has("unready") {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				next.ServeHTTP(w, r)
			})
		}},
	})
	sid := b.open()
	check := func(name, method, query, body string, status int) {
		t.Helper()
		res, _, err := b.raw(method, "/engine.io/"+query, body, "Origin", page)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != status || res.Header.Get("Access-Control-Allow-Origin") != page {
			t.Errorf("%s: got %s, %v, want %d with CORS headers", name, res.Status, res.Header, status)
		}
	}
	check("unknown session", "GET", "?EIO=4&transport=polling&sid="+anOldSession, "", 400)
	check("limit", "GET", "?EIO=4&transport=polling&busy", "", 503)
	check("AllowRequest", "GET", "?EIO=4&transport=polling&stranger", "", 403)
	check("middleware", "GET", "?EIO=4&transport=polling&unready", "", 503)
	check("too large", "POST", "?EIO=4&transport=polling&sid="+sid, strings.Repeat("4", 101), 413)
	b.Refuse()
	check("drain", "GET", "?EIO=4&transport=polling", "", 503)
}
