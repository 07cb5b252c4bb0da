package security

import (
	"slices"
	"testing"
)

// TestPermissions: a connected client can do only what its token permits,
// whatever the name of a requested room.
func TestPermissions(t *testing.T) {
	t.Parallel()
	tr := arm(t, 1, "REJOIN_JWT_SECRET="+jwtSecret)
	n := tr.nodes[0]
	every := object{"join": []string{"*"}, "to": []string{"*"}, "history": []string{"*"}, "members": []string{"*"}, "broadcast": true, "all": true, "private": true}
	ann := tr.enter(n, show(tokenFor("ann", every, "r", "a/b", "a/b/c", "team:x/y", "secret")))
	lists := func(patterns ...string) object {
		return object{"join": patterns, "to": patterns, "history": patterns, "members": patterns}
	}
	tries := 0
	for can, attack := range map[string]struct {
		can   object
		rooms []string // none of which may be joined, sent to, read or listed
	}{
		"nothing":      {nil, []string{"r", "secret", "user:ann", "user:mallory/", ann.sid}},
		"another room": {lists("x", "R", "r/", "/r", " r"), []string{"r", "secret", "X", "x ", "x\x00", "x/", "/x", "./x", "x/../r"}},
		"no slash":     {lists("*"), []string{"a/b", "a/b/c", "/", "team:x/y"}},
		"one slash":    {lists("a/*", "team:*"), []string{"a", "a/b/c", "a//", "a/../r", "team:x/y", "A/b"}},
		"one letter":   {lists("?", "[a-q]?", "[^r]x", `\*`), []string{"secret", "rx", "rr", "r\n\n", "**", "/"}},
		"users by *":   {object{"join": []string{"*", "user:*", "user:ann", "?ser:ann", "[u]ser:ann", `\user:ann`}}, nil},
		"other names":  {object{"rooms": []string{"r"}, "*": true, "admin": true, "everything": true}, []string{"r", "secret"}},
	} {
		mallory := tr.enter(n, show(tokenFor("mallory", attack.can)))
		for _, room := range attack.rooms {
			for _, event := range [][]any{
				{"join", room}, {"to", room, "got you"}, {"history", room}, {"members", room},
				{"join", []string{"x", room}}, {"to", []string{"x", room}, "got you"},
			} {
				tries++
				if code := mallory.ask(event...); code != "forbidden" && code != "bad_request" {
					t.Errorf("%s: %q: %q", can, event, code)
				}
			}
		}
		for _, event := range [][]any{
			{"join", "user:ann"}, {"join", []string{"x", "user:ann"}}, {"leave", "user:mallory"}, {"join", "user:"},
			{"broadcast", "got you"}, {"all", "got you"}, {"private", ann.sid, "got you"},
			{"token", tokenFor("ann", every)}, {"token", tokenFor("mallory", every) + "x"}, {"token", ""},
		} {
			if code := mallory.ask(event...); !slices.Contains([]string{"forbidden", "token_invalid", "token_missing"}, code) {
				t.Errorf("%s: %.50q: %q", can, event, code)
			}
		}
		mallory.leave()
	}
	if events := ann.hears(); len(events) > 0 {
		t.Errorf("ann got %q", events)
	}
	if got := n.Metrics()[`rejoin_refusals_total{event="join"}`]; tries == 0 || got == 0 {
		t.Errorf("%v refusals of join are counted", got)
	}
}

// TestEavesdropping: rooms that are called like something else get nothing of it.
func TestEavesdropping(t *testing.T) {
	t.Parallel()
	tr := arm(t, 1, "REJOIN_JWT_SECRET="+jwtSecret)
	n := tr.nodes[0]
	ann := tr.enter(n, show(tokenFor("ann", object{"to": []string{"*"}, "private": true}, "r")))
	mallory := tr.enter(n, show(tokenFor("mallory", object{"join": []string{"*"}})))
	mallory.must("join", []string{ann.sid, "USER:ann", "User:ann", "user :ann", "usér:ann", "user%3aann", "r ", "R", "r\x00", "*", "?", "[r]", "all"})
	for _, event := range [][]any{{"private", ann.sid, "for ann"}, {"to", "user:ann", "for ann"}, {"to", "r", "for r"}, {"self", "for ann"}} {
		ann.must(event...)
	}
	if events := mallory.hears(); len(events) > 0 {
		t.Errorf("mallory got %q, want nothing", events)
	}
	if events := ann.hears(); !slices.Equal(events, []string{"for ann", "for ann"}) { // not what she says to her rooms herself
		t.Errorf("ann got %q", events)
	}
}
