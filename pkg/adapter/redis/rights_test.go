package redis

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
)

// setUser sets up the Redis user of the test's nodes, and returns their URL.
func setUser(t *testing.T, server *redistest.Server, rules ...any) string {
	t.Helper()
	line := append([]any{"ACL", "SETUSER", "limited", "reset", "on", ">secret", "~rejoin:*", "&rejoin:*", "+@all"}, rules...)
	if err := server.Client().Do(t.Context(), line...).Err(); err != nil {
		t.Fatalf("%v: %v", rules, err)
	}
	return "redis://limited:secret@" + server.Addr
}

// A node does not join without all rights that it will ever need, and the error names each
// missing one.
func TestRightsAreCheckedAtJoin(t *testing.T) {
	server := redistest.Start(t)
	type test struct {
		rules []any
		named []string
	}
	tests := []test{
		{[]any{"-pexpire", "-xadd", "-script"}, []string{"pexpire rejoin:{0}", "xadd rejoin:{0}", "script load"}},
		{[]any{"resetkeys", "~other:*"}, []string{"get rejoin:{0}", "hset rejoin:{0}", "key"}},
		{[]any{"resetchannels", "&other:*"}, []string{"publish rejoin:{0}", "subscribe rejoin:{0}", "channel"}},
		{[]any{"-multi"}, []string{"multi"}},
	}
	for _, command := range Commands(redisurl.Single, "rejoin:", 1) {
		name := fmt.Sprint(command[0])
		tests = append(tests, test{[]any{"-" + name}, []string{name}})
	}
	for _, test := range tests {
		url := setUser(t, server, test.rules...)
		a, err := New(deadline(t), options(t, url, "a", Options{}))
		if err == nil {
			_ = a.Close()
		}
		if !errors.Is(err, ErrRights) {
			t.Errorf("%v: %v, want ErrRights", test.rules, err)
			continue
		}
		for _, name := range test.named {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%v: %v does not name %q", test.rules, err, name)
			}
		}
	}
	start(t, setUser(t, server), "a", Options{})
}

// A right that is revoked later is reported, by readiness and by the error, and an event
// that Redis refused was not published.
func TestRevokedRights(t *testing.T) {
	server := redistest.Start(t)
	a := start(t, setUser(t, server), "a", Options{})
	setUser(t, server, "-evalsha")
	_, err := a.Publish(deadline(t), event("refused", room("r")))
	if !errors.Is(err, adapter.ErrNotPublished) || errors.Is(err, adapter.ErrUnavailable) || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("Publish: %v, want NOPERM, and that it was not published", err)
	}
	if err := a.Ready(); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("Ready: %v, want NOPERM", err)
	}
	setUser(t, server)
	eventually(t, "it is ready again", func() bool { return a.Ready() == nil })
}
