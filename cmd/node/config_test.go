package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// environment replaces all REJOIN_ variables until the end of a test.
func environment(t *testing.T, variables map[string]string) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, prefix+"_") {
			t.Setenv(name, value) // puts it back after the test
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, value := range variables {
		t.Setenv(name, value)
	}
}

func TestDefaults(t *testing.T) {
	environment(t, nil)
	c, r := load()
	if len(r.problems)+len(r.warnings) > 0 {
		t.Fatalf("the defaults are not good: %+v", r)
	}
	if c.Addr != (address{"127.0.0.1", 3000}) || c.InternalAddr != (address{"127.0.0.1", 3001}) || c.AllowAnonymous ||
		c.Path != "/socket.io/" || !slices.Equal(c.Namespaces, list{"/"}) || c.Origins != nil ||
		!slices.Equal(c.Transports, list{"polling", "websocket"}) || c.PingInterval != 25*time.Second ||
		c.PingTimeout != 20*time.Second || c.UpgradeTimeout != 10*time.Second || c.ConnectTimeout != 45*time.Second ||
		c.MaxPayload != 1_000_000 || c.RecoveryWindow != 2*time.Minute || c.BacklogLimit != 1000 || c.BacklogTTL != time.Hour ||
		c.ReplayLimit != 10_000 || c.SendQueueBytes != 1<<20 || c.ClientDir != "" || !c.Demo ||
		c.LogLevel != "info" || c.LogFormat != "json" || c.NodeID != "" {
		t.Errorf("%+v", c)
	}
}

func TestEveryVariableIsDocumented(t *testing.T) {
	for _, v := range variables() {
		if v.field.Tag.Get("desc") == "" || v.allowed() == "" {
			t.Errorf("%s: no meaning, or no allowed values", v.name)
		}
	}
}

func TestValues(t *testing.T) {
	environment(t, map[string]string{
		"REJOIN_ADDR":             "[::1]:0",
		"REJOIN_NAMESPACES":       "/, /chat",
		"REJOIN_ORIGINS":          "https://a.example, http://b.example:8080, https://*.c.example, capacitor://localhost, file://, null",
		"REJOIN_TRANSPORTS":       "websocket",
		"REJOIN_MAX_PAYLOAD":      "64KiB",
		"REJOIN_SEND_QUEUE_BYTES": "2 MiB",
		"REJOIN_RECOVERY_WINDOW":  "90s",
		"REJOIN_DEMO":             "false",
		"REJOIN_LOG_FORMAT":       "console",
		"REJOIN_NODE_ID":          "n-_1",
		"REJOIN_TRUSTED_PROXIES":  "10.1.2.3/8, 192.0.2.1, ::1",
	})
	c, r := load()
	if len(r.problems)+len(r.warnings) > 0 {
		t.Fatalf("refused: %+v", r)
	}
	if c.Addr != (address{"::1", 0}) || !slices.Equal(c.Namespaces, list{"/", "/chat"}) ||
		!slices.Equal(c.Origins, origins{"https://a.example", "http://b.example:8080", "https://*.c.example", "capacitor://localhost", "file://", "null"}) ||
		!slices.Equal(c.Transports, list{"websocket"}) || c.MaxPayload != 65536 || c.SendQueueBytes != 2<<20 ||
		c.RecoveryWindow != 90*time.Second || c.Demo || c.LogFormat != "console" || c.NodeID != "n-_1" ||
		fmt.Sprint(c.TrustedProxies) != "[10.0.0.0/8 192.0.2.1/32 ::1/128]" {
		t.Errorf("%+v", c)
	}
}

