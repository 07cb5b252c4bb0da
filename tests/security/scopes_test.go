package security

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// TestScopes: a backend with a scope can do nothing beyond it, whatever a call looks like, and does
// not get what others have read.
func TestScopes(t *testing.T) {
	t.Parallel()
	const limited = "key-of-a-caller-with-a-scope"
	tr := arm(t, 1, "REJOIN_API_KEYS="+apiKey, "REJOIN_NAMESPACES=/,/vip-*",
		`REJOIN_API_CALLERS={"orders":{"keys":["`+limited+`"],"calls":["emit","batch","join","sockets","history"],"namespaces":["/"],"rooms":["order:*"]}}`)
	tr.keep("the key of a caller", limited)
	n := tr.nodes[0]
	ann := tr.enter(n, nil)
	ann.must("join", []string{"vip", "ORDER:1", "order:a/b"})
	call := func(key, method, path, body string, headers ...string) (int, string) {
		status, answer := send(t, method, "http://"+n.Internal+path, body, append(headers, "X-API-Key", key, "Content-Type", "application/json")...)
		return status, tr.hear(answer)
	}

	for _, body := range []string{
		`"everyone":true`, `"rooms":["vip"]`, `"rooms":["order:1","vip"]`, `"rooms":["\u0076ip"]`, `"rooms":["ORDER:1"]`, `"rooms":["order:a/b"]`,
		`"rooms":["order:*","*"]`, `"rooms":["xorder:1"]`, `"users":["ann"]`, `"rooms":["order:1"],"users":["ann"]`, fmt.Sprintf(`"sockets":[%q]`, ann.sid),
		fmt.Sprintf(`"rooms":["order:1"],"sockets":[%q]`, ann.sid), `"rooms":["order:1"],"namespace":"/vip-1"`, `"everyone":true,"namespace":"/vip-1"`,
		`"rooms":["order:1"],"rooms":["vip"]`, `"rooms":["order:1"],"Rooms":["vip"]`,
	} {
		if status, answer := call(limited, "POST", "/api/v1/emit", `{"event":"stolen",`+body+`}`); status != http.StatusForbidden && status != http.StatusBadRequest {
			t.Errorf("emit to %s: %d %s", body, status, answer)
		}
		if status, answer := call(limited, "POST", "/api/v1/batch", `{"emits":[{"event":"stolen",`+body+`}]}`); status != http.StatusOK || strings.Contains(answer, `"offset"`) {
			t.Errorf("batch to %s: %d %s", body, status, answer)
		}
		if status, answer := call(limited, "POST", "/api/v1/join", `{"join":["order:1"],`+body+`}`); status != http.StatusForbidden && status != http.StatusBadRequest {
			t.Errorf("join of %s: %d %s", body, status, answer)
		}
	}
	for path, method := range map[string]string{
		"/api/v1/ask": "POST", "/api/v1/leave": "POST", "/api/v1/disconnect": "POST", "/api/v1/rooms": "GET", "/api/v1/members?room=order:1": "GET",
		"/api/v1/sockets": "GET", "/api/v1/sockets?room=vip": "GET", "/api/v1/sockets?room=order:1&room=vip": "GET", "/api/v1/sockets?user=ann": "GET",
		"/api/v1/history?room=vip": "GET", "/api/v1/history?room=order:1&namespace=/vip-1": "GET", "/debug/pprof/": "GET", "/debug/pprof/heap": "GET",
	} {
		if status, answer := call(limited, method, path, `{"rooms":["order:1"]}`); status != http.StatusForbidden || !strings.Contains(answer, "missing_scope") {
			t.Errorf("%s %s: %d %.200s", method, path, status, answer)
		}
	}

	// The key of a call by another one, in the same words.
	const body = `{"rooms":["vip"],"event":"for vip"}`
	if status, answer := call(apiKey, "POST", "/api/v1/emit", body, "Idempotency-Key", "k1"); status != http.StatusOK {
		t.Fatalf("%d %s", status, answer)
	}
	for _, key := range []string{"k1", "orders k1", " k1"} {
		if status, answer := call(limited, "POST", "/api/v1/emit", body, "Idempotency-Key", key); status < 400 {
			t.Errorf("with the Idempotency-Key %q of another caller: %d %s", key, status, answer)
		}
	}
	ann.must("self", "end")
	if events := ann.hears(); fmt.Sprint(events) != "[for vip end]" {
		t.Errorf("ann got %q", events)
	}
}

