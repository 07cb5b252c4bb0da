package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/auth"
)

// jwtSecret signs the tokens of these tests.
const jwtSecret = "the secret of the tests' tokens, long enough"

const authenticated = "REJOIN_JWT_SECRET=" + jwtSecret

// signed returns a good token with some claims, which are JSON.
func signed(t *testing.T, claims string) string {
	t.Helper()
	text, err := auth.Sign(auth.Options{Secret: []byte(jwtSecret)}, claims)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// tokenFor returns a token of a user, with further claims of ours, that is good
// for some time from now, the leeway included.
func tokenFor(t *testing.T, user string, life time.Duration, more string) string {
	t.Helper()
	exp := float64(time.Now().Add(life-auth.Leeway).UnixMilli()) / 1000
	return signed(t, fmt.Sprintf(`{"sub":%q,"exp":%.3f,"rejoin":{%s}}`, user, exp, more))
}

const longLived = time.Hour

// with returns the options of a client that shows a token.
func with(token string) map[string]any {
	return map[string]any{"transports": []string{"websocket"}, "auth": map[string]any{"token": token}}
}

// refused waits for the connect_error and returns its code.
func (s *npmSocket) refused() string {
	s.driver.t.Helper()
	r := s.await("connect_error")
	var data struct{ Code string }
	if len(r.Args) != 1 || json.Unmarshal(r.Args[0], &data) != nil || r.Reason == "" {
		s.driver.t.Fatalf("%s: refused with %v", s.name, r)
	}
	return data.Code
}

// TestTokens: a client connects with its token, from each usual place, and gets
// the reason of a refusal.
func TestTokens(t *testing.T) {
	t.Parallel()
	forVersions(t, func(t *testing.T, version string) {
		n := startNode(t, authenticated, "REJOIN_LOG_LEVEL=debug")
		d := startDriver(t)
		good := tokenFor(t, "ann", longLived, `"can":{"join":["x"],"members":["*"]}`)
		foreign, err := auth.Sign(auth.Options{Secret: []byte("another secret, though it is long enough")}, `{"sub":"ann"}`)
		if err != nil {
			t.Fatal(err)
		}
		for name, test := range map[string]struct {
			options map[string]any
			code    string
		}{
			"no token":            {nil, "token_missing"},
			"an empty one":        {with(""), "token_missing"},
			"not one":             {map[string]any{"auth": map[string]any{"token": []int{1}}}, "token_invalid"},
			"another key's":       {with(foreign), "token_invalid"},
			"cut short":           {with(good[:len(good)-3]), "token_invalid"},
			"in a header, no JWT": {map[string]any{"extraHeaders": map[string]string{"Authorization": "Bearer x"}}, "token_invalid"},
		} {
			s := d.opening(name, version, n.url(), test.options)
			if code := s.refused(); code != test.code {
				t.Errorf("%s: %s", name, code)
			}
		}
		a := d.open("a", version, n.url(), with(good))
		b := d.open("b", version, n.url(), map[string]any{
			"transports":   []string{"polling"},
			"extraHeaders": map[string]string{"Authorization": "bearer " + good},
		})
		for _, s := range []*npmSocket{a, b} {
			if rooms := s.call("join", "x").Rooms; !slices.Equal(rooms, []string{"user:ann", "x"}) {
				t.Errorf("%s is in %q", s.name, rooms)
			}
		}
		if members := a.call("members", "x").Members; len(members) != 2 || members[0].User != "ann" {
			t.Errorf("members %+v", members)
		}
		n.eventually("logging the reasons of refusals", func() error {
			if !n.log.Contains("token refused") {
				return errors.New("it is silent")
			}
			return nil
		})
		for _, secret := range []string{good, strings.Split(good, ".")[2], foreign, jwtSecret} {
			if n.log.Contains(secret) {
				t.Errorf("the log has %.10s… in it", secret)
			}
		}
	})
}

// TestTokenExpires: a connection ends with its token. A client with a fresh one
// is recovered as the same socket; one without gets a refusal; and one that
// renews its token in time is not cut.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, authenticated)
	front := startBalancer(t, c)
	d := startDriver(t)
	can := `"can":{"join":["*"],"to":["*"]}`
	for name, transport := range transports {
		t.Run(name, func(t *testing.T) {
			open := func(name string) *npmSocket {
				options := map[string]any{"auth": map[string]any{"token": tokenFor(t, "ann", 5*time.Second, can)}}
				for k, v := range transport {
					options[k] = v
				}
				s := d.open(name, newest, front.URL, options)
				s.call("join", "room")
				return s
			}
			fresh, stale, renewed := open(name+" fresh"), open(name+" stale"), open(name+" renewed")
			fresh.must("auths", map[string]any{"auths": []any{map[string]any{"token": tokenFor(t, "ann", longLived, can)}}})
			before := fresh.state()
			var answer struct {
				OK      bool
				Expires int64
			}
			late := tokenFor(t, "ann", longLived, can)
			if err := json.Unmarshal(renewed.ask("token", late)[0], &answer); err != nil || !answer.OK {
				t.Fatalf("%v %+v", err, answer)
			}
			for i := range 20 {
				var failure struct{ Code string }
				if err := json.Unmarshal(renewed.ask("token", late)[0], &failure); err != nil {
					t.Fatal(err)
				}
				if failure.Code == "rate_limited" {
					break
				}
				if i == 19 {
					t.Error("any number of tokens is verified")
				}
			}
			if left := time.Until(time.UnixMilli(answer.Expires)); left < longLived-time.Minute || left > longLived {
				t.Errorf("the fresh token is good for %v", left)
			}
			fresh.await("disconnect")
			for i := range 5 {
				renewed.call("to", "room", "n", i)
			}
			if now := fresh.await("connect"); !now.Recovered || now.ID != before.ID {
				t.Errorf("reconnected as %+v, want %+v", now.state, before)
			}
			for i := range 5 {
				fresh.hears("n", fmt.Sprint(i))
			}
			stale.await("disconnect")
			if code := stale.refused(); code != "token_expired" {
				t.Errorf("refused with %s", code)
			}
			renewed.call("self", "still here")
			renewed.hears("still here")
			for _, r := range renewed.reports.Drain() {
				if r.Report == "disconnect" {
					t.Error("the client that renewed its token was cut")
				}
			}
		})
	}
}