func TestRefusals(t *testing.T) {
	for _, test := range []struct{ name, value, says string }{
		{"REJOIN_ADDR", "3000", "host:port"},
		{"REJOIN_ADDR", "127.0.0.1:http", "host:port"},
		{"REJOIN_ADDR", "127.0.0.1:65536", "host:port"},
		{"REJOIN_ADDR", "0.0.0.0:3000", "REJOIN_ALLOW_ANONYMOUS=true"},
		{"REJOIN_ADDR", ":3000", "REJOIN_ALLOW_ANONYMOUS=true"},
		{"REJOIN_ADDR", "example.com:3000", "REJOIN_ALLOW_ANONYMOUS=true"},
		{"REJOIN_INTERNAL_ADDR", "[::]:3001", "REJOIN_ALLOW_ANONYMOUS=true"},
		{"REJOIN_INTERNAL_ADDR", "127.0.0.1:3000", "another address"},
		{"REJOIN_INTERNAL_ADDR", ":3001", "REJOIN_CLUSTER_SECRET, REJOIN_API_KEYS"},
		{"REJOIN_ADVERTISE_ADDR", "10.0.0.1", "host:port"},
		{"REJOIN_ALLOW_ANONYMOUS", "yes", "true or false"},
		{"REJOIN_PATH", "/", "not / alone"},
		{"REJOIN_PATH", "/socket.io", "ends with a slash"},
		{"REJOIN_PATH", "/a/../b/", "ends with a slash"},
		{"REJOIN_PATH", "/a/./b/", "ends with a slash"},
		{"REJOIN_PATH", "//a/", "ends with a slash"},
		{"REJOIN_PATH", "/{id}/", "letters"},
		{"REJOIN_PATH", "/demo/", "REJOIN_DEMO=false"},
		{"REJOIN_NAMESPACES", "", "begin with a slash"},
		{"REJOIN_NAMESPACES", "/,chat", "begin with a slash"},
		{"REJOIN_NAMESPACES", "/a,/a", "different"},
		{"REJOIN_NAMESPACES", "/a?b", "begin with a slash"},
		{"REJOIN_ORIGINS", "example.com", `write "https://example.com"`},
		{"REJOIN_ORIGINS", "https://a.example,https://*", "scheme://*.domain"},
		{"REJOIN_ORIGINS", "*.com/path", "missing scheme"},
		{"REJOIN_ORIGINS", "https://a.example,https://a.example", "scheme://host"},
		{"REJOIN_CLIENT_IP_HEADER", "", "name of a header"},
		{"REJOIN_TRANSPORTS", "", "polling, websocket or both"},
		{"REJOIN_REDIS_PREFIX", "a b", "letters, digits"},
		{"REJOIN_RECOVERY_CLIENTS", "some", "recognized, requested, all"},
		{"REJOIN_HEALTH_PATH", "healthz", "a path such as"},
		{"REJOIN_HEALTH_PATH", "/healthz/", "a path such as"},
		{"REJOIN_HEALTH_PATH", "/a/../b", "a path such as"},
		{"REJOIN_HEALTH_PATH", "/socket.io", "outside REJOIN_PATH"},
		{"REJOIN_HEALTH_PATH", "/socket.io/up", "outside REJOIN_PATH"},
		{"REJOIN_HEALTH_PATH", "/demo/up", "REJOIN_DEMO=false"},
		{"REJOIN_KEEP_ALIVE", "0s", "from 1s to 24h"},
		{"REJOIN_CLIENT_IP_HEADER", "X-Forwarded-For, Forwarded", "name of a header"},
		{"REJOIN_ORIGINS", "https://example.com/", "scheme://host"},
		{"REJOIN_ORIGINS", "*,https://example.com", "scheme://host"},
		{"REJOIN_TRANSPORTS", "webtransport", "polling, websocket or both"},
		{"REJOIN_TRANSPORTS", "polling,", "polling, websocket or both"},
		{"REJOIN_PING_INTERVAL", "25", "from 50ms to 1h"},
		{"REJOIN_PING_INTERVAL", "0s", "from 50ms to 1h"},
		{"REJOIN_PING_TIMEOUT", "-1s", "from 50ms to 1h"},
		{"REJOIN_UPGRADE_TIMEOUT", "2h", "from 50ms to 1h"},
		{"REJOIN_CONNECT_TIMEOUT", "", "from 50ms to 1h"},
		{"REJOIN_MAX_PAYLOAD", "1MB", "1MiB"},
		{"REJOIN_MAX_PAYLOAD", "-1", "from 128 to 256MiB"},
		{"REJOIN_MAX_PAYLOAD", "9223372036854775807GiB", "from 128 to 256MiB"},
		{"REJOIN_RECOVERY_WINDOW", "25h", "from 0s to 24h"},
		{"REJOIN_BACKLOG_LIMIT", "1e3", "from 0 to 1000000"},
		{"REJOIN_BACKLOG_TTL", "3m24s", "3m25s or more"},
		{"REJOIN_REPLAY_LIMIT", "0", "from 1 to 10000000"},
		{"REJOIN_SEND_QUEUE_BYTES", "0", "from 1KiB to 1GiB"},
		{"REJOIN_HANDSHAKE_RATE", "-1", "from 0 to 1000000"},
		{"REJOIN_QUEUE_BUDGET", "64KiB", "at least REJOIN_SEND_QUEUE_BYTES (1048576)"},
		{"REJOIN_TRUSTED_PROXIES", "10.0.0.0/8, proxy.example", "10.0.0.0/8"},
		{"REJOIN_TRUSTED_PROXIES", "fe80::1%eth0", "10.0.0.0/8"},
		{"REJOIN_TRUSTED_PROXIES", "::ffff:10.0.0.1", "10.0.0.0/8"}, // would match no client: clients' addresses are unmapped
		{"REJOIN_TRUSTED_PROXIES", "::ffff:10.0.0.0/104", "10.0.0.0/8"},
		{"REJOIN_TLS_CERT", "/nowhere", "together with REJOIN_TLS_KEY"},
		{"REJOIN_CLIENT_DIR", "/nowhere", "no such file"},
		{"REJOIN_DEMO", "on", "true or false"},
		{"REJOIN_LOG_LEVEL", "loud", "debug, info, warn, error"},
		{"REJOIN_LOG_FORMAT", "xml", "json, console"},
		{"REJOIN_NODE_ID", "node1", "4 characters"},
		{"REJOIN_NODE_ID", "ab/c", "4 characters"},
	} {
		t.Run(test.name+"="+test.value, func(t *testing.T) {
			environment(t, map[string]string{test.name: test.value})
			_, r := load()
			if len(r.problems) != 1 || !strings.HasPrefix(r.problems[0], test.name+"=") || !strings.Contains(r.problems[0], test.says) {
				t.Errorf("got problems %q, want one about %s with %q", r.problems, test.name, test.says)
			}
		})
	}
}

