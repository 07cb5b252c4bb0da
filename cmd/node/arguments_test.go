package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

// TestHelpFitsATerminal: no line of -h has more than 100 characters, unless it has one long word.
func TestHelpFitsATerminal(t *testing.T) {
	environment(t, nil)
	_, stdout, _ := execute(t, "-h")
	for line := range strings.Lines(stdout) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 100 && len(strings.Fields(line)) > 1 {
			t.Errorf("%d characters: %s", n, line)
		}
	}
}

// TestRefusedConfigurationIsLogged: a node that does not start writes the reason in the format of its
// log.
func TestRefusedConfigurationIsLogged(t *testing.T) {
	environment(t, map[string]string{"REJOIN_PING_INTERVAL": "bad", "REJOIN_PING_TIMEOUT": "bad"})
	code, _, stderr := execute(t)
	for line := range strings.Lines(stderr) {
		var entry struct{ Level, Msg, Problem string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Level != "error" || !strings.HasPrefix(entry.Problem, "REJOIN_PING_") {
			t.Errorf("got %s, %v, want an entry of the log", line, err)
		}
	}
	if code != exitUsage || strings.Count(stderr, "\n") != 2 {
		t.Errorf("exit code %d, stderr %s, want 2 and two lines", code, stderr)
	}
	t.Setenv("REJOIN_LOG_FORMAT", "console")
	if _, _, stderr := execute(t); !strings.Contains(stderr, "ERROR") || strings.HasPrefix(stderr, "{") {
		t.Errorf("console: got %s", stderr)
	}
}

// TestEffectiveConfiguration: -config shows each value and where it comes from, and no secret.
func TestEffectiveConfiguration(t *testing.T) {
	environment(t, nil)
	if code, stdout, _ := execute(t, "-config"); code != exitOK || !strings.Contains(stdout, "REJOIN_PARTITIONS") {
		t.Errorf("without variables: exit code %d, %s", code, stdout)
	}
	environment(t, map[string]string{
		"REJOIN_REDIS_URL": "redis://joe:hush@h:1", "REJOIN_CLUSTER_SECRET": "hush hush hush hush", "REJOIN_API_KEYS": "hush-hush-hush-hush",
		"REJOIN_JWT_SECRET": strings.Repeat("hush", 8), "REJOIN_PING_INTERVAL": "7s", "REJOIN_JWT_AUDIENCE": "me",
		"REJOIN_JWKS_URL": "https://h/?key=hush",
	})
	code, stdout, stderr := execute(t, "-config")
	if code != exitOK || stderr != "" || strings.Contains(stdout, "hush") || strings.Contains(stdout, "joe") {
		t.Errorf("exit code %d, stderr %s, stdout %s", code, stderr, stdout)
	}
	got := make(map[string]string)
	for line := range strings.Lines(stdout) {
		name, rest, _ := strings.Cut(line, " ")
		got[name] = strings.Join(strings.Fields(rest), " ")
	}
	for name, want := range map[string]string{
		"REJOIN_PING_INTERVAL": "7s environment", "REJOIN_PING_TIMEOUT": "20s default", "REJOIN_API_KEYS": "(not shown) environment",
		"REJOIN_QUEUE_BUDGET": "536870912 computed", "REJOIN_REDIS_URL": "redis://h:1 environment", "REJOIN_PARTITIONS": "1 computed",
		"REJOIN_JWT_ISSUER": "default",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	level := filepath.Join(t.TempDir(), "level")
	if err := os.WriteFile(level, []byte("warn\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REJOIN_LOG_LEVEL_FILE", level)
	if _, stdout, _ := execute(t, "-config"); !regexp.MustCompile(`REJOIN_LOG_LEVEL +warn +file `).MatchString(stdout) {
		t.Errorf("no level of the file: %s", stdout)
	}
	if len(got) != len(variables()) {
		t.Errorf("got %d variables, want %d", len(got), len(variables()))
	}
}

// TestCheckOnline: -check -online finds what keeps a node from joining, and joins nothing.
func TestCheckOnline(t *testing.T) {
	server := redistest.Start(t, "user weak on >pw ~* &* +@all -xadd -hdel")
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/none" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	}))
	defer keys.Close()
	variables := map[string]string{
		"REJOIN_CLUSTER_SECRET": "that of the test's cluster", "REJOIN_JWT_AUDIENCE": "me", "REJOIN_REDIS_URL": server.URL(), "REJOIN_JWKS_URL": keys.URL,
	}
	for _, tt := range []struct {
		name, value string
		code        int
		says        string
	}{
		{"REJOIN_JWKS_URL", keys.URL, 0, "REJOIN_JWKS_URL: ok\nok\n"},
		{"REJOIN_REDIS_URL", "redis://127.0.0.1:1", 1, "REJOIN_REDIS_URL: redisurl: check 127.0.0.1:1"},
		{"REJOIN_REDIS_URL", "redis://weak:no@" + server.Addr, 1, "WRONGPASS"},
		{"REJOIN_REDIS_URL", "redis://weak:pw@" + server.Addr, 1, "xadd"},
		{"REJOIN_JWKS_URL", keys.URL + "/none", 1, "REJOIN_JWKS_URL: "},
	} {
		environment(t, variables)
		t.Setenv(tt.name, tt.value)
		var out bytes.Buffer
		if code := run(t.Context(), t.Context(), nil, []string{"-check", "-online"}, &out, &out); code != tt.code || !strings.Contains(out.String(), tt.says) {
			t.Errorf("%s=%s: exit code %d, %s, want %d and %q", tt.name, tt.value, code, &out, tt.code, tt.says)
		}
	}
	if keys, err := server.Client().Keys(t.Context(), "*").Result(); len(keys) > 0 || err != nil {
		t.Errorf("Redis has the keys %q, %v, want none", keys, err)
	}
	if code, _, stderr := execute(t, "-online"); code != exitUsage || !strings.Contains(stderr, "-check") {
		t.Errorf("-online alone: exit code %d, %s", code, stderr)
	}
}

// TestTokenWarnsOfUnknownClaims: a claim that has no effect is named, and what was probably meant.
func TestTokenWarnsOfUnknownClaims(t *testing.T) {
	environment(t, map[string]string{"REJOIN_JWT_SECRET": strings.Repeat("s", 32)})
	for claims, want := range map[string]string{
		`{"sub":"ann","jti":"1","rejoin":{"rooms":["a"],"can":{"all":true}}}`: "",
		`{"sub":"ann","rooms":["a"]}`:                                         "claims that map to nothing: rooms (did you mean rejoin.rooms?)",
		`{"sub":"ann","rejoin":{"room":["a"]}}`:                               "claims that map to nothing: rejoin.room",
		`{"sub":"ann","role":"admin"}`:                                        "claims that map to nothing: role",
	} {
		code, stdout, stderr := execute(t, "-token", claims)
		if code != exitOK || strings.Count(stdout, ".") != 2 || (want == "") != (stderr == "") || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q, want a token and %q", claims, code, stdout, stderr, want)
		}
	}
}
