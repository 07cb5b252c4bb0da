package main

import (
	"net/http"
	"testing"
)

// ask returns the answer to a request with headers.
func ask(t *testing.T, method, url string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	res, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// The host and scheme that a trusted proxy names are the node's own origin.
func TestOwnOriginBehindAProxy(t *testing.T) {
	for _, test := range []struct {
		proxies, header string
		sent            []string
		status          int
	}{
		{"127.0.0.1", "", []string{"X-Forwarded-Host", "app.example", "X-Forwarded-Proto", "https"}, 200},
		{"127.0.0.1", "", []string{"X-Forwarded-Host", "app.example:443", "X-Forwarded-Proto", "https"}, 200},
		{"127.0.0.1", "", []string{"X-Forwarded-Host", "app.example", "X-Forwarded-Proto", "http"}, 403},
		{"127.0.0.1", "Forwarded", []string{"Forwarded", "for=192.0.2.1;host=app.example;proto=https"}, 200},
		{"127.0.0.1", "Forwarded", []string{"X-Forwarded-Host", "app.example"}, 403},
		{"10.0.0.1", "", []string{"X-Forwarded-Host", "app.example", "X-Forwarded-Proto", "https"}, 403},
		{"", "", []string{"X-Forwarded-Host", "app.example", "X-Forwarded-Proto", "https"}, 403},
	} {
		env := map[string]string{"REJOIN_TRUSTED_PROXIES": test.proxies, "REJOIN_ORIGINS": "https://other.example"}
		if test.header != "" {
			env["REJOIN_CLIENT_IP_HEADER"] = test.header
		}
		at, stop := startNode(t, env)
		res := ask(t, "GET", "http://"+at.Addr+"/socket.io/?EIO=4&transport=polling", append(test.sent, "Origin", "https://app.example")...)
		if res.StatusCode != test.status {
			t.Errorf("proxies %q, %q: %s, want %d", test.proxies, test.sent, res.Status, test.status)
		}
		stop()
	}
}