// The budgets are shares of GOMEMLIMIT, if that is set. With what each connection may have beside them they
// leave a part of it to the garbage collector.
func TestBudgets(t *testing.T) {
	type budgets struct{ sessions, receive, memberships, backlogs, queues int }
	for _, test := range []struct {
		limit int64
		c     config
		want  budgets
	}{
		{math.MaxInt64, config{}, budgets{0, 128 << 20, 512 << 20, 256 << 20, 512 << 20}},
		{256 << 20, config{}, budgets{6144, 24 << 20, 40 << 20, 40 << 20, 24 << 20}},
		{1 << 30, config{}, budgets{24_576, 96 << 20, 160 << 20, 160 << 20, 96 << 20}},
		{1 << 30, config{Sessions: 9, ReceiveBudget: 3 << 20, MembershipBudget: 4 << 20, BacklogBytes: 6 << 20, QueueBudget: 5 << 20}, budgets{9, 3 << 20, 4 << 20, 6 << 20, 5 << 20}},
		{4 << 20, config{SendQueueBytes: 2 << 20, MaxPayload: 1 << 20}, budgets{96, 2 << 20, 640 << 10, 640 << 10, 2 << 20}},
	} {
		before := debug.SetMemoryLimit(test.limit)
		got := budgets{test.c.sessions(), test.c.receiveBudget(), test.c.membershipBudget(), test.c.backlogBytes(), test.c.queueBudget()}
		debug.SetMemoryLimit(before)
		if got != test.want {
			t.Errorf("with a limit of %d: got %+v, want %+v", test.limit, got, test.want)
		}
	}
}

