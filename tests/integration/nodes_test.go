package integration

import (
	"fmt"
	"slices"
	"testing"
)

// TestTwoNodes: stock clients on two nodes are in the same rooms, and a client
// whose node is killed continues at the other one.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	forVersions(t, func(t *testing.T, version string) {
		c := startCluster(t, 2)
		a, b := c.nodes[0], c.nodes[1]
		d := startDriver(t)
		ann := d.open("ann", version, a.url(), nil)
		bob := d.open("bob", version, b.url(), nil)
		eve := d.open("eve", version, b.url(), nil)
		ann.call("join", []string{"x", "y"})
		bob.call("join", []string{"x", "y"})

		ann.call("to", "x", "from a", 1)
		bob.hears("from a", "1")
		bob.call("to", []string{"x", "y"}, "from b, once", bytesArg("00ff"))
		ann.hears("from b, once", `{"$bytes":"00ff"}`)
		eve.call("all", "everyone")
		ann.call("broadcast", "all but ann")
		ann.call("private", eve.state().ID, "psst")
		for _, s := range []*npmSocket{ann, bob, eve} {
			s.hears("everyone")
		}
		for _, s := range []*npmSocket{bob, eve} {
			s.hears("all but ann")
		}
		eve.hears("psst")

		var got []string
		r := ann.call("members", "x")
		for _, m := range r.Members {
			got = append(got, m.ID)
		}
		want := []string{ann.state().ID, bob.state().ID}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || r.Partial {
			t.Errorf("members %q, want %q, partial %v", got, want, r.Partial)
		}
		if past := bob.call("history", "x").Events; len(past) != 2 || past[0].Event != "from a" {
			t.Errorf("history %+v", past)
		}
		bob.call("leave", "x")
		ann.call("to", "x", "bob has left")
		ann.call("to", "y", "bob is here")
		bob.hears("bob is here")
		for _, s := range []*npmSocket{ann, bob, eve} {
			s.call("self", "settled")
			s.hears("settled")
		}
	})
}

// TestNodeKilled: clients of a killed node reconnect to another one, as the same
// sockets in the same rooms, and get the missed events.
func TestNodeKilled(t *testing.T) {
	t.Parallel()
	for name, options := range transports {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, 2, "REJOIN_LOG_LEVEL=debug")
			front := startBalancer(t, c)
			d := startDriver(t)
			others := d.open("others", newest, c.nodes[0].url(), transports["websocket"])
			var victim *npmSocket
			for i := 0; victim == nil; i++ { // the balancer decides which client is on which node
				s := d.open(fmt.Sprint("s", i), newest, front.URL, options)
				if name == "upgrade" {
					s.awaitUpgrade()
				}
				if c.owner(s.state().Engine) == "b" {
					victim = s
				}
			}
			before := victim.state()
			victim.call("join", "lobby")
			others.call("to", "lobby", "first")
			victim.hears("first")
			for range 3 {
				from, to := c.nodes[1], c.nodes[0]
				if c.owner(victim.state().Engine) == "a" {
					from, to = to, from
				}
				speaker := d.open(fmt.Sprint("speaker on ", to.name, from.id.Load()), newest, to.url(), transports["websocket"])
				from.kill()
				for i := range 10 {
					speaker.call("to", "lobby", "missed", i)
				}
				victim.await("disconnect")
				if now := victim.await("connect"); !now.Recovered || now.ID != before.ID || c.owner(now.Engine) != to.name {
					t.Errorf("not recovered: %+v, before %+v", now.state, before)
				}
				for i := range 10 {
					victim.hears("missed", fmt.Sprint(i))
				}
				from.restart()
				speaker.call("to", "lobby", "live")
				victim.hears("live")
				victim.call("self", "settled")
				victim.hears("settled")
			}
		})
	}
}
