package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

// TestPermissions: each event is answered according to the token, and only
// permitted ones are delivered.
func TestPermissions(t *testing.T) {
	t.Parallel()
	n := startNode(t, authenticated, `REJOIN_DEFAULT_CAN={"join":["default"]}`)
	d := startDriver(t)
	witness := d.open("witness", newest, n.url(), with(tokenFor(t, "witness", longLived, `"rooms":["r","s","default"]`)))
	id := witness.state().ID
	names := []string{"join", "to", "history", "members", "broadcast", "all", "private"}
	events := map[string][]any{
		"join": {"join", "r"}, "to": {"to", "r", "got"}, "history": {"history", "r"}, "members": {"members", "r"},
		"broadcast": {"broadcast", "got"}, "all": {"all", "got"}, "private": {"private", id, "got"},
	}
	heard := map[string]bool{"to": true, "broadcast": true, "all": true, "private": true}
	for name, test := range map[string]struct {
		can     string
		allowed []string
	}{
		"nothing": {`{}`, nil},
		"default": {`null`, nil},
		"all":     {`{"join":["r"],"to":["?"],"history":["[a-z]"],"members":["*"],"broadcast":true,"all":true,"private":true}`, names},
		"lists":   {`{"join":["x","r*"],"to":["r"],"history":["r"],"members":["r"]}`, names[:4]},
		"flags":   {`{"broadcast":true,"all":true,"private":true}`, names[4:]},
		"others":  {`{"join":["x"],"to":["x"],"history":["r/*"],"members":["R"],"all":true}`, []string{"all"}},
	} {
		s := d.open(name, newest, n.url(), with(tokenFor(t, "ann", longLived, `"rooms":["r"],"can":`+test.can)))
		for _, event := range names {
			r := s.try(events[event]...)
			if allowed := slices.Contains(test.allowed, event); r.OK != allowed || !allowed && r.Code != "forbidden" {
				t.Errorf("%s: %s: %+v", name, event, r)
			} else if allowed && heard[event] {
				witness.hears("got")
			}
		}
		for _, free := range [][]any{{"self", "x"}, {"leave", "r"}} { // which need no permission
			if r := s.try(free...); !r.OK {
				t.Errorf("%s: %v: %+v", name, free, r)
			}
		}
		if name == "default" {
			s.call("join", "default")
		}
		// One room that is not permitted keeps the event from all of them.
		if r := s.try("to", []string{"r", "not permitted"}, "got"); r.Code != "forbidden" {
			t.Errorf("%s: to several rooms: %+v", name, r)
		}
		if r := s.try("join", []string{"r", "not permitted"}); r.Code != "forbidden" {
			t.Errorf("%s: join of several rooms: %+v", name, r)
		}
		s.must("disconnect", nil)
	}
	witness.call("self", "settled")
	witness.hears("settled")
}

// TestTooManyRoomsOfAToken: a client that cannot join all rooms of its token is
// refused, with the reason.
func TestTooManyRoomsOfAToken(t *testing.T) {
	t.Parallel()
	n := startNode(t, authenticated, "REJOIN_ROOMS_PER_SOCKET=2")
	d := startDriver(t)
	s := d.opening("s", newest, n.url(), with(tokenFor(t, "ann", longLived, `"rooms":["a","b"]`)))
	if code := s.refused(); code != "too_many" {
		t.Errorf("refused with %q", code)
	}
	if got := n.metrics()[`rejoin_limited_total{limit="rooms_per_socket"}`]; got != 1 {
		t.Errorf("%v are counted", got)
	}
}

// TestUserRooms: a user's room has exactly the user's connections, with and
// without tokens.
func TestUserRooms(t *testing.T) {
	t.Parallel()
	for name, variables := range map[string][]string{"with tokens": {authenticated}, "without": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, variables...)
			d := startDriver(t)
			open := func(name, user string) *npmSocket {
				return d.open(name, newest, n.url(), with(tokenFor(t, user, longLived, `"can":{"join":["*"],"to":["*"]}`)))
			}
			phone, laptop, eve := open("phone", "ann"), open("laptop", "ann"), open("eve", "eve")
			for _, event := range [][]any{{"join", "user:ann"}, {"join", []string{"x", "user:eve"}}, {"leave", "user:eve"}, {"leave", "user:ann"}, {"join", "user:"}} {
				if r := eve.try(event...); r.OK || r.Code != "forbidden" {
					t.Errorf("%v: %+v", event, r)
				}
			}
			eve.call("to", "user:ann", "psst")
			if variables != nil {
				phone.hears("psst")
				laptop.hears("psst")
			}
			for _, s := range []*npmSocket{phone, laptop, eve} {
				s.call("self", "settled")
				s.hears("settled")
			}
		})
	}
}

// TestAnonymousPermissions: without tokens all clients have the default
// permissions, including those that connected when it permitted more.
func TestAnonymousPermissions(t *testing.T) {
	t.Parallel()
	n := startNode(t, `REJOIN_DEFAULT_CAN={"join":["a"],"to":["a"]}`)
	d := startDriver(t)
	s := d.open("s", newest, n.url(), nil)
	s.call("join", "a")
	s.call("to", "a", "x")
	for _, event := range [][]any{{"join", "b"}, {"all", "x"}, {"history", "a"}} {
		if r := s.try(event...); r.Code != "forbidden" {
			t.Errorf("%v: %+v", event, r)
		}
	}
	var answer map[string]any
	if err := json.Unmarshal(s.ask("token", "anything")[0], &answer); err != nil || fmt.Sprint(answer) != "map[expires:<nil> ok:true]" {
		t.Errorf("token: %v, %v", answer, err)
	}
}

// TestJWKSNode: a node whose JWKS server is down starts, is not ready and reports
// the reason.
func TestJWKSNode(t *testing.T) {
	t.Parallel()
	down := httptest.NewServer(http.NotFoundHandler())
	defer down.Close()
	n := launch(t, "REJOIN_ADDR=127.0.0.1:0", "REJOIN_INTERNAL_ADDR=127.0.0.1:0", "REJOIN_JWKS_URL="+down.URL,
		"REJOIN_DRAIN_DELAY=0s", "REJOIN_DRAIN_BUDGET=0s")
	defer n.stop()
	var answer struct {
		Status string
		Checks []struct {
			Name, Reason string
			OK           bool
		}
	}
	n.eventually("not ready for want of keys", func() error {
		response, err := internalHTTP.Get("http://" + n.internal + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			return err
		}
		for _, c := range answer.Checks {
			if c.Name == "tokens" && !c.OK && c.Reason == "auth: JWKS server answered 404 Not Found" {
				return nil
			}
		}
		return fmt.Errorf("%+v", answer)
	})
}