func TestAllProblemsAreReported(t *testing.T) {
	environment(t, map[string]string{
		"REJOIN_ADDR":           "0.0.0.0:3000",
		"REJOIN_PING_INTERVAL":  "soon",
		"REJOIN_LOG_LEVEL":      "loud",
		"REJOIN_PING_INTERVALL": "25s",
		"REJOIN_BACKLOG_TTL":    "1m",
	})
	code, stdout, stderr := execute(t)
	if code != 2 || stdout != "" {
		t.Errorf(`exit code %d, stdout %q, want 2, ""`, code, stdout)
	}
	for _, want := range []string{
		"REJOIN_ADDR=0.0.0.0:3000: must be",
		"REJOIN_PING_INTERVAL=soon: must be a duration",
		"REJOIN_LOG_LEVEL=loud: must be debug",
		"REJOIN_PING_INTERVALL=25s: is not a variable of this program; did you mean REJOIN_PING_INTERVAL?",
		"REJOIN_BACKLOG_TTL=1m0s: must be 3m25s or more",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr lacks %q:\n%s", want, stderr)
		}
	}
	if lines := strings.Count(stderr, "\n"); lines != 5 {
		t.Errorf("%d lines for 5 problems:\n%s", lines, stderr)
	}
}

func TestUnknownVariables(t *testing.T) {
	for name, want := range map[string]string{
		"REJOIN_MAXPAYLOAD":  "did you mean REJOIN_MAX_PAYLOAD?",
		"REJOIN_ADDRESS":     "did you mean REJOIN_ADDR?",
		"REJOIN_SOMETHING":   "-h lists them",
		"REJOIN_LOG_LEVEL_X": "did you mean REJOIN_LOG_LEVEL?",
	} {
		environment(t, map[string]string{name: "1"})
		if _, r := load(); len(r.problems) != 1 || !strings.Contains(r.problems[0], name+"=1: is not a variable") || !strings.Contains(r.problems[0], want) {
			t.Errorf("%s: got problems %q, want one that suggests %q", name, r.problems, want)
		}
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVariablesOfKubernetes(t *testing.T) {
	environment(t, map[string]string{
		"REJOIN_SERVICE_HOST":          "10.0.0.1",
		"REJOIN_SERVICE_PORT_HTTP":     "80",
		"REJOIN_PORT":                  "tcp://10.0.0.1:80",
		"REJOIN_PORT_80_TCP_PROTO":     "tcp",
		"REJOIN_PORT_80_TCP_ADDR":      "10.0.0.1",
		"REJOIN_SERVICE_PORT":          "80",
		"REJOIN_SERVICE_PORT_INTERNAL": "81",
	})
	_, r := load()
	if len(r.problems) != 0 {
		t.Errorf("refused: %q", r.problems)
	}
	if len(r.warnings) != 1 || !strings.Contains(r.warnings[0], "REJOIN_PORT, ") || !strings.Contains(r.warnings[0], "REJOIN_SERVICE_HOST") {
		t.Errorf("warnings %q, want one that names them all", r.warnings)
	}
}

func TestAnonymousAddresses(t *testing.T) {
	environment(t, map[string]string{"REJOIN_ADDR": "0.0.0.0:3000", "REJOIN_INTERNAL_ADDR": ":3001", "REJOIN_ALLOW_ANONYMOUS": "true"})
	if _, r := load(); len(r.problems) != 0 {
		t.Errorf("refused though allowed: %q", r.problems)
	}
}

func TestRecoveryNeedsBacklogs(t *testing.T) {
	environment(t, map[string]string{"REJOIN_BACKLOG_LIMIT": "0"})
	c, r := load()
	if len(r.problems) != 0 || len(r.warnings) != 1 || !strings.Contains(r.warnings[0], "recovery is off") || c.recovers() {
		t.Errorf("%+v, recovers: %v", r, c.recovers())
	}
	environment(t, map[string]string{"REJOIN_BACKLOG_LIMIT": "0", "REJOIN_RECOVERY_WINDOW": "0", "REJOIN_BACKLOG_TTL": "1s"})
	if c, r := load(); len(r.problems)+len(r.warnings) != 0 || c.recovers() {
		t.Errorf("%+v, recovers: %v", r, c.recovers())
	}
}

func TestClientDir(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "socket.io.js"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	environment(t, map[string]string{"REJOIN_CLIENT_DIR": dir})
	if _, r := load(); len(r.problems) != 1 || !strings.Contains(r.problems[0], "missing socket.io.js.map, socket.io.min.js,") {
		t.Errorf("problems %q do not name the missing part", r.problems)
	}
}

// execute runs the program with a context that has ended, so that a node stops
// as soon as it has started.
func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code = run(ctx, ctx, nil, args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestHelp(t *testing.T) {
	environment(t, map[string]string{"REJOIN_PING_INTERVAL": "bad"})
	code, stdout, stderr := execute(t, "-h")
	if code != 0 || stderr != "" {
		t.Errorf(`exit code %d, stderr %q, want 0, ""`, code, stderr)
	}
	words := strings.Join(strings.Fields(stdout), " ")
	for _, v := range variables() {
		text := fmt.Sprintf("%s (default: %s) %s", v.name, cmp.Or(v.field.Tag.Get("default"), "none"), v.field.Tag.Get("desc"))
		if !strings.Contains(words, strings.Join(strings.Fields(text), " ")) {
			t.Errorf("no %s", text)
		}
	}
}

func TestCheck(t *testing.T) {
	environment(t, map[string]string{"REJOIN_PORT": "tcp://10.0.0.1:80"})
	if code, stdout, stderr := execute(t, "-check"); code != 0 || stdout != "ok\n" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "warning") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	environment(t, map[string]string{"REJOIN_PING_INTERVAL": "bad"})
	if code, stdout, stderr := execute(t, "-check"); code != 2 || stdout != "" || !strings.Contains(stderr, "REJOIN_PING_INTERVAL=bad") {
		t.Errorf(`exit code %d, stdout %q, stderr %q, want 2, "", text with "REJOIN_PING_INTERVAL=bad"`, code, stdout, stderr)
	}
}

func TestVersion(t *testing.T) {
	if code, stdout, stderr := execute(t, "-version"); code != 0 || stderr != "" || !strings.HasPrefix(stdout, "rejoin "+version+" (") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// The version is in the program and in the changelog, which must agree.
func TestVersionIsTheChangelogs(t *testing.T) {
	source, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	_, newest, _ := strings.Cut(string(source), "\n## ")
	for unreleased := regexp.MustCompile(`^[^\n]*\(not released\)`); unreleased.MatchString(newest); {
		_, newest, _ = strings.Cut(newest, "\n## ")
	}
	if !strings.HasPrefix(newest, version) {
		t.Errorf("the newest release of CHANGELOG.md is not %s", version)
	}
}

func TestArgumentsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"start"}, {"-x"}, {"-check", "now"}, {"--addr=:80"}} {
		if code, stdout, stderr := execute(t, args...); code != 2 || stdout != "" || !strings.Contains(stderr, "-h") {
			t.Errorf(`%q: exit code %d, stdout %q, stderr %q, want 2, "", text with "-h"`, args, code, stdout, stderr)
		}
	}
}

