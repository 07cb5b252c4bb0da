package security

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// The keys that nodes derive from the cluster secret.
var (
	forwardingKey = derive("rejoin forwarded requests")
	offsetKey     = derive("rejoin offsets")
)

func derive(purpose string) string {
	key, err := hkdf.Key(sha256.New, []byte(clusterSecret), nil, purpose, sha256.Size)
	if err != nil {
		panic(err)
	}
	return string(key)
}

// A passage is what one node says that it passes on to another one.
type passage struct {
	secret           string
	method, uri      string
	from, to, client string
	at               time.Time
}

// headers signs it as a node does.
func (p passage) headers() []string {
	at := fmt.Sprint(p.at.UnixMilli())
	m := hmac.New(sha256.New, []byte(p.secret))
	for _, part := range []string{"rejoin forward 1", p.method, p.uri, p.from, p.to, p.client, at} {
		fmt.Fprintln(m, part)
	}
	return []string{
		"X-Rejoin-From", p.from, "X-Rejoin-To", p.to, "X-Rejoin-Client", p.client, "X-Rejoin-Time", at,
		"X-Rejoin-Signature", hex.EncodeToString(m.Sum(nil)),
	}
}

// TestForgedForwarding: a node serves what another node has signed, for it, just
// now and as it is; nothing else, and none of it at the public port.
func TestForgedForwarding(t *testing.T) {
	t.Parallel()
	tr := arm(t, 2)
	a, b := tr.nodes[0], tr.nodes[1]
	sid := open(t, b)
	uri := "/internal/forward/socket.io/?EIO=4&transport=polling&sid=" + sid
	good := passage{forwardingKey, "POST", uri, a.Log.ID, b.Log.ID, "10.0.0.1:1", time.Now()}
	but := func(change func(*passage)) passage {
		p := good
		change(&p)
		return p
	}
	if status, answer := send(t, "POST", "http://"+b.Internal+uri, "40", good.headers()...); status != http.StatusOK {
		t.Fatalf("what is signed well is answered %d %s", status, answer)
	}
	for name, attack := range map[string]struct {
		node    string // address
		method  string
		uri     string
		headers []string
		want    string
	}{
		"unsigned":           {headers: []string{"X-Rejoin-From", a.Log.ID, "X-Rejoin-To", b.Log.ID}, want: "unsigned"},
		"an empty signature": {headers: append(good.headers(), "X-Rejoin-Signature", ""), want: "unsigned"},
		"not hexadecimal":    {headers: append(good.headers(), "X-Rejoin-Signature", "zz"), want: "forged"},
		"zeros":              {headers: append(good.headers(), "X-Rejoin-Signature", strings.Repeat("0", 64)), want: "forged"},
		"another secret":     {headers: but(func(p *passage) { p.secret = "cluster-secret of others" }).headers(), want: "forged"},
		"the secret itself":  {headers: but(func(p *passage) { p.secret = clusterSecret }).headers(), want: "forged"},
		"the key of offsets": {headers: but(func(p *passage) { p.secret = offsetKey }).headers(), want: "forged"},
		"an empty secret":    {headers: but(func(p *passage) { p.secret = "" }).headers(), want: "forged"},
		"stale":              {headers: but(func(p *passage) { p.at = p.at.Add(-time.Minute) }).headers(), want: "stale"},
		"of the future":      {headers: but(func(p *passage) { p.at = p.at.Add(time.Minute) }).headers(), want: "stale"},
		"dated anew":         {headers: append(good.headers(), "X-Rejoin-Time", fmt.Sprint(time.Now().UnixMilli()+1)), want: "forged"},
		"at another node":    {node: a.Internal, headers: good.headers(), want: "misdirected"},
		"addressed anew":     {node: a.Internal, headers: append(good.headers(), "X-Rejoin-To", a.Log.ID), want: "forged"},
		"as another client":  {headers: append(good.headers(), "X-Rejoin-Client", "127.0.0.1:1"), want: "forged"},
		"another method":     {method: "GET", headers: good.headers(), want: "forged"},
		"another session":    {uri: uri + "x", headers: good.headers(), want: "forged"},
		"another path":       {uri: "/internal/leave", headers: good.headers(), want: "forged"},
		"leaving, unsigned":  {uri: "/internal/leave?sid=" + sid, want: "unsigned"},
	} {
		t.Run(name, func(t *testing.T) {
			if attack.node == "" {
				attack.node = b.Internal
			}
			if attack.method == "" {
				attack.method = "POST"
			}
			if attack.uri == "" {
				attack.uri = uri
			}
			status, answer := send(t, attack.method, "http://"+attack.node+attack.uri, "42[\"all\",\"x\"]", attack.headers...)
			if tr.hear(answer); status != http.StatusForbidden || !strings.Contains(answer, fmt.Sprintf(`{"code":%q`, attack.want)) {
				t.Errorf("%d %s", status, answer)
			}
		})
	}
}

