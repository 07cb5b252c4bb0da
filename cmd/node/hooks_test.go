package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const testHookSecret = "whsec_dGhlIHNlY3JldCBvZiB0aGVzZSB0ZXN0cywgbG9uZyE="

// hookEnvironment sets variables in addition to a good URL and secret.
func hookEnvironment(t *testing.T, more map[string]string) {
	t.Helper()
	variables := map[string]string{"REJOIN_HOOK_URL": "https://app.example/hooks?key=hidden", "REJOIN_HOOK_SECRETS": testHookSecret, "REJOIN_HOOK_CONNECT": "true"}
	for name, value := range more {
		variables[name] = value
	}
	for name, value := range variables {
		if value == "" {
			delete(variables, name)
		}
	}
	environment(t, variables)
}

func TestHookConfiguration(t *testing.T) {
	for name, test := range map[string]struct {
		variables map[string]string
		problem   string // a variable; "" for none
		warning   bool
	}{
		"good":                       {nil, "", false},
		"all":                        {map[string]string{"REJOIN_HOOK_EVENTS": "a, b:*,*", "REJOIN_HOOK_HEADERS": "cookie,X-A"}, "", false},
		"two secrets":                {map[string]string{"REJOIN_HOOK_SECRETS": testHookSecret + ",whsec_bmV3LCBhbmQgbm90IGtub3duIHRvIGFueW9uZSB5ZXQ="}, "", false},
		"instead of tokens":          {map[string]string{"REJOIN_ADDR": ":3000"}, "", false},
		"no authentication":          {map[string]string{"REJOIN_ADDR": ":3000", "REJOIN_HOOK_CONNECT": "false", "REJOIN_HOOK_EVENTS": "*"}, "REJOIN_ADDR", false},
		"http to loopback":           {map[string]string{"REJOIN_HOOK_URL": "http://127.0.0.1:80/"}, "", false},
		"http to localhost":          {map[string]string{"REJOIN_HOOK_URL": "http://localhost/"}, "", false},
		"http":                       {map[string]string{"REJOIN_HOOK_URL": "http://app.example/?key=hidden"}, "REJOIN_HOOK_URL", false},
		"http to a similar name":     {map[string]string{"REJOIN_HOOK_URL": "http://localhost.example/?key=hidden"}, "REJOIN_HOOK_URL", false},
		"http, allowed":              {map[string]string{"REJOIN_HOOK_URL": "http://app.example/", "REJOIN_HOOK_ALLOW_HTTP": "true"}, "", false},
		"another scheme":             {map[string]string{"REJOIN_HOOK_URL": "file:///hidden"}, "REJOIN_HOOK_URL", false},
		"a fragment":                 {map[string]string{"REJOIN_HOOK_URL": "https://app.example/#hidden"}, "REJOIN_HOOK_URL", false},
		"no secret":                  {map[string]string{"REJOIN_HOOK_SECRETS": ""}, "REJOIN_HOOK_SECRETS", false},
		"a short secret":             {map[string]string{"REJOIN_HOOK_SECRETS": "whsec_aGlkZGVu"}, "REJOIN_HOOK_SECRETS", false},
		"the same secret twice":      {map[string]string{"REJOIN_HOOK_SECRETS": testHookSecret + "," + testHookSecret}, "REJOIN_HOOK_SECRETS", false},
		"no URL":                     {map[string]string{"REJOIN_HOOK_URL": ""}, "REJOIN_HOOK_URL", false},
		"nothing is asked":           {map[string]string{"REJOIN_HOOK_CONNECT": "false"}, "", true},
		"headers without a question": {map[string]string{"REJOIN_HOOK_CONNECT": "false", "REJOIN_HOOK_EVENTS": "*", "REJOIN_HOOK_HEADERS": "cookie"}, "", true},
		"an event of the node's own": {map[string]string{"REJOIN_HOOK_EVENTS": "join"}, "", false},
		"the event token":            {map[string]string{"REJOIN_HOOK_EVENTS": "token"}, "REJOIN_HOOK_EVENTS", false},
		"a pattern in the middle":    {map[string]string{"REJOIN_HOOK_EVENTS": "a*b"}, "REJOIN_HOOK_EVENTS", false},
		"an empty event":             {map[string]string{"REJOIN_HOOK_EVENTS": "a,,b"}, "REJOIN_HOOK_EVENTS", false},
		"a header that is none":      {map[string]string{"REJOIN_HOOK_HEADERS": "a b"}, "REJOIN_HOOK_HEADERS", false},
		"no time":                    {map[string]string{"REJOIN_HOOK_TIMEOUT": "0s"}, "REJOIN_HOOK_TIMEOUT", false},
		"no concurrency":             {map[string]string{"REJOIN_HOOK_CONCURRENCY": "0"}, "REJOIN_HOOK_CONCURRENCY", false},
	} {
		hookEnvironment(t, test.variables)
		_, r := load()
		text := strings.Join(r.problems, "\n")
		if (len(r.problems) > 0) != (test.problem != "") || !strings.Contains(text, test.problem) || (len(r.warnings) > 0) != test.warning {
			t.Errorf("%s: problems %q, warnings %q", name, r.problems, r.warnings)
		}
		if strings.Contains(text, "hidden") || strings.Contains(text, "aGlkZGVu") || strings.Contains(text, testHookSecret) {
			t.Errorf("%s: the report shows a secret: %s", name, text)
		}
	}
}

// TestCheckPingsTheBackend: -check asks the backend with a signature, and exits with 1 unless it answers.
func TestCheckPingsTheBackend(t *testing.T) {
	status := http.StatusNoContent
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		verifier, err := standardwebhooks.NewWebhook(testHookSecret)
		if err == nil {
			err = verifier.Verify(body, r.Header)
		}
		if err != nil || !strings.Contains(string(body), `"type":"rejoin.ping"`) || r.URL.Path != "/hooks" {
			t.Errorf("%s %s: %v", r.URL, body, err)
		}
		w.WriteHeader(status)
	}))
	defer web.Close()
	address := strings.Replace(web.URL, "http://", "http://ann:hidden@", 1) + "/hooks"
	hookEnvironment(t, map[string]string{"REJOIN_HOOK_URL": address})
	check := func() (code int, stdout, stderr string) {
		var out, errs strings.Builder
		code = run(t.Context(), t.Context(), nil, []string{"-check"}, &out, &errs)
		return code, out.String(), errs.String()
	}
	if code, stdout, stderr := check(); code != exitOK || stdout != "ok\n" || stderr != "" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	status = http.StatusUnauthorized
	if code, stdout, stderr := check(); code != exitFailure || stdout != "" || !strings.Contains(stderr, "401") {
		t.Errorf("refused: exit code %d, %q, %q", code, stdout, stderr)
	}
	web.Close()
	if code, stdout, stderr := check(); code != exitFailure || stdout != "" || !strings.Contains(stderr, "REJOIN_HOOK_URL") || strings.Contains(stderr, "hidden") {
		t.Errorf("closed: exit code %d, %q, %q", code, stdout, stderr)
	}
}
