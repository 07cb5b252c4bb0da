package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// apiCallers are backends with names and scopes.
const apiCallers = `{
	"orders": {"keys": ["the-key-of-orders"], "calls": ["emit", "rooms", "sockets"], "rooms": ["order:*"]},
	"teams": {"keys": ["the-key-of-teams-"], "namespaces": ["/team-*"]}}`

// TestAPICallers: named callers reach the clients of their scope only, and logs and metrics name them.
// Keys of REJOIN_API_KEYS may do everything beside them.
func TestAPICallers(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "callers.json")
	if err := os.WriteFile(file, []byte(apiCallers), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, withAPI, "REJOIN_API_CALLERS_FILE="+file, "REJOIN_NAMESPACES=/,/team-*", "REJOIN_LOG_LEVEL=debug")
	d := startDriver(t)
	buyer, vip := d.open("buyer", newest, n.url(), nil), d.open("vip", newest, n.url(), nil)
	team := d.open("team", newest, n.url()+"/team-7", nil)
	buyer.call("join", []string{"order:1", "secret"})
	vip.call("join", []string{"vip"})

	as := func(key string) *backend { b := n.backend(); b.key = key; return b }
	orders, teams, all := as("the-key-of-orders"), as("the-key-of-teams-"), n.backend()
	missing := func(b *backend, method, path, body string) {
		t.Helper()
		if r := b.do(apiCall{method: method, path: path, body: body}); r.status != http.StatusForbidden || r.Code != "missing_scope" || r.MayHave {
			t.Errorf("%s %s: %d %s, want missing_scope", path, body, r.status, r.text)
		}
	}
	missing(orders, "POST", "emit", `{"everyone":true,"event":"no"}`)
	missing(orders, "POST", "emit", `{"rooms":["vip"],"event":"no"}`)
	missing(orders, "POST", "emit", fmt.Sprintf(`{"sockets":[%q],"event":"no"}`, vip.state().ID))
	missing(orders, "POST", "join", `{"rooms":["order:1"],"join":["order:2"]}`)
	missing(orders, "GET", "history?room=vip", "")
	missing(teams, "POST", "emit", `{"everyone":true,"event":"no"}`)
	orders.post("emit", `{"rooms":["order:1"],"event":"paid"}`)
	buyer.hears("paid")
	teams.post("emit", `{"namespace":"/team-7","everyone":true,"event":"hello"}`)
	team.hears("hello")
	all.post("emit", `{"everyone":true,"event":"to all"}`)
	for _, s := range []*npmSocket{buyer, vip} {
		s.hears("to all")
	}

	if got := orders.get("rooms").Rooms; len(got) != 1 || got[0].Name != "order:1" {
		t.Errorf("rooms %v, want order:1 only", got)
	}
	if got := orders.get("sockets?room=order:1").Sockets; len(got) != 1 || !slices.Equal(got[0].Rooms, []string{"order:1"}) {
		t.Errorf("sockets %v, want the buyer, in order:1 only", got)
	}
	if got := len(all.get("rooms").Rooms); got != 3 {
		t.Errorf("%d rooms without a scope, want 3", got)
	}

	samples := n.metrics()
	for caller, want := range map[string]float64{"orders": 1, "teams": 1, "unnamed": 1} {
		if got := sum(samples, "rejoin_api_requests_total", `route="emit"`, `status="200"`, `caller="`+caller+`"`); got != want {
			t.Errorf("%v emits of %s are counted, want %v", got, caller, want)
		}
	}
	if got := sum(samples, "rejoin_api_requests_total", `status="403"`, `caller="orders"`); got != 5 {
		t.Errorf("%v refusals of orders are counted, want 5", got)
	}
	if line, _ := json.Marshal("orders"); !n.log.Contains(`"caller":` + string(line)) {
		t.Error("the log does not name the caller")
	}
	for _, secret := range []string{"the-key-of-orders", "the-key-of-teams-", apiKey} {
		if n.log.Contains(secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
}