// TestCredentialsAtThePublicPort: what the internal port asks for opens nothing at
// the public one, however a path is written.
func TestCredentialsAtThePublicPort(t *testing.T) {
	t.Parallel()
	tr := arm(t, 2, "REJOIN_API_KEYS="+apiKey)
	n := tr.nodes[0]
	forward := "/internal/forward/socket.io/?EIO=4&transport=polling"
	signature := passage{forwardingKey, "GET", forward, tr.nodes[1].Log.ID, n.Log.ID, "10.0.0.1:1", time.Now()}.headers()
	headers := "X-API-Key: " + apiKey + "\r\nAuthorization: Bearer " + apiKey + "\r\nConnection: close\r\n" +
		"X-Original-URL: /metrics\r\nX-Rewrite-URL: /metrics\r\nX-Forwarded-Host: " + n.Internal + "\r\nX-Forwarded-Prefix: /api\r\n"
	for i := 0; i < len(signature); i += 2 {
		headers += signature[i] + ": " + signature[i+1] + "\r\n"
	}
	for _, target := range []string{
		forward, "/api/v1/sockets", "/api/v1/openapi.yaml", "/debug/pprof/", "/debug/pprof/cmdline", "/metrics", "/readyz", "/healthz",
		"//metrics", "/./metrics", "/x/../metrics", "/%6detrics", "/%2e%2e/metrics", "/..%2fmetrics", "/metrics/", "/metrics%00", "/METRICS",
		"/socket.io/../metrics", "/socket.io/..%2fmetrics", "/socket.io/%2e%2e/metrics", "/socket.io/metrics", "/demo/../api/v1/sockets",
		"/demo/%2e%2e%2fmetrics", "/api%2fv1%2fsockets", "/api//v1/sockets", "/;/metrics", "/metrics;x", `/\metrics`, "/socket.io/?/metrics",
		"http://" + n.Internal + "/metrics", "http://" + n.Internal + "/api/v1/sockets", "*", n.Internal,
	} {
		for _, host := range []string{n.Addr, n.Internal, "localhost"} {
			method := "GET"
			if target == n.Internal {
				method = "CONNECT"
			}
			c := dial(t, n, method+" "+target+" HTTP/1.1\r\nHost: "+host+"\r\n"+headers+"\r\n")
			answer := tr.hear(closed(t, c, nodetest.Patience))
			for _, inside := range []string{"HTTP/1.1 200", "HTTP/1.1 101", "rejoin_", "goroutine", `"checks"`, "openapi: ", `"sockets"`} {
				if strings.Contains(answer, inside) {
					t.Errorf("%s (Host: %s): %.200q", target, host, answer)
				}
			}
		}
	}
}

