package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/internal/auth"
)

const testSecret = "a secret of thirty-two characters"

// publicKey returns a public key as PEM.
func publicKey(t *testing.T) string {
	t.Helper()
	key, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// holding returns the name of a file that holds a text.
func holding(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// With a key of any kind the node may listen on non-loopback addresses.
func TestAuthenticationAllowsAddresses(t *testing.T) {
	for name, value := range map[string]string{
		"REJOIN_JWT_SECRET":     testSecret,
		"REJOIN_JWT_PUBLIC_KEY": publicKey(t),
		"REJOIN_JWKS_URL":       "https://keys.example/jwks.json",
	} {
		environment(t, map[string]string{"REJOIN_ADDR": ":3000", name: value, "REJOIN_JWT_AUDIENCE": "here"})
		c, r := load()
		if len(r.problems)+len(r.warnings) > 0 || !c.authenticates() {
			t.Errorf("%s: got %+v, want no problems and authentication", name, r)
		}
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAuthenticationRefusals(t *testing.T) {
	for _, test := range []struct{ name, value, says string }{
		{"REJOIN_JWT_SECRET", "too short", "16 characters"},
		{"REJOIN_JWT_PUBLIC_KEY", "no PEM", "as PEM"},
		{"REJOIN_JWT_PUBLIC_KEY", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "as PEM"},
		{"REJOIN_JWKS_URL", "file:///etc/keys", "http or https"},
		{"REJOIN_JWKS_URL", "keys.example", "http or https"},
		{"REJOIN_DEFAULT_CAN", "everything", "a JSON object"},
		{"REJOIN_DEFAULT_CAN", `{"jion": ["*"]}`, "a JSON object"},
		{"REJOIN_DEFAULT_CAN", `{"join": ["a[b"]}`, "a JSON object"},
		{"REJOIN_JWT_SECRET_FILE", "/nowhere", "can be read"},
		{"REJOIN_JWT_SECRET_FILE", holding(t, ""), "a file of 1 to"},
		{"REJOIN_JWT_SECRET_FILE", holding(t, "\n\n"), "a file of 1 to"},
		{"REJOIN_JWT_SECRET_FILE", holding(t, strings.Repeat("x", maxFile+1)), "a file of 1 to"},
		{"REJOIN_JWT_PUBLIC_KEY_FILE", holding(t, "no PEM"), "as PEM"},
		{"REJOIN_REDIS_URL_FILE", holding(t, "no URL"), "redis://"},
	} {
		environment(t, map[string]string{test.name: test.value})
		if _, r := load(); len(r.problems) != 1 || !strings.HasPrefix(r.problems[0], test.name+"=") || !strings.Contains(r.problems[0], test.says) {
			t.Errorf("%s: got problems %q, want one with %q", test.name, r.problems, test.says)
		} else if strings.Contains(r.problems[0], "too short") || strings.Contains(r.problems[0], "PRIVATE") {
			t.Errorf("a secret is shown: %s", r.problems[0])
		}
		if err := os.Unsetenv(test.name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestJWKSURLIsNotShown(t *testing.T) {
	environment(t, map[string]string{"REJOIN_JWKS_URL": "https://s3cret:s3cret@keys.example/?key=s3cret#s3cret"})
	c, r := load()
	if text := fmt.Sprintf("%v %+v %v", c.JwksURL, c, r); c.JwksURL == "" || strings.Contains(text, "s3cret") {
		t.Errorf("shown: %s", text)
	}
}

func TestAuthenticationWarnings(t *testing.T) {
	for says, variables := range map[string]map[string]string{
		"RFC 7518":       {"REJOIN_JWT_SECRET": "more than sixteen"},
		"other services": {"REJOIN_JWKS_URL": "https://keys.example/"},
		"is not https":   {"REJOIN_JWKS_URL": "http://keys.example/", "REJOIN_JWT_AUDIENCE": "x"},
		"have no effect": {"REJOIN_JWT_ISSUER": "x"},
		"":               {"REJOIN_JWT_SECRET": testSecret, "REJOIN_JWT_ISSUER": "x"},
	} {
		t.Run(says, func(t *testing.T) {
			environment(t, variables)
			_, r := load()
			if all := strings.Join(r.warnings, "\n"); len(r.problems) > 0 || !strings.Contains(all, says) || (says == "") != (all == "") {
				t.Errorf("%+v, want %q", r, says)
			}
		})
	}
}

// Every secret, and every value that may be too long for the environment, can
// be in a file.
func TestValuesFromFiles(t *testing.T) {
	key := publicKey(t)
	for _, end := range []string{"", "\n", "\r\n", "\n\n", "\r\n\r\n"} {
		environment(t, map[string]string{
			"REJOIN_JWT_SECRET_FILE":     holding(t, testSecret+end),
			"REJOIN_JWT_PUBLIC_KEY_FILE": holding(t, key+end),
			"REJOIN_CLUSTER_SECRET_FILE": holding(t, "that of the cluster, with a space at the end "+end),
			"REJOIN_REDIS_URL_FILE":      holding(t, "redis://127.0.0.1:6379"+end),
		})
		c, r := load()
		if len(r.problems)+len(r.warnings) > 0 || c.JWTSecret != testSecret || c.ClusterSecret != "that of the cluster, with a space at the end " ||
			strings.TrimSpace(string(c.JWTPublicKey)) != strings.TrimSpace(key) || c.RedisURL.target == nil {
			t.Errorf("got %+v, want the values of the files and no problems", r)
		}
	}
	t.Setenv("REJOIN_JWT_SECRET", testSecret)
	if _, r := load(); len(r.problems) != 1 || !strings.Contains(r.problems[0], "REJOIN_JWT_SECRET is set, too") {
		t.Errorf("both are set: %q", r.problems)
	}
	for _, v := range variables() {
		if v.field.Tag.Get("secret") != "" && !v.mayBeFile() {
			t.Errorf("%s can't be in a file", v.name)
		}
	}
	environment(t, map[string]string{"REJOIN_ADDR_FILE": "x"})
	if _, r := load(); !strings.Contains(strings.Join(r.problems, ""), "REJOIN_ADDR_FILE=x: is not a variable") {
		t.Errorf("got problems %q, want REJOIN_ADDR_FILE to be unknown", r.problems)
	}
}

func TestToken(t *testing.T) {
	environment(t, map[string]string{"REJOIN_JWT_SECRET": testSecret, "REJOIN_JWT_AUDIENCE": "here"})
	code, stdout, stderr := execute(t, "-token", `{"sub": "alice"}`)
	if code != exitOK || stderr != "" {
		t.Fatalf(`exit code %d, stderr %q, want %d, ""`, code, stderr, exitOK)
	}
	v, err := auth.New(auth.Options{Secret: []byte(testSecret), Audience: "here"})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if id, err := v.Verify(t.Context(), strings.TrimSpace(stdout)); err != nil || id.User != "alice" {
		t.Errorf("the printed token verifies as %+v, %v, want user alice", id, err)
	}
	for claims, says := range map[string]string{"alice": "JSON object", `{}`: "user", `{"sub":"a","exp":1}`: "expired"} {
		if code, stdout, stderr := execute(t, "-token", claims); code != exitUsage || stdout != "" || !strings.Contains(stderr, says) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", claims, code, stdout, stderr)
		}
	}
	environment(t, nil)
	if err := os.Unsetenv("REJOIN_JWT_SECRET"); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := execute(t, "-token", `{"sub": "alice"}`); code != exitUsage || !strings.Contains(stderr, "REJOIN_JWT_SECRET") {
		t.Errorf(`without a secret: %d, %q, want %d, text with "REJOIN_JWT_SECRET"`, code, stderr, exitUsage)
	}
}

func TestClaimVariables(t *testing.T) {
	for _, test := range []struct{ name, value, says string }{
		{"REJOIN_CLAIM_USER", "a..b", `claim "a..b": empty name`},
		{"REJOIN_CLAIM_AUDIENCE", `a\b`, "backslash"},
		{"REJOIN_CLAIM_ROOMS", "groups, groups", "a list of"},
		{"REJOIN_CLAIM_ROOMS", "groups as user:{}", "reserved for users"},
		{"REJOIN_CLAIM_CAN", `{"a":{"jion":["x"]}}`, `unknown name "jion"`},
		{"REJOIN_CLAIM_CAN", `everything`, "JSON object"},
		{"REJOIN_CLAIM_CAN", `{"a":{"join":["` + strings.Join(numbers(60), `","`) + `"]},"b":{"join":["x` + strings.Join(numbers(60), `","x`) + `"]}}`, "more than 100"},
	} {
		environment(t, map[string]string{"REJOIN_JWT_SECRET": testSecret, test.name: test.value})
		if _, r := load(); len(r.problems) != 1 || !strings.HasPrefix(r.problems[0], test.name+"=") || !strings.Contains(r.problems[0], test.says) {
			t.Errorf("%s=%s: got problems %q, want one with %q", test.name, test.value, r.problems, test.says)
		}
		if err := os.Unsetenv(test.name); err != nil {
			t.Fatal(err)
		}
	}
	for says, variables := range map[string]map[string]string{
		"without a key":       {"REJOIN_CLAIM_USER": "oid"},
		"REJOIN_JWT_AUDIENCE": {"REJOIN_CLAIM_AUDIENCE": "client_id", "REJOIN_JWT_SECRET": testSecret},
	} {
		t.Run(says, func(t *testing.T) {
			environment(t, variables)
			if _, r := load(); len(r.problems) > 0 || len(r.warnings) != 1 || !strings.Contains(r.warnings[0], says) {
				t.Errorf("%+v, want a warning with %q", r, says)
			}
		})
	}
}

func numbers(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint(i)
	}
	return all
}

// -check -token needs no key and prints what claims give; both name claims without effect.
func TestExplainedClaims(t *testing.T) {
	environment(t, map[string]string{"REJOIN_CLAIM_ROOMS": "groups=/teams/{} as team:{}", "REJOIN_DEFAULT_CAN": `{"join":["a<b"]}`})
	code, stdout, stderr := execute(t, "-check", "-token", `{"sub":"ann","groups":["/teams/7","/staff"],"azp":"web"}`)
	if code != exitOK || stdout != `{"user":"ann","rooms":["team:7"],"can":{"join":["a<b"]}}`+"\n" ||
		!strings.Contains(stderr, "map to nothing: azp") || !strings.Contains(stderr, "map to nothing: /staff") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, stdout, stderr := execute(t, "-check", "-token", `{"sub":""}`); code != exitUsage || stdout != "" || !strings.Contains(stderr, "user") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	t.Setenv("REJOIN_JWT_SECRET", testSecret)
	if code, stdout, stderr := execute(t, "-token", `{"sub":"ann","role":"x"}`); code != exitOK || strings.Count(stdout, ".") != 2 || !strings.Contains(stderr, "map to nothing: role") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}
