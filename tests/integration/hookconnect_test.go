package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestHookConnect: the backend decides who connects, as which user, in which rooms, with which permissions
// and data. A refusal reaches the client in the backend's words.
func TestHookConnect(t *testing.T) {
	t.Parallel()
	forVersions(t, func(t *testing.T, version string) {
		b, variables := startBackend(t, func(w http.ResponseWriter, q asked) {
			if q.Auth["name"] == "mallory" {
				say(w, http.StatusForbidden, `{"type":"about:blank","code":"banned","detail":"Not today"}`)
				return
			}
			say(w, http.StatusOK, `{"user":%q,"rooms":["team:7"],"can":{"join":["chat:*"],"members":["*"]},"data":{"color":"red"}}`, q.Auth["name"])
		})
		n := b.startNode(append(variables, "REJOIN_HOOK_CONNECT=true", "REJOIN_HOOK_HEADERS=X-Flavour, cookie", withAPI)...)
		d := startDriver(t)
		named := func(name string) map[string]any {
			return map[string]any{"auth": map[string]any{"name": name}, "extraHeaders": map[string]string{"X-Flavour": "sour"}}
		}
		ann := d.open("ann", version, n.url(), named("ann"))
		if rooms := ann.call("join", "chat:1").Rooms; !slices.Equal(rooms, []string{"chat:1", "team:7", "user:ann"}) {
			t.Errorf("ann is in %q", rooms)
		}
		if r := ann.try("join", "secret"); r.Code != "forbidden" {
			t.Errorf("joined another room: %+v", r)
		}
		if r := ann.try("token", "x"); !r.OK {
			t.Errorf("token without authentication by token: %+v", r)
		}
		q := b.questions("rejoin.connect")[0]
		if q.Namespace != "/" || q.Address != "127.0.0.1" || q.Transport == "" || q.Headers["x-flavour"] != "sour" || len(q.Headers) != 1 || q.Returning {
			t.Errorf("the question: %s", q.body)
		}
		for name, want := range map[string]string{"ce-specversion": "1.0", "ce-type": "rejoin.connect", "ce-id": q.id, "content-type": "application/json"} {
			if got := q.header.Get(name); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		mallory := d.opening("mallory", version, n.url(), named("mallory"))
		r := mallory.await("connect_error")
		if r.Reason != "Not today" || fmt.Sprintf("%s", r.Args) != `[{"code":"banned"}]` {
			t.Errorf("refused with %v", r)
		}
		if text := n.backend().get("sockets").text; !strings.Contains(text, `"user":"ann"`) || !strings.Contains(text, `"data":{"color":"red"}`) {
			t.Errorf("sockets %s", text)
		}
	})
}

// TestHookConnectFailsClosed: while the backend does not answer as it must, nobody connects, and stock
// clients connect by themselves once it does.
func TestHookConnectFailsClosed(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(w http.ResponseWriter, r asked){
		"fails":              func(w http.ResponseWriter, _ asked) { say(w, http.StatusInternalServerError, `{"code":"x"}`) },
		"malformed":          func(w http.ResponseWriter, _ asked) { say(w, http.StatusOK, `{"user":"ann","romms":[]}`) },
		"another type":       func(w http.ResponseWriter, _ asked) { fmt.Fprint(w, `{"user":"ann"}`) },
		"nothing":            func(w http.ResponseWriter, _ asked) { w.WriteHeader(http.StatusNoContent) },
		"a proxy's page":     func(w http.ResponseWriter, _ asked) { http.Error(w, "no such service", http.StatusNotFound) },
		"a redirect":         func(w http.ResponseWriter, _ asked) { w.Header().Set("Location", "/"); w.WriteHeader(http.StatusFound) },
		"room of a user":     func(w http.ResponseWriter, _ asked) { say(w, http.StatusOK, `{"rooms":["user:bob"]}`) },
		"unknown permission": func(w http.ResponseWriter, _ asked) { say(w, http.StatusOK, `{"can":{"jion":["*"]}}`) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, variables := startBackend(t, broken)
			n := startUnready(t, append(variables, "REJOIN_HOOK_CONNECT=true", "REJOIN_HOOK_TIMEOUT=2s")...)
			n.awaitReady()
			d := startDriver(t)
			s := d.opening("s", newest, n.url(), transports["websocket"])
			n.eventually("turning the client away", func() error {
				if got := n.metrics()["rejoin_connects_postponed_total"]; got < 2 {
					return fmt.Errorf("%v connects were postponed", got)
				}
				return nil
			})
			b.answers(func(w http.ResponseWriter, _ asked) { say(w, http.StatusOK, `{"user":"ann"}`) })
			r, err := s.reports.Take(4*patience, func(r report) bool { return r.Report == "connect" || r.Report == "connect_error" })
			if err != nil || r.Report != "connect" {
				t.Errorf("%v, %v", r, err)
			}
		})
	}
}