// TestAPIKeys: the internal port's API and profiles require one of its keys, in
// a header; without keys they are closed.
func TestAPIKeys(t *testing.T) {
	t.Parallel()
	tr := arm(t, 1, "REJOIN_API_KEYS="+apiKey+", "+otherAPIKey)
	none := arm(t, 1)
	paths := map[string]string{
		"/api/v1/sockets": "GET", "/api/v1/rooms": "GET", "/api/v1/members?room=r": "GET", "/api/v1/history?room=r": "GET", "/api/v1/nothing": "GET",
		"/api/v1/emit": "POST", "/api/v1/batch": "POST", "/api/v1/ask": "POST", "/api/v1/join": "POST", "/api/v1/leave": "POST",
		"/api/v1/disconnect": "POST", "/api/v1/": "DELETE", "/debug/pprof/": "GET", "/debug/pprof/cmdline": "GET", "/debug/pprof/heap": "GET",
		"/debug/pprof/profile?seconds=1": "GET", "/debug/pprof/symbol": "POST", "/debug/pprof/trace": "GET",
	}
	attacks := map[string][]string{
		"none":            nil,
		"an empty one":    {"X-API-Key", ""},
		"no bearer":       {"Authorization", "Bearer "},
		"a wrong one":     {"X-API-Key", "wrong-key-of-the-tests-long-enough"},
		"the beginning":   {"X-API-Key", apiKey[:len(apiKey)-1]},
		"more than it":    {"Authorization", "Bearer " + apiKey + "x"},
		"in capitals":     {"X-API-Key", strings.ToUpper(apiKey)},
		"all of them":     {"X-API-Key", apiKey + "," + otherAPIKey},
		"the list's":      {"X-API-Key", apiKey + ", " + otherAPIKey},
		"another scheme":  {"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+apiKey))},
		"without one":     {"Authorization", apiKey},
		"in a cookie":     {"Cookie", "key=" + apiKey},
		"a large one":     {"X-API-Key", strings.Repeat("k", 10_000)},
		"a token":         {"Authorization", "Bearer " + tokenFor("root", object{"all": true})},
		"another's":       {"X-API-Key", clusterSecret},
		"forwarded":       {"X-Forwarded-For", "127.0.0.1", "X-Rejoin-From", "aaaa"},
		"another header":  {"Api-Key", apiKey, "X-Auth-Token", apiKey, "Proxy-Authorization", "Bearer " + apiKey},
		"a pattern":       {"X-API-Key", "*"},
		"one of ours, no": {"X-Api-Key-2", apiKey},
	}
	for path, method := range paths {
		for name, headers := range attacks {
			for node, want := range map[*trap]int{tr: http.StatusUnauthorized, none: http.StatusForbidden} {
				status, answer := send(t, method, "http://"+node.nodes[0].Internal+path, "{}", headers...)
				if tr.hear(answer); status != want || !strings.Contains(answer, `"code"`) {
					t.Errorf("%s %s with %s: %d %.200q", method, path, name, status, answer)
				}
			}
		}
		for _, query := range []string{"key", "api_key", "apikey", "x-api-key", "access_token", "authorization"} {
			u, _, _ := strings.Cut(path, "?")
			status, answer := send(t, method, "http://"+tr.nodes[0].Internal+u+"?room=r&"+query+"="+url.QueryEscape(apiKey), "{}")
			if tr.hear(answer); status != http.StatusUnauthorized {
				t.Errorf("%s %s with a key in the query: %d %.200q", method, path, status, answer)
			}
		}
	}
	for _, key := range []string{apiKey, otherAPIKey} {
		if status, answer := get(t, "http://"+tr.nodes[0].Internal+"/api/v1/sockets", "X-API-Key", key); status != http.StatusOK {
			t.Errorf("a good key: %d %s", status, answer)
		}
	}
}

// TestSecretsAreNotPrinted: a node does not print its secrets, neither at start, nor with
// an invalid configuration, nor when it fails.
func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	const password = "redis-password-of-the-tests"
	secrets := []string{jwtSecret, clusterSecret, apiKey, otherAPIKey, password}
	redis := redistest.Start(t, "user rejoin on >"+password+" ~* &* +@all")
	variables := []string{
		"REJOIN_ADDR=127.0.0.1:0", "REJOIN_INTERNAL_ADDR=127.0.0.1:0", "REJOIN_JWT_SECRET=" + jwtSecret, "REJOIN_CLUSTER_SECRET=" + clusterSecret,
		"REJOIN_API_KEYS=" + apiKey + "," + otherAPIKey, "REJOIN_REDIS_URL=redis://rejoin:" + password + "@" + redis.Addr,
	}
	for name, run := range map[string]struct {
		args []string
		more []string
	}{
		"help":        {args: []string{"-h"}},
		"a bad value": {more: []string{"REJOIN_LOG_LEVEL=loud"}},
		"a bad key":   {more: []string{"REJOIN_API_KEYS=" + apiKey + "," + apiKey}},
		"a bad URL":   {more: []string{"REJOIN_REDIS_URL=redis://user:" + password + "@:x/y"}},
		"two of it":   {more: []string{"REJOIN_JWT_SECRET_FILE=/dev/null"}},
		"short":       {more: []string{"REJOIN_JWT_SECRET=short-secret"}},
	} {
		cmd := nodetest.Command(binary, append(variables, run.more...)...)
		cmd.Args = append(cmd.Args, run.args...)
		out, err := cmd.CombinedOutput()
		if (err == nil) != (run.args != nil) || len(out) == 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		for _, secret := range append(secrets, "short-secret") {
			if strings.Contains(string(out), secret) {
				t.Errorf("%s: %q is shown\n%s", name, secret, out)
			}
		}
	}
	n := start(t, variables[2:]...)
	redis.Kill()
	var said string
	nodetest.Eventually(t, "the node does not say that it lacks Redis", func() error {
		status, ready := get(t, "http://"+n.Internal+"/readyz")
		_, metrics := get(t, "http://"+n.Internal+"/metrics")
		if said += ready + metrics; status != http.StatusServiceUnavailable || !n.Log.Contains("connection refused") {
			return fmt.Errorf("%d %s", status, ready)
		}
		return nil
	})
	for _, secret := range secrets {
		if strings.Contains(said, secret) || n.Log.Contains(secret) {
			t.Errorf("%q is shown", secret)
		}
	}
}
