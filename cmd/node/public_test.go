package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/redistest"
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

// The host and scheme from a trusted proxy are the node's own origin.
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

const handshake = "/socket.io/?EIO=4&transport=polling"

// Browsers show a refusal only if it has CORS headers: while the node starts, and
// while it is not ready.
func TestUnreadyAnswersHaveCORSHeaders(t *testing.T) {
	const page = "https://app.example"
	readable := func(res *http.Response) bool {
		return res.Header.Get("Access-Control-Allow-Origin") == page && res.Header.Get("Access-Control-Allow-Credentials") == "true"
	}

	redis := redistest.Start(t)
	at, stop := startNode(t, map[string]string{
		"REJOIN_REDIS_URL": "redis://" + redis.Addr, "REJOIN_CLUSTER_SECRET": "that of the test's cluster", "REJOIN_ORIGINS": page,
	})
	if res := ask(t, "GET", "http://"+at.Addr+handshake, "Origin", page); res.StatusCode != 200 || !readable(res) {
		t.Errorf("ready: %s, %v", res.Status, res.Header)
	}
	redis.Kill()
	for ask(t, "GET", "http://"+at.Internal+"/readyz").StatusCode == 200 {
		time.Sleep(10 * time.Millisecond) // there is no event to wait for
	}
	if res := ask(t, "GET", "http://"+at.Addr+handshake, "Origin", page); res.StatusCode != 503 || !readable(res) || res.Header.Get("Retry-After") == "" {
		t.Errorf("not ready: %s, %v", res.Status, res.Header)
	}
	res := ask(t, "OPTIONS", "http://"+at.Addr+handshake, "Origin", page, "Access-Control-Request-Method", "POST")
	if res.StatusCode != 204 || !readable(res) {
		t.Errorf("preflight: %s, %v", res.Status, res.Header)
	}
	stop()

	// A node that waits for its cluster does not serve sockets yet.
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := port.Addr().String()
	port.Close()
	t.Setenv("REJOIN_ADDR", addr)
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int)
	go func() { code <- run(ctx, ctx, nil, nil, io.Discard, io.Discard) }() // ends with ctx
	for c, err := net.Dial("tcp", addr); ; c, err = net.Dial("tcp", addr) {
		if err == nil {
			c.Close()
			break
		}
		time.Sleep(10 * time.Millisecond) // there is no event to wait for
	}
	if res := ask(t, "GET", "http://"+addr+handshake, "Origin", page); res.StatusCode != 503 || !readable(res) {
		t.Errorf("starting: %s, %v", res.Status, res.Header)
	}
	cancel()
	<-code
}

// A node without authentication at a loopback address answers to the names of
// loopback: a page whose own name resolves there must not reach it.
func TestForeignHost(t *testing.T) {
	for name, test := range map[string]struct {
		environment map[string]string
		host        string
		want        int
	}{
		"rebound":                      {nil, "page.example:3000", 421},
		"rebound, without a port":      {nil, "page.example", 421},
		"a name that begins alike":     {nil, "localhost.page.example", 421},
		"a name that begins as an IP":  {nil, "127.0.0.1.page.example", 421},
		"no host":                      {nil, "", 421},
		"another address":              {nil, "192.0.2.1", 421},
		"localhost":                    {nil, "LOCALHOST:3000", 200},
		"a subdomain of localhost":     {nil, "app.localhost", 200},
		"IPv6":                         {nil, "[::1]:3000", 200},
		"another address of loopback":  {nil, "127.1.2.3", 200},
		"a listed host":                {map[string]string{"REJOIN_ORIGINS": "http://app.example:8080"}, "app.example:3000", 200},
		"one beside a listed host":     {map[string]string{"REJOIN_ORIGINS": "http://app.example:8080"}, "page.example", 421},
		"a listed subdomain":           {map[string]string{"REJOIN_ORIGINS": "https://*.app.example"}, "a.app.example", 200},
		"one that ends like a listed":  {map[string]string{"REJOIN_ORIGINS": "https://*.app.example"}, "aapp.example", 421},
		"all origins are allowed":      {map[string]string{"REJOIN_ORIGINS": "*"}, "page.example", 200},
		"anonymous clients are wanted": {map[string]string{"REJOIN_ALLOW_ANONYMOUS": "true"}, "page.example", 200},
		"behind a proxy":               {map[string]string{"REJOIN_TRUSTED_PROXIES": "127.0.0.1/32"}, "page.example", 200},
		"with authentication":          {map[string]string{"REJOIN_JWT_SECRET": "a secret that is long enough"}, "page.example", 200},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, test.environment)
			c, _ := load()
			n := &node{log: zap.NewNop(), limits: newLimits(c, zap.NewNop())}
			r := httptest.NewRequest("GET", handshake, nil)
			r.Host = test.host
			w := httptest.NewRecorder()
			n.newPublicServer(c, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).Handler.ServeHTTP(w, r)
			if w.Code != test.want {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, test.want)
			}
		})
	}
}

// Clients with addTrailingSlash: false are served, not redirected.
func TestNodeWithoutTrailingSlash(t *testing.T) {
	at, stop := startNode(t, nil)
	defer stop()
	if res := ask(t, "GET", "http://"+at.Addr+"/socket.io?EIO=4&transport=polling"); res.StatusCode != 200 {
		t.Errorf("handshake: %s", res.Status)
	}
	if res := ask(t, "OPTIONS", "http://"+at.Addr+handshake); res.StatusCode != 204 {
		t.Errorf("OPTIONS without a preflight's headers: %s", res.Status)
	}
}

// The health path of the public address is disabled unless it is configured.
func TestHealthPath(t *testing.T) {
	at, stop := startNode(t, map[string]string{"REJOIN_HEALTH_PATH": "/up"})
	if status, body := fetch(t, "http://"+at.Addr+"/up"); status != 200 || body != "ready\n" {
		t.Errorf(`got %d %q, want 200, "ready\n"`, status, body)
	}
	if status, _ := fetch(t, "http://"+at.Addr+"/up/"); status != 404 {
		t.Errorf("another path: %d, want 404", status)
	}
	stop()
	at, stop = startNode(t, map[string]string{"REJOIN_HEALTH_PATH": ""})
	if status, _ := fetch(t, "http://"+at.Addr+"/up"); status != 404 {
		t.Errorf("though off: %d, want 404", status)
	}
	stop()
}

// Idle connections outlive those of common balancers, whose longest is 600 seconds.
func TestKeepAlive(t *testing.T) {
	environment(t, nil)
	c, _ := load()
	n := &node{log: zap.NewNop(), limits: newLimits(c, zap.NewNop())}
	if d := n.newPublicServer(c, http.NotFoundHandler()).IdleTimeout; d <= 600*time.Second {
		t.Errorf("kept for %v, want more than %v", d, 600*time.Second)
	}
	environment(t, map[string]string{"REJOIN_KEEP_ALIVE": "90s"})
	if c, _ = load(); n.newPublicServer(c, http.NotFoundHandler()).IdleTimeout != 90*time.Second {
		t.Error("REJOIN_KEEP_ALIVE has no effect")
	}
}
