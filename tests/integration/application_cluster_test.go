package integration

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// TestApplicationOverTheCluster: what a client asks of the built-in application it
// asks of all nodes.
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

	// A node that hears the room and does not answer makes the list a partial one.
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
