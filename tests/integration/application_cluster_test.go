package integration

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// TestApplicationOverTheCluster: requests to the built-in application cover all
// nodes.
func TestApplicationOverTheCluster(t *testing.T) {
	t.Parallel()
	a, b, cluster := startPair(t)
	d := startDriver(t)
	var clients []*npmSocket
	for name, srv := range map[string]*httptest.Server{"here": httptest.NewServer(a), "there": httptest.NewServer(b)} {
		defer srv.Close()
		clients = append(clients, d.open(name, newest, srv.URL, transports["websocket"]))
	}
	defer closeServer(t, a)
	defer closeServer(t, b)
	var ids []string
	for _, s := range clients {
		s.call("join", "x")
		ids = append(ids, s.state().ID)
	}
	members := func(s *npmSocket, partial bool) {
		t.Helper()
		r := s.call("members", "x")
		var got []string
		for _, m := range r.Members {
			got = append(got, m.ID)
		}
		slices.Sort(got)
		if want := slices.Sorted(slices.Values(ids)); !slices.Equal(got, want) || r.Partial != partial {
			t.Errorf("%s sees %q, want %q; partial %v, want %v", s.name, got, want, r.Partial, partial)
		}
	}
	var offsets []string
	for i, s := range clients {
		other := clients[1-i]
		members(s, false)
		s.call("private", ids[1-i], "psst", i, bytesArg("c0ffee"))
		other.hears("psst", fmt.Sprint(i), `{"$bytes":"c0ffee"}`)
		offsets = append(offsets, s.call("to", "x", "news", i).Offset)
		other.hears("news", fmt.Sprint(i))
	}
	for _, s := range clients {
		past := s.call("history", "x")
		if len(past.Events) != 2 || past.Events[0].Offset != offsets[0] || past.Events[1].Offset != offsets[1] || past.More {
			t.Errorf("%s reads %+v, want the offsets %q", s.name, past, offsets)
		}
	}

	// A subscribed node that does not answer makes the list partial.
	silent, err := cluster.Node("mute")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := silent.Subscribe(t.Context(), rooms.InNamed("/", "x")); err != nil {
		t.Fatal(err)
	}
	members(clients[0], true)
}

// TestMembersOfANodeThatIsCutOff: while a node cannot receive queries, the list of
// a room's members is marked as partial, and arrives without delay.
func TestMembersOfANodeThatIsCutOff(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	d := startDriver(t)
	ann := d.open("ann", newest, c.nodes[0].url(), transports["websocket"])
	bob := d.open("bob", newest, c.nodes[1].url(), transports["websocket"])
	ann.call("join", "x")
	bob.call("join", "x")
	members := func(count int, partial bool) {
		t.Helper()
		eventually(t, "the members are not as they should be", func() error {
			asked := time.Now()
			r := ann.call("members", "x")
			if took := time.Since(asked); took > 4*time.Second {
				t.Errorf("a silent node was waited for: %v", took)
			}
			if len(r.Members) != count || r.Partial != partial {
				return fmt.Errorf("%d, partial %v", len(r.Members), r.Partial)
			}
			return nil
		})
	}
	members(2, false)
	c.nodes[1].feed.cutSubscribers()
	members(1, true)
	c.nodes[1].feed.mendSubscribers()
	members(2, false)
}