// TestMappedClaims: a validly signed token gives nothing by claims that only look like the mapped ones.
func TestMappedClaims(t *testing.T) {
	t.Parallel()
	tr := arm(t, 1, "REJOIN_JWT_SECRET="+jwtSecret, "REJOIN_CLAIM_USER=uid", "REJOIN_CLAIM_ROOMS=groups=/teams/{} as team:{}",
		`REJOIN_CLAIM_CAN={"realm_access.roles=admin":{"all":true},"scope=send":{"to":["*"]},"org":{"join":["org:{}:*"]}}`)
	n := tr.nodes[0]
	token := func(claims object) string {
		return forge(object{"alg": "HS256"}, with(object{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}, claims), hs256(jwtSecret))
	}
	for name, claims := range map[string]object{
		"no user":              {},
		"another case":         {"UID": "ann", "Uid": "ann"},
		"a list":               {"uid": []string{"ann"}},
		"a flag":               {"uid": true},
		"an object":            {"uid": object{"id": "ann"}},
		"groups of objects":    {"uid": "mallory", "groups": []object{{"/teams/7": true}}},
		"groups as an object":  {"uid": "mallory", "groups": object{"/teams/7": true}},
		"roles as an object":   {"uid": "mallory", "realm_access": object{"roles": object{"admin": true}}},
		"too many rooms":       {"uid": "mallory", "groups": strings.Fields(strings.Repeat("/teams/7 ", 1001))},
		"a user that is empty": {"uid": ""},
	} {
		if c := tr.enter(n, show(token(claims))); c.code != "token_invalid" {
			t.Errorf("%s: code %q", name, c.code)
		}
	}
	for name, claims := range map[string]object{
		"in another case":   {"Groups": []string{"/teams/7"}, "realm_access": object{"Roles": []string{"admin"}}, "SCOPE": "send", "Org": "7"},
		"values in another": {"groups": []string{"/TEAMS/7", "teams/7", "x/teams/7"}, "realm_access": object{"roles": []string{"Admin", "admins", " admin"}}, "scope": "Send sender", "org": nil},
		"in another place":  {"realm_access.roles": []string{"admin"}, "roles": []string{"admin"}, "rejoin.rooms": []string{"team:7"}, "org.": "7"},
		"as words":          {"realm_access": object{"roles": "user admin"}, "groups": "/x /teams/7", "scope": "send,other"},
		"as patterns":       {"org": []string{"*", "?", "[7]", `\7`, "7*", "*:*", "7:x:../7"}, "scope": "*"},
	} {
		mallory := tr.enter(n, show(token(with(claims, object{"uid": "mallory"}))))
		if mallory.code != "" {
			t.Errorf("%s: refused with %q", name, mallory.code)
			continue
		}
		for _, event := range [][]any{{"join", "org:7:news"}, {"join", "org:8:news"}, {"join", "team:7"}, {"all", "got you"}, {"to", "r", "got you"}, {"join", "user:ann"}} {
			if code := mallory.ask(event...); code != "forbidden" {
				t.Errorf("%s: %q: %q", name, event, code)
			}
		}
		mallory.leave()
	}
	good := tr.enter(n, show(token(object{"uid": "bob", "groups": []string{"/teams/7"}, "realm_access": object{"roles": []string{"admin"}}, "scope": "openid send", "org": 7})))
	for _, event := range [][]any{{"join", "org:7:news"}, {"all", "x"}, {"to", "r", "x"}} {
		good.must(event...)
	}
}

// TestInventedNamespaces: clients cannot make a node keep namespaces, with or without a token.
func TestInventedNamespaces(t *testing.T) {
	t.Parallel()
	tr := arm(t, 1, "REJOIN_JWT_SECRET="+jwtSecret, "REJOIN_NAMESPACES=/,/team-*", "REJOIN_DYNAMIC_NAMESPACES=3", "REJOIN_NAMESPACES_PER_CONNECTION=100")
	n := tr.nodes[0]
	before := n.Metrics()["rejoin_namespaces"]
	payload := fmt.Sprintf(`{"token":%q}`, tokenFor("ann", nil))
	mallory := connectWith(t, n, payload)
	for i := range 50 {
		write(t, mallory, fmt.Sprintf(`40/team-%d,{"token":"x"}`, i))
	}
	mallory.Close()
	ann := connectWith(t, n, payload)
	for i := range 10 {
		write(t, ann, fmt.Sprintf(`40/team-%d,%s`, i, payload))
	}
	nodetest.Eventually(t, "the limit is counted", func() error {
		if got := n.Metrics()[`rejoin_limited_total{limit="dynamic_namespaces"}`]; got == 0 {
			return fmt.Errorf("%v are counted", got)
		}
		return nil
	})
	if got := n.Metrics()["rejoin_namespaces"] - before; got > 3+10 {
		t.Errorf("%v namespaces are kept", got)
	}
	ann.Close()
	nodetest.Eventually(t, "namespaces without clients are dropped", func() error {
		if got := n.Metrics()["rejoin_namespaces"]; got != before {
			return fmt.Errorf("%v namespaces, want %v", got, before)
		}
		return nil
	})
}
