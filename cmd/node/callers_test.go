package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestAPICallers: the reason why callers are refused is shown, and no key.
func TestAPICallers(t *testing.T) {
	const key = "0123456789abcdef-secret"
	good := fmt.Sprintf(`{"orders": {"keys": [%q], "calls": ["emit"]}}`, key)
	for _, test := range []struct{ name, value, says string }{
		{"REJOIN_API_CALLERS", `{"orders": {"keys": ["` + key + `"], "calls": ["emmit"]}}`, `unknown call "emmit"; there are ask, batch`},
		{"REJOIN_API_CALLERS", key, "JSON object"},
		{"REJOIN_API_CALLERS_FILE", holding(t, strings.Replace(good, "orders", "Orders", 1)), "a name is 1 to 40"},
	} {
		environment(t, map[string]string{test.name: test.value})
		_, r := load()
		if len(r.problems) != 1 || !strings.HasPrefix(r.problems[0], test.name+"=") || !strings.Contains(r.problems[0], test.says) || strings.Contains(r.problems[0], key) {
			t.Errorf("%s: got problems %q, want one with %q and no key", test.name, r.problems, test.says)
		}
		if err := os.Unsetenv(test.name); err != nil {
			t.Fatal(err)
		}
	}
	environment(t, map[string]string{"REJOIN_API_CALLERS_FILE": holding(t, good+"\n"), "REJOIN_INTERNAL_ADDR": ":3001"})
	c, r := load()
	if len(r.problems)+len(r.warnings) > 0 || len(c.APICallers.all) != 1 || strings.Contains(fmt.Sprintf("%v %+v", c.APICallers, c.APICallers), key) {
		t.Errorf("got %+v, %v", r, c.APICallers)
	}
	t.Setenv("REJOIN_API_KEYS", "another-0123456789,"+key)
	if _, r := load(); len(r.problems) != 1 || !strings.Contains(r.problems[0], "caller orders has one") || strings.Contains(r.problems[0], key) {
		t.Errorf("a key in both variables: got problems %q", r.problems)
	}
}