// TestAPIKeys: keys are checked, allow a non-loopback internal port, and are never shown.
func TestAPIKeys(t *testing.T) {
	environment(t, map[string]string{"REJOIN_API_KEYS": "0123456789abcdef, the-second-key-is-good", "REJOIN_INTERNAL_ADDR": ":3001"})
	c, r := load()
	if len(r.problems)+len(r.warnings) > 0 || !slices.Equal(c.APIKeys.list, list{"0123456789abcdef", "the-second-key-is-good"}) {
		t.Errorf("got %+v, want two keys and no problems", r)
	}
	for keys, what := range map[string]string{
		"0123456789abcde": "key 1 of REJOIN_API_KEYS has only 15 characters", "0123456789abcdef,short": "key 2",
	} {
		environment(t, map[string]string{"REJOIN_API_KEYS": keys})
		if _, r := load(); len(r.problems) > 0 || len(r.warnings) != 1 || !strings.Contains(r.warnings[0], what) || strings.Contains(r.warnings[0], keys) {
			t.Errorf("%s: got %+v, want one warning with %q and without the key", keys, r, what)
		}
	}
	for _, keys := range []string{",", "0123456789abcdef,", "0123456789abcdef,0123456789abcdef", "0123456789 abcdef", "0123456789abcdeé"} {
		environment(t, map[string]string{"REJOIN_API_KEYS": keys})
		if _, r := load(); len(r.problems) != 1 || strings.Contains(r.problems[0], "0123") || !strings.Contains(r.problems[0], "(not shown)") {
			t.Errorf("%q: got %+v, want one problem that does not show the keys", keys, r)
		}
	}
	if text := fmt.Sprintf("%v %+v", c.APIKeys, c); strings.Contains(text, "0123456789abcdef") {
		t.Errorf("shown: %s", text)
	}
}
