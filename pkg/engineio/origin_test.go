package engineio

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// One list, the same answer on every transport.
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
		{"the same, not listed", []string{"https://a.example"}, "http://HOST", false, ""},
		{"a name that ends alike", []string{"https://a.example"}, "https://a.example.evil.example", false, ""},
		{"none listed", []string{}, "http://HOST", false, ""},
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
			t.Errorf("%s: %d, %q", origin, w.Code, got)
		}
	}
}

// Over TLS a page without it is not of the same origin.
func TestSameOriginOverTLS(t *testing.T) {
	o, err := newOrigins(nil)
	if err != nil {
		t.Fatal(err)
	}
	for origin, want := range map[string]bool{"https://a.example": true, "http://a.example": false} {
		r := httptest.NewRequest("GET", "https://a.example/engine.io/", nil)
		r.Header.Set("Origin", origin)
		if o.allow(r) != want {
			t.Errorf("%s: allowed %v", origin, !want)
		}
	}
}