// TestTokenEvent: a fresh token takes effect with its ack, and only a valid one
// of the same user is accepted.
func TestTokenEvent(t *testing.T) {
	t.Parallel()
	n := startNode(t, authenticated)
	d := startDriver(t)
	s := d.open("s", newest, n.url(), with(tokenFor(t, "ann", longLived, `"rooms":["given"],"can":{"join":["open","shut"],"to":["*"]}`)))
	s.call("join", []string{"open", "shut"})
	for code, bad := range map[string]any{
		"token_missing": "",
		"token_invalid": "rubbish",
		"forbidden":     tokenFor(t, "bob", longLived, ""),
	} {
		if r := s.try("token", bad); r.OK || r.Code != code {
			t.Errorf("%s: %+v", code, r)
		}
	}
	if r := s.try("token", 7); r.Code != "token_invalid" {
		t.Errorf("a number: %+v", r)
	}
	s.call("to", "x", "nobody") // nothing has changed
	s.call("token", tokenFor(t, "ann", longLived, `"rooms":["new"],"can":{"join":["open"]}`))
	if rooms := s.call("leave", "nothing").Rooms; !slices.Equal(rooms, []string{"new", "open", "user:ann"}) {
		t.Errorf("is in %q", rooms)
	}
	for _, event := range [][]any{{"join", "shut"}, {"to", "x", "nobody"}} {
		if r := s.try(event...); r.Code != "forbidden" {
			t.Errorf("%v: %+v", event, r)
		}
	}
	counted := n.metrics()
	for sample, want := range map[string]float64{
		`rejoin_refusals_total{event="join"}`:               1,
		`rejoin_refusals_total{event="token"}`:              1,
		`rejoin_refusals_total{event="all"}`:                0,
		`rejoin_tokens_refused_total{code="token_invalid"}`: 2,
		`rejoin_tokens_refused_total{code="unavailable"}`:   0,
	} {
		if got, there := counted[sample]; !there || got != want {
			t.Errorf("%s %v, want %v", sample, got, want)
		}
	}
}

// TestWeakerToken: permissions are checked again when a client reconnects, and
// it cannot recover another user's session.
func TestWeakerToken(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, authenticated)
	front := startBalancer(t, c)
	d := startDriver(t)
	speaker := d.open("speaker", newest, c.nodes[0].url(), with(tokenFor(t, "speaker", longLived, `"can":{"to":["*"]}`)))
	for name, test := range map[string]struct {
		token     string
		recovered bool
		rooms     []string
		hears     []string
	}{
		"the same": {
			tokenFor(t, "ann", longLived, `"rooms":["given"],"can":{"join":["a","b"]}`),
			true, []string{"a", "b", "given", "user:ann"}, []string{"a", "b", "given", "user:ann"},
		},
		"a weaker one": {
			tokenFor(t, "ann", longLived, `"rooms":["other"],"can":{"join":["a"]}`),
			true, []string{"a", "other", "user:ann"}, []string{"a", "user:ann"},
		},
		"one that says nothing": {
			tokenFor(t, "ann", longLived, ``),
			true, []string{"user:ann"}, []string{"user:ann"},
		},
		"another user's": {
			tokenFor(t, "bob", longLived, `"rooms":["given"],"can":{"join":["a","b"]}`),
			false, []string{"given", "user:bob"}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := d.open(name, newest, front.URL, with(tokenFor(t, "ann", longLived, `"rooms":["given"],"can":{"join":["a","b"]}`)))
			s.call("join", []string{"a", "b"})
			before := s.state()
			s.must("auth", map[string]any{"auth": map[string]any{"token": test.token}})
			s.must("away", nil)
			s.await("disconnect")
			for _, room := range []string{"a", "b", "given", "other", "user:ann"} {
				speaker.call("to", room, room)
			}
			s.must("back", nil)
			if now := s.await("connect"); now.Recovered != test.recovered || (now.ID == before.ID) != test.recovered {
				t.Errorf("%+v, was %+v", now.state, before)
			}
			for _, event := range test.hears {
				s.hears(event)
			}
			if rooms := s.call("leave", "nothing").Rooms; !slices.Equal(rooms, test.rooms) {
				t.Errorf("is in %q", rooms)
			}
			for _, room := range []string{"a", "b", "given", "other"} {
				speaker.call("to", room, "live", room)
			}
			for _, room := range test.rooms[:len(test.rooms)-1] {
				s.hears("live", fmt.Sprintf("%q", room))
			}
			s.call("self", "settled")
			s.hears("settled")
			s.must("disconnect", nil)
		})
	}
}
