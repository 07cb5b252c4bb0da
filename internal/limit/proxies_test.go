package limit

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

var testProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

// seen returns the request that a handler behind the proxies gets.
func seen(p Proxies, r *http.Request) (got *http.Request) {
	p.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r })).ServeHTTP(httptest.NewRecorder(), r)
	return got
}

func TestProxies(t *testing.T) {
	p := Proxies{Networks: testProxies}
	for _, test := range []struct {
		remote  string
		headers []string
		want    string
	}{
		{"192.0.2.1:99", []string{"203.0.113.5"}, "192.0.2.1:99"}, // no proxy
		{"10.0.0.1:99", nil, "10.0.0.1:99"},
		{"10.0.0.1:99", []string{"203.0.113.5"}, "203.0.113.5"},
		{"10.0.0.1:99", []string{"198.51.100.7, 203.0.113.5"}, "203.0.113.5"}, // the left one may be invented
		{"10.0.0.1:99", []string{"198.51.100.7", "203.0.113.5,10.2.3.4"}, "203.0.113.5"},
		{"10.0.0.1:99", []string{"203.0.113.5:4711"}, "203.0.113.5"},
		{"10.0.0.1:99", []string{"nonsense"}, "10.0.0.1:99"},
		{"10.0.0.1:99", []string{"203.0.113.5, nonsense"}, "10.0.0.1:99"},
		{"10.0.0.1:99", []string{"203.0.113.5, nonsense, 10.2.3.4"}, "10.2.3.4"},
		{"10.0.0.1:99", []string{"nonsense, 203.0.113.5"}, "203.0.113.5"},
		{"10.0.0.1:99", []string{""}, "10.0.0.1:99"},
		{"10.0.0.1:99", []string{"10.9.9.9"}, "10.9.9.9"}, // a client within
		{"[fd00::1]:99", []string{"2001:db8::5"}, "2001:db8::5"},
		{"[fd00::1]:99", []string{"[2001:db8::5]:80"}, "2001:db8::5"},
		{"[fd00::1]:99", []string{"[2001:db8::5]"}, "2001:db8::5"},
		{"10.0.0.1:99", []string{"203.0.113.5", ""}, "10.0.0.1:99"}, // an address that is not known
		{"10.0.0.1:99", []string{"127.0.0.1, 203.0.113.5"}, "203.0.113.5"},
		{"[fe80::1%eth0]:99", []string{"203.0.113.5"}, "[fe80::1%eth0]:99"},
		{"[::ffff:10.0.0.1]:99", []string{"::ffff:203.0.113.5"}, "203.0.113.5"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = test.remote
		r.Header["X-Forwarded-For"] = test.headers
		got := seen(p, r).RemoteAddr
		if got != test.want || r.RemoteAddr != test.remote {
			t.Errorf("%s, %q: %s, want %s", test.remote, test.headers, got, test.want)
		}
	}
}

// The header with the client's address is configurable; the other headers do not count.
func TestClientAddressHeader(t *testing.T) {
	all := http.Header{
		"X-Forwarded-For":  {"203.0.113.1"},
		"Forwarded":        {"for=203.0.113.2;proto=https;host=app.example"},
		"Cf-Connecting-Ip": {"203.0.113.3"},
		"X-Real-Ip":        {"203.0.113.4"},
		"True-Client-Ip":   {"2001:db8::5"},
	}
	for header, want := range map[string]string{
		"":                 "203.0.113.1",
		"X-Forwarded-For":  "203.0.113.1",
		"Forwarded":        "203.0.113.2",
		"CF-Connecting-IP": "203.0.113.3",
		"X-Real-IP":        "203.0.113.4",
		"True-Client-IP":   "2001:db8::5",
		"Fly-Client-IP":    "10.0.0.1:99", // not sent
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = all
		r.RemoteAddr = "10.0.0.1:99"
		if got := seen(Proxies{testProxies, header}, r).RemoteAddr; got != want {
			t.Errorf("%s: %s, want %s", header, got, want)
		}
		r.RemoteAddr = "192.0.2.1:99"
		if got := seen(Proxies{testProxies, header}, r); got.RemoteAddr != r.RemoteAddr || got.Host != r.Host || got.URL.Scheme != "" {
			t.Errorf("%s: believed from a stranger: %s %s %s, want %s, %s, nothing", header, got.RemoteAddr, got.Host, got.URL.Scheme, r.RemoteAddr, r.Host)
		}
	}
}

// RFC 7239.
func TestForwarded(t *testing.T) {
	for _, test := range []struct {
		headers              []string
		client, host, scheme string
	}{
		{[]string{"for=203.0.113.5"}, "203.0.113.5", "node", ""},
		{[]string{"For=203.0.113.5;PROTO=https;Host=app.example"}, "203.0.113.5", "app.example", "https"},
		{[]string{"proto=https; for=\"[2001:db8::5]:4711\" ;host=\"app.example:8443\""}, "2001:db8::5", "app.example:8443", "https"},
		{[]string{"for=\"[2001:db8::5]\""}, "2001:db8::5", "node", ""},
		{[]string{"for=\"203.0.113.5:4711\""}, "203.0.113.5", "node", ""},
		{[]string{"for=198.51.100.7;host=evil.example, for=203.0.113.5;host=app.example;proto=https, for=10.2.3.4;host=inner;proto=http"}, "203.0.113.5", "app.example", "https"},
		{[]string{"for=198.51.100.7;host=evil.example", "for=203.0.113.5;host=app.example"}, "203.0.113.5", "app.example", ""},
		{[]string{"for=unknown;host=app.example"}, "10.0.0.1:99", "node", ""},
		{[]string{"for=_hidden, for=10.2.3.4;host=app.example"}, "10.2.3.4", "app.example", ""},
		{[]string{"by=10.0.0.1;for=\"a, b;for=203.0.113.9\""}, "10.0.0.1:99", "node", ""},
		{[]string{"for=203.0.113.5;proto=gopher"}, "203.0.113.5", "node", ""},
		{[]string{"for=\"203.0.113.5"}, "10.0.0.1:99", "node", ""},
		{[]string{"for=\"203.0.113.\\5\""}, "203.0.113.5", "node", ""},
		{[]string{"=;;,", "\"", "for"}, "10.0.0.1:99", "node", ""},
		{nil, "10.0.0.1:99", "node", ""},
	} {
		r := httptest.NewRequest("GET", "/socket.io/?a=1", nil)
		r.RemoteAddr, r.Host = "10.0.0.1:99", "node"
		r.Header["Forwarded"] = test.headers
		got := seen(Proxies{testProxies, "Forwarded"}, r)
		if got.RemoteAddr != test.client || got.Host != test.host || got.URL.Scheme != test.scheme || got.URL.RequestURI() != "/socket.io/?a=1" {
			t.Errorf("%q: got %s, %s, %s, %s, want %s, %s, %s and the same URI", test.headers, got.RemoteAddr, got.Host, got.URL.Scheme, got.URL.RequestURI(), test.client, test.host, test.scheme)
		}
		if r.RemoteAddr != "10.0.0.1:99" || r.Host != "node" || r.URL.Scheme != "" {
			t.Error("the caller's request is changed")
		}
	}
}

// The host and scheme that the client requested.
func TestForwardedHostAndProto(t *testing.T) {
	for _, test := range []struct{ host, proto, wantHost, wantScheme string }{
		{"", "", "node", ""},
		{"app.example:8443", "https", "app.example:8443", "https"},
		{"app.example, inner", "HTTPS, http", "app.example", "https"},
		{"", "wss", "node", "wss"},
		{"app.example", "gopher", "app.example", ""},
	} {
		for remote, trusted := range map[string]bool{"10.0.0.1:99": true, "192.0.2.1:99": false} {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr, r.Host = remote, "node"
			r.Header.Set("X-Forwarded-Host", test.host)
			r.Header.Set("X-Forwarded-Proto", test.proto)
			got, wantHost, wantScheme := seen(Proxies{Networks: testProxies}, r), "node", ""
			if trusted {
				wantHost, wantScheme = test.wantHost, test.wantScheme
			}
			if got.Host != wantHost || got.URL.Scheme != wantScheme {
				t.Errorf("%q, %q from %s: %s, %s, want %s, %s", test.host, test.proto, remote, got.Host, got.URL.Scheme, wantHost, wantScheme)
			}
		}
	}
}
