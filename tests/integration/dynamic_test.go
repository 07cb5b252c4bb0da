package integration

import (
	"fmt"
	"testing"
)

// TestNamespacePattern: clients and backends use namespaces that match a pattern, on all nodes, with
// the same checks as in any other. One that a backend names leaves nothing behind.
func TestNamespacePattern(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, authenticated, withAPI, "REJOIN_NAMESPACES=/chat,/team-*")
	d := startDriver(t)
	token := func(user string) map[string]any {
		return with(tokenFor(t, user, longLived, `"can":{"join":["*"],"all":true}`))
	}
	ann := d.open("ann", newest, c.nodes[0].url()+"/team-7", token("ann"))
	bob := d.open("bob", newest, c.nodes[1].url()+"/team-7", token("bob"))
	other := d.open("other", newest, c.nodes[1].url()+"/team-8", token("eve"))
	for name, tt := range map[string]struct {
		namespace string
		options   map[string]any
		code      string
	}{
		"without a token":    {"/team-7", nil, "token_missing"},
		"in a new one":       {"/team-9", nil, "token_missing"},
		"not of the pattern": {"/team-7/x", token("ann"), ""},
		"main":               {"/", token("ann"), ""},
	} {
		s := d.opening(name, newest, c.nodes[0].url()+tt.namespace, tt.options)
		if r := s.await("connect_error"); tt.code == "" && r.Reason != "Invalid namespace" || tt.code != "" && r.Reason == "Invalid namespace" {
			t.Errorf("%s: refused with %v", name, r)
		}
	}
	ann.call("join", "room")
	ann.call("all", "by ann")
	ann.hears("by ann")
	bob.hears("by ann")
	if code := bob.try("to", "room", "x").Code; code != "forbidden" {
		t.Errorf("to: %s", code)
	}

	backend := c.nodes[1].backend()
	before := c.nodes[1].metrics()["rejoin_namespaces"]
	backend.post("emit", `{"namespace":"/team-7","rooms":["room"],"event":"to the room"}`)
	ann.hears("to the room")
	backend.post("join", `{"namespace":"/team-7","users":["bob"],"join":["room"]}`)
	c.nodes[1].eventually("both are members", func() error {
		if got := backend.get("members?namespace=/team-7&room=room").Members; len(got) != 2 {
			return fmt.Errorf("members %v", got)
		}
		return nil
	})
	for i := range 20 {
		backend.post("emit", fmt.Sprintf(`{"namespace":"/team-none%d","everyone":true,"event":"x"}`, i))
	}
	if after := c.nodes[1].metrics()["rejoin_namespaces"]; after != before {
		t.Errorf("%v namespaces, want %v", after, before)
	}
	for _, name := range []string{"/", "/team-7/x", "/Team-7"} {
		if got := backend.do(apiCall{method: "POST", path: "emit", body: fmt.Sprintf(`{"namespace":%q,"everyone":true,"event":"x"}`, name)}); got.Code != "unknown_namespace" {
			t.Errorf("emit to %s: %d %s", name, got.status, got.text)
		}
	}
	other.call("all", "last")
	other.hears("last")
}

// TestDynamicNamespaces: beyond the limit a stock client retries, until a namespace becomes empty.
// Clients without a valid token take no place.
func TestDynamicNamespaces(t *testing.T) {
	t.Parallel()
	n := startNode(t, authenticated, "REJOIN_NAMESPACES=/team-*", "REJOIN_DYNAMIC_NAMESPACES=2")
	d := startDriver(t)
	token := with(tokenFor(t, "ann", longLived, `"can":{"all":true}`))
	for i := range 3 {
		name := fmt.Sprintf("/team-refused%d", i)
		if code := d.opening(name, newest, n.url()+name, nil).refused(); code != "token_missing" {
			t.Errorf("refused with %q", code)
		}
	}
	first := d.open("first", newest, n.url()+"/team-1", token)
	second := d.open("second", newest, n.url()+"/team-2", token)
	d.open("again", newest, n.url()+"/team-1", token)
	late := d.opening("late", newest, n.url()+"/team-3", token)
	n.eventually("the limit is counted", func() error {
		if got := n.metrics()[`rejoin_limited_total{limit="dynamic_namespaces"}`]; got < 2 { // it has retried
			return fmt.Errorf("%v are counted", got)
		}
		return nil
	})
	first.call("all", "x")
	second.must("disconnect", nil)
	late.await("connect")
	late.call("all", "x")
	late.hears("x")
}
