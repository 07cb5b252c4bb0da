package security

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// resume is the auth payload of a client that reconnects.
func resume(token, pid, offset string) object {
	auth := object{"token": token, "pid": pid}
	if offset != "" {
		auth["offset"] = offset
	}
	return auth
}

// TestStolenSession: another user gets nothing with a stolen pid and offset,
// whether their owner is connected or not, at any node; and the owner loses
// nothing.
func TestStolenSession(t *testing.T) {
	t.Parallel()
	tr := arm(t, 2, "REJOIN_JWT_SECRET="+jwtSecret)
	can := object{"join": []string{"*"}, "to": []string{"*"}}
	annToken, malloryToken := tokenFor("ann", can), tokenFor("mallory", can)
	speaker := tr.enter(tr.nodes[0], show(tokenFor("speaker", can)))
	ann := tr.enter(tr.nodes[0], show(annToken))
	ann.must("join", "r")
	speaker.must("to", "r", "first")
	ann.hears()
	pid := tr.keep("ann's pid", ann.pid)
	steal := func(when string) {
		for _, n := range tr.nodes {
			for token, code := range map[string]string{malloryToken: "", "": "token_missing", annToken + "x": "token_invalid"} {
				mallory := tr.enter(n, resume(token, pid, ann.offset))
				if mallory.code != code || code == "" && (mallory.pid == pid || mallory.sid == ann.sid) {
					t.Errorf("%s: code %q, a new session: %v", when, mallory.code, mallory.pid != pid)
				}
				if code != "" {
					continue
				}
				speaker.must("to", "r", "not for mallory")
				speaker.must("to", "user:ann", "not for mallory")
				if events := mallory.hears(); len(events) > 0 {
					t.Errorf("%s: mallory got %q, want nothing", when, events)
				}
			}
		}
	}
	steal("while ann is there")
	if events := ann.hears(); len(events) != 4 {
		t.Errorf("ann got %q, want nothing", events)
	}
	ann.leave()
	awaitSockets(t, tr.nodes[0], 2+1) // the speaker, mallory
	speaker.must("to", "r", "missed")
	steal("while ann is away")
	back := tr.enter(tr.nodes[1], resume(annToken, pid, ann.offset))
	if back.pid != pid || back.sid != ann.sid {
		t.Fatal("ann did not reconnect")
	}
	if events := back.hears(); len(events) != 5 || events[0] != "missed" {
		t.Errorf("ann has missed %q", events)
	}
}

// awaitSockets waits until a node has no more than some sockets.
func awaitSockets(t *testing.T, n *nodetest.Node, most float64) {
	t.Helper()
	nodetest.Eventually(t, "a client is not gone", func() error {
		if now := n.Metrics()[`rejoin_sockets`]; now > most {
			return fmt.Errorf("%v sockets", now)
		}
		return nil
	})
}

// TestReconnectsWithFewerRights: a client that reconnects with fewer rights gets fewer events, a
// removed one gets nothing, and a forged offset affects only its sender.
func TestReconnectsWithFewerRights(t *testing.T) {
	t.Parallel()
	tr := arm(t, 2, "REJOIN_JWT_SECRET="+jwtSecret, "REJOIN_API_KEYS="+apiKey)
	a, b := tr.nodes[0], tr.nodes[1]
	can := object{"join": []string{"a", "b"}}
	strong, weak := tokenFor("ann", can, "given"), tokenFor("ann", object{"join": []string{"a"}})
	speaker := tr.enter(a, show(tokenFor("speaker", object{"to": []string{"*"}})))
	bystander := tr.enter(b, show(tokenFor("bystander", nil, "given")))
	missed := []string{"a", "b", "given"}
	all := append([]string{"first"}, missed...) // since she came first
	for name, test := range map[string]struct {
		token     string
		remove    bool
		offset    func(last string) string // nil for the last one itself
		recovered bool
		hears     []string
	}{
		"as before":                         {token: strong, recovered: true, hears: missed},
		"a weaker token":                    {token: weak, recovered: true, hears: []string{"a"}},
		"removed":                           {token: strong, remove: true},
		"a future offset":                   {token: strong, offset: future},
		"one without a tag":                 {token: strong, offset: func(o string) string { return future(o[:strings.Index(o, "~")]) }},
		"tagged with the key of forwarding": {token: strong, offset: func(o string) string { return tagged(forwardingKey, o) }},
		"tagged with the cluster secret":    {token: strong, offset: func(o string) string { return tagged(clusterSecret, o) }},
		"another tag":                       {token: strong, offset: func(o string) string { return o[:len(o)-8] + "AAAAAAAA" }, recovered: true, hears: missed},
		"a large one":                       {token: strong, offset: func(o string) string { return o + strings.Repeat("A", 10_000) }},
		"not an offset":                     {token: strong, offset: func(string) string { return "0') redis.call('FLUSHALL') --" }},
		"no offset at all":                  {token: strong, offset: func(string) string { return "" }, recovered: true, hears: all},
	} {
		ann := tr.enter(a, show(strong))
		ann.must("join", []string{"a", "b"})
		speaker.must("to", "a", "first")
		ann.hears()
		if test.remove {
			status, answer := send(t, "POST", "http://"+b.Internal+"/api/v1/disconnect", fmt.Sprintf(`{"sockets":[%q],"close":true}`, ann.sid),
				"Authorization", "Bearer "+apiKey, "Content-Type", "application/json")
			if tr.hear(answer); status != http.StatusOK && status != http.StatusNoContent {
				t.Fatalf("%d %s", status, answer)
			}
			ends(t, ann.ws)
		}
		ann.leave()
		awaitSockets(t, a, 1)
		for _, room := range []string{"a", "b", "given"} {
			speaker.must("to", room, room)
		}
		offset := ann.offset
		if test.offset != nil {
			offset = test.offset(offset)
		}
		back := tr.enter(b, resume(test.token, ann.pid, offset))
		if recovered := back.pid == ann.pid; recovered != test.recovered {
			t.Errorf("%s: recovered %v", name, recovered)
		}
		if events := back.hears(); !slices.Equal(events, test.hears) {
			t.Errorf("%s: got %q, want %q", name, events, test.hears)
		}
		back.leave()
		awaitSockets(t, b, 1)
		if events := bystander.hears(); !slices.Equal(events, []string{"given"}) { // has been connected all the time
			t.Errorf("%s: an uninvolved client got %q", name, events)
		}
	}
	if events := speaker.hears(); len(events) > 0 {
		t.Errorf("the sender got %q", events)
	}
}

// tagged makes an offset of the future and tags it as a node with this key does.
func tagged(key, offset string) string {
	s, _, _ := strings.Cut(future(offset), "~")
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte("offset " + s))
	return s + "~" + base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:6])
}

// future makes an offset one that the history has not come to.
func future(offset string) string {
	epoch, rest, _ := strings.Cut(offset, ".")
	return epoch + ".z" + rest
}
