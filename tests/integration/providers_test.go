package integration

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// providersDocument describes identity providers: for each the variables, the claims of a token,
// and what a node makes of them, in blocks of code.
const providersDocument = "../../docs/identity-providers.md"

// A provider is one section of the document.
type provider struct {
	name, claims, result string
	variables            []string
}

func documentedProviders(t *testing.T) (all []provider) {
	t.Helper()
	text, err := os.ReadFile(providersDocument)
	if err != nil {
		t.Fatal(err)
	}
	for _, section := range strings.Split(string(text), "\n### ")[1:] {
		name, _, _ := strings.Cut(section, "\n")
		code := fence.FindAllStringSubmatch(section, -1)
		if len(code) != 3 {
			t.Fatalf("%s: %d blocks of code, want 3", name, len(code))
		}
		all = append(all, provider{
			name: name, claims: code[1][2], result: strings.TrimSpace(code[2][2]),
			variables: strings.Split(strings.TrimSpace(code[0][2]), "\n"),
		})
	}
	return all
}

// An issuer signs tokens with RS256 and serves its key set.
type issuer struct {
	key *rsa.PrivateKey
	url string
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	set := fmt.Sprintf(`{"keys":[{"kty":"RSA","use":"sig","kid":"k1","n":%q,"e":%q}]}`,
		encode(key.N.Bytes()), encode(big.NewInt(int64(key.E)).Bytes()))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, set) }))
	t.Cleanup(server.Close)
	return &issuer{key, server.URL}
}

// token returns a token with some claims, a JSON object, and a fresh expiry.
func (i *issuer) token(t *testing.T, claims string) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	claims = strings.Replace(claims, "{", fmt.Sprintf(`{"exp":%d,`, time.Now().Add(longLived).Unix()), 1)
	text := encode([]byte(`{"alg":"RS256","kid":"k1"}`)) + "." + encode([]byte(claims))
	hash := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, hash[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + encode(signature)
}

// TestIdentityProviders: a stock client with a token of each documented shape connects, with the
// documented user, rooms and permissions, and no others. -check -token prints the same.
func TestIdentityProviders(t *testing.T) {
	t.Parallel()
	keys := startIssuer(t)
	providers := documentedProviders(t)
	if len(providers) < 5 {
		t.Fatalf("%d providers, want 5", len(providers))
	}
	for _, p := range providers {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			var explained, notes bytes.Buffer
			check := nodetest.Command(nodeBinary, p.variables...)
			check.Args = append(check.Args, "-check", "-token", p.claims)
			check.Stdout, check.Stderr = &explained, &notes
			if err := check.Run(); err != nil || strings.TrimSpace(explained.String()) != p.result {
				t.Errorf("-check -token: %v, %s%s, want %s", err, &explained, &notes, p.result)
			}
			variables := slices.DeleteFunc(slices.Clone(p.variables), func(v string) bool { return strings.HasPrefix(v, "REJOIN_JWKS_URL=") })
			n := startNode(t, append(variables, "REJOIN_JWKS_URL="+keys.url)...)
			d := startDriver(t)
			s := d.open("s", newest, n.url(), with(keys.token(t, p.claims)))
			s.checkIdentity(p.result)

			audience := ""
			for _, v := range p.variables {
				if value, ok := strings.CutPrefix(v, "REJOIN_JWT_AUDIENCE="); ok {
					audience = value
				}
			}
			other := strings.ReplaceAll(p.claims, `"`+audience+`"`, `"another"`)
			if refused := d.opening("other", newest, n.url(), with(keys.token(t, other))); refused.refused() != "token_invalid" {
				t.Error("accepted for another audience")
			}
		})
	}
}

// checkIdentity compares the socket's rooms and what it may do with an identity, as -check -token
// prints it.
func (s *npmSocket) checkIdentity(identity string) {
	t := s.driver.t
	t.Helper()
	var id struct {
		User  string
		Rooms []string
		Can   map[string]any
	}
	if err := json.Unmarshal([]byte(identity), &id); err != nil {
		t.Fatal(err)
	}
	rooms := s.call("leave", "none").Rooms
	want := append([]string{"user:" + id.User}, id.Rooms...)
	slices.Sort(rooms)
	slices.Sort(want)
	if !slices.Equal(rooms, want) {
		t.Errorf("in the rooms %q, want %q", rooms, want)
	}
	for _, event := range []string{"join", "to", "history", "members", "broadcast", "all", "private"} {
		args := map[string][]any{
			"to": {"elsewhere", "x"}, "broadcast": {"x"}, "all": {"x"}, "private": {"nobody", "x"},
		}[event]
		if args == nil {
			args = []any{"elsewhere"}
		}
		patterns, listed := id.Can[event].([]any)
		allowed := id.Can[event] == true
		if code := s.try(append([]any{event}, args...)...).Code; (code == "forbidden") == allowed {
			t.Errorf("%s %v: code %q", event, args, code)
		}
		if !listed {
			continue
		}
		for _, pattern := range patterns {
			args[0] = strings.ReplaceAll(pattern.(string), "*", "x")
			if code := s.try(append([]any{event}, args...)...).Code; code == "forbidden" {
				t.Errorf("%s %v: forbidden", event, args)
			}
		}
	}
}
