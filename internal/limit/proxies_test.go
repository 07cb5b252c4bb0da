package limit

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestProxies(t *testing.T) {
	p := Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, test := range []struct {
		remote  string
		headers []string
		want    string
	}{
		{"192.0.2.1:99", []string{"203.0.113.5"}, "192.0.2.1:99"}, // no proxy
		{"10.0.0.1:99", nil, "10.0.0.1:99"},
		{"10.0.0.1:99", []string{"203.0.113.5"}, "203.0.113.5"},
		{"10.0.0.1:99", []string{"198.51.100.7, 203.0.113.5"}, "203.0.113.5"}, // the left one may be made up
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
		{"10.0.0.1:99", []string{"203.0.113.5", ""}, "10.0.0.1:99"}, // whoever did not say who it was
		{"10.0.0.1:99", []string{"127.0.0.1, 203.0.113.5"}, "203.0.113.5"},
		{"[fe80::1%eth0]:99", []string{"203.0.113.5"}, "[fe80::1%eth0]:99"},
		{"[::ffff:10.0.0.1]:99", []string{"::ffff:203.0.113.5"}, "203.0.113.5"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = test.remote
		r.Header["X-Forwarded-For"] = test.headers
		got := ""
		p.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RemoteAddr })).ServeHTTP(httptest.NewRecorder(), r)
		if got != test.want || r.RemoteAddr != test.remote {
			t.Errorf("%s, %q: %s, want %s", test.remote, test.headers, got, test.want)
		}
	}
}
