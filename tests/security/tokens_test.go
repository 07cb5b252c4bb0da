package security

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// A signer makes signatures of one algorithm.
type signer func(text []byte) []byte

func hs256(key string) signer {
	return func(text []byte) []byte {
		m := hmac.New(sha256.New, []byte(key))
		m.Write(text)
		return m.Sum(nil)
	}
}

func rs256(key *rsa.PrivateKey) signer {
	return func(text []byte) []byte {
		hash := sha256.Sum256(text)
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, hash[:])
		if err != nil {
			panic(err) // there is no such hash
		}
		return signature
	}
}

func bytesOf(signature []byte) signer { return func([]byte) []byte { return signature } }

type object = map[string]any

// with returns an object with some more fields; nil takes one away.
func with(o, more object) object {
	all := maps.Clone(o)
	maps.Copy(all, more)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

func segment(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // the tests' own values
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// forge makes a token of whatever it is given.
func forge(header, claims object, sign signer) string {
	text := segment(header) + "." + segment(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(text)))
}

// tokenFor returns a valid token of a user with some permissions.
func tokenFor(user string, can object, rooms ...string) string {
	return forge(object{"alg": "HS256"}, object{
		"sub": user, "exp": time.Now().Add(time.Hour).Unix(), "rejoin": object{"can": can, "rooms": rooms},
	}, hs256(jwtSecret))
}

// show is what a client says of itself that shows a token.
func show(token string) object { return object{"token": token} }

func publicPEM(t *testing.T, keys ...any) (text []byte, ders [][]byte) {
	t.Helper()
	for _, key := range keys {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		ders = append(ders, der)
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	return text, ders
}

// A keyServer serves a JWKS, and counts the requests.
func keyServer(t *testing.T, keys ...object) (url string, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_ = json.NewEncoder(w).Encode(object{"keys": keys}) // the only error is that of a node that has gone
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

func jwk(kid string, key *rsa.PublicKey) object {
	number := base64.RawURLEncoding.EncodeToString
	return object{"kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig", "n": number(key.N.Bytes()), "e": number([]byte{1, 0, 1})}
}

// TestTokens: only valid tokens are accepted, although the node has keys of all
// kinds that could be confused.
func TestTokens(t *testing.T) {
	t.Parallel()
	rsaKey, errRSA := rsa.GenerateKey(rand.Reader, 2048)
	evilKey, errEvil := rsa.GenerateKey(rand.Reader, 2048)
	served, errServed := rsa.GenerateKey(rand.Reader, 2048)
	ecKey, errEC := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if errRSA != nil || errEvil != nil || errServed != nil || errEC != nil {
		t.Fatal(errRSA, errEvil, errServed, errEC)
	}
	text, ders := publicPEM(t, &rsaKey.PublicKey, &ecKey.PublicKey)
	jwks, asked := keyServer(t, jwk("served", &served.PublicKey))
	evil, askedEvil := keyServer(t, jwk("served", &evilKey.PublicKey), jwk("evil", &evilKey.PublicKey))
	tr := arm(t, 1, "REJOIN_JWT_SECRET="+jwtSecret, "REJOIN_JWT_PUBLIC_KEY="+string(text), "REJOIN_JWKS_URL="+jwks,
		"REJOIN_JWT_ISSUER=issuer", "REJOIN_JWT_AUDIENCE=here")
	n := tr.nodes[0]

	good := object{"sub": "ann", "iss": "issuer", "aud": "here", "exp": time.Now().Add(time.Hour).Unix()}
	hs, rs := object{"alg": "HS256", "typ": "JWT"}, object{"alg": "RS256", "typ": "JWT"}
	secret, key := hs256(jwtSecret), rs256(rsaKey)
	claims := func(more object) string { return forge(hs, with(good, more), secret) }
	by := func(sign signer, header, more object) string { return forge(with(header, more), good, sign) }
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	fine := claims(nil)
	parts := strings.Split(fine, ".")

	for _, c := range []*client{tr.enter(n, show(fine)), tr.enter(n, show(by(key, rs, nil))),
		tr.enter(n, show(by(rs256(served), rs, object{"kid": "served"}))), tr.enter(n, nil, "Authorization", "Bearer "+fine)} {
		if c.code != "" {
			t.Fatalf("a good token is refused: %s", c.code)
		}
	}
	const tooLarge = "larger than a CONNECT may be"
	attacks := map[string]string{
		"garbage":                    "garbage",
		"dots":                       strings.Repeat(".", 10_000),
		"as large as can be":         strings.Repeat("a", 60_000),
		"a good one in large":        parts[0] + "." + parts[1] + strings.Repeat("A", 60_000) + "." + parts[2],
		tooLarge:                     strings.Repeat("a", 900_000),
		"deep claims":                parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("[", 9_000))) + "." + parts[2],
		"no signature":               parts[0] + "." + parts[1],
		"an empty one":               parts[0] + "." + parts[1] + ".",
		"another's signature":        parts[0] + "." + segment(with(good, object{"sub": "root"})) + "." + parts[2],
		"a part too many":            fine + ".x",
		"encrypted":                  segment(object{"alg": "dir", "enc": "A128GCM"}) + "..a.b.c",
		"packed":                     by(secret, hs, object{"zip": "DEF", "crit": []string{"zip"}}),
		"unencoded":                  by(secret, hs, object{"b64": false, "crit": []string{"b64"}}),
		"another secret":             by(hs256("another secret, long enough"), hs, nil),
		"an empty secret":            by(hs256(""), hs, nil),
		"zeros for a secret":         by(hs256(strings.Repeat("\x00", 32)), hs, nil),
		"another RSA key":            by(rs256(evilKey), rs, nil),
		"another one by a known kid": by(rs256(evilKey), rs, object{"kid": "served"}),
		"an RSA key's as ECDSA":      by(key, object{"alg": "ES256"}, nil),
		"ECDSA of zeros":             by(bytesOf(make([]byte, 64)), object{"alg": "ES256"}, nil),
		"EdDSA of zeros":             by(bytesOf(make([]byte, 64)), object{"alg": "EdDSA"}, nil),
		"RSA of zeros":               by(bytesOf(make([]byte, 256)), rs, nil),
		"RSA of one":                 by(bytesOf(append(make([]byte, 255), 1)), rs, nil),
		"an HMAC as RSA":             by(secret, rs, nil),
		"HMAC with the PEM":          by(hs256(string(text)), hs, nil),
		"HMAC with one key's PEM":    by(hs256(strings.SplitAfter(string(text), "END PUBLIC KEY-----\n")[0]), hs, nil),
		"HMAC with PEM, trimmed":     by(hs256(string(bytes.TrimSpace(text))), hs, nil),
		"HMAC with the RSA key":      by(hs256(string(ders[0])), hs, nil),
		"HMAC with the ECDSA key":    by(hs256(string(ders[1])), hs, nil),
		"HMAC with PKCS #1":          by(hs256(string(x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey))), hs, nil),
		"HMAC with the modulus":      by(hs256(string(served.N.Bytes())), hs, object{"kid": "served"}),
		"another audience":           claims(object{"aud": "there"}),
		"no audience":                claims(object{"aud": nil}),
		"another issuer":             claims(object{"iss": "issuer.evil.example"}),
		"no issuer":                  claims(object{"iss": nil}),
		"not valid yet":              claims(object{"nbf": at(time.Hour)}),
		"without an end":             claims(object{"exp": nil}),
		"another's room":             claims(object{"rejoin": object{"rooms": []string{"user:bob"}}}),
		"a file for a key":           by(hs256(""), hs, object{"kid": "../../../../../../dev/null"}),
		"a query for a key":          by(hs256("x"), hs, object{"kid": "x' UNION SELECT 'x"}),
		"a kid of another kind":      by(rs256(evilKey), rs, object{"kid": []int{1}}),
		"a kid without an end":       by(rs256(evilKey), rs, object{"kid": strings.Repeat("k", 9_000)}),
		"its own keys' address":      by(rs256(evilKey), rs, object{"kid": "evil", "jku": evil}),
		"its own certificate's":      by(rs256(evilKey), rs, object{"kid": "evil", "x5u": evil}),
		"its own key":                by(rs256(evilKey), rs, object{"jwk": jwk("evil", &evilKey.PublicKey)}),
		"its own certificate":        by(rs256(evilKey), rs, object{"x5c": []string{base64.StdEncoding.EncodeToString(ders[0])}}),
	}
	for _, alg := range []any{"none", "None", "NONE", "nOnE", " none", "none\x00", "", nil, 0, true, []string{"HS256"}, "hs256", "HS256 ", "HS1"} {
		attacks[fmt.Sprintf("alg %#v, unsigned", alg)] = by(bytesOf(nil), object{"alg": alg}, nil)
		attacks[fmt.Sprintf("alg %#v, signed", alg)] = by(secret, object{"alg": alg}, nil)
	}
	for i := range 50 {
		attacks[fmt.Sprint("unknown key ", i)] = by(rs256(evilKey), rs, object{"kid": fmt.Sprint("unknown ", i)})
	}
	began := time.Now()
	var all sync.WaitGroup // since those of unknown keys are kept waiting, all at a time
	for name, token := range attacks {
		want := "token_invalid"
		if name == tooLarge {
			want = "too_large"
		}
		all.Go(func() {
			if c, err := tr.knock(n, show(tr.keep(name, token))); err != nil || c.code != want {
				t.Errorf("%s: got %v, want a refusal: %+v", name, err, c)
			}
		})
	}
	all.Wait()
	if code := tr.enter(n, show(tr.keep("expired", claims(object{"exp": at(-time.Minute)})))).code; code != "token_expired" {
		t.Errorf("expired: %q", code)
	}
	tr.keep("a good token", fine)
	for name, c := range map[string]*client{
		"no token":       tr.enter(n, nil),
		"an empty token": tr.enter(n, show("")),
		"another scheme": tr.enter(n, nil, "Authorization", "Basic "+fine),
		"in a cookie":    tr.enter(n, nil, "Cookie", "token="+fine),
	} {
		if c.code != "token_missing" {
			t.Errorf("%s: %q", name, c.code)
		}
	}
	for _, bad := range []any{7, true, []string{fine}, object{"token": fine}} {
		if code := tr.enter(n, object{"token": bad}).code; code != "token_invalid" {
			t.Errorf("a token that is not a string: %q", code)
		}
	}
	if now := askedEvil.Load(); now > 0 {
		t.Errorf("the node has asked a stranger's server for keys: %d times", now)
	}
	if now, took := asked.Load(), time.Since(began); float64(now) > 5+took.Seconds() {
		t.Errorf("strangers have made the node ask for keys %d times in %v", now, took)
	}
	if most := memory(n); most > 256<<20 {
		t.Errorf("the node has used %d MiB", most>>20)
	}
}

// TestRefusedClientsReachNothing: a client that is refused, or never connects, can send to
// no socket, and gets nothing on polling either.
func TestRefusedClientsReachNothing(t *testing.T) {
	t.Parallel()
	tr := arm(t, 1, "REJOIN_JWT_SECRET="+jwtSecret)
	n := tr.nodes[0]
	ann := tr.enter(n, show(tokenFor("ann", nil)))
	refused := tr.enter(n, show("forged"))
	write(t, refused.ws, `42["all","got you"]`)
	ends(t, refused.ws)
	sid := open(t, n)
	if status, answer := send(t, "POST", polling(n, sid), `40{"token":"forged"}`); status != http.StatusOK {
		t.Errorf("a CONNECT by polling: %d %s", status, answer)
	}
	if _, answer := get(t, polling(n, sid)); !strings.HasPrefix(tr.hear(answer), `44{"message":"`) {
		t.Errorf("a CONNECT by polling: %s", answer)
	}
	if status, _ := send(t, "POST", polling(n, sid), `42["all","got you"]`); status == http.StatusOK {
		if status, answer := get(t, polling(n, sid)); status == http.StatusOK && tr.hear(answer) != "1" {
			t.Errorf("an event by polling: %s", answer)
		}
	}
	if events := ann.hears(); len(events) > 0 {
		t.Errorf("ann got %q", events)
	}
}

// TestExpiry: a socket ends with its token, gets nothing afterwards, and cannot
// reconnect with it.
func TestExpiry(t *testing.T) {
	t.Parallel()
	tr := arm(t, 1, "REJOIN_JWT_SECRET="+jwtSecret)
	n := tr.nodes[0]
	const leeway = 10 // seconds
	expires := time.Now().Add(3 * time.Second).Truncate(time.Second)
	token := tr.keep("a token", forge(object{"alg": "HS256"}, object{
		"sub": "ann", "exp": expires.Unix() - leeway, "rejoin": object{"rooms": []string{"r"}},
	}, hs256(jwtSecret)))
	speaker := tr.enter(n, show(tokenFor("speaker", object{"to": []string{"r"}})))
	ann := tr.enter(n, show(token))
	if ann.code != "" {
		t.Fatalf("refused before it expires: %s", ann.code)
	}
	speaker.must("to", "r", "heard")
	if events := ann.hears(); len(events) != 1 {
		t.Errorf("ann got %q", events)
	}
	ends(t, ann.ws)
	if now := time.Now(); now.Before(expires) || now.After(expires.Add(nodetest.Patience)) {
		t.Errorf("it ended %v after its token", now.Sub(expires))
	}
	speaker.must("to", "r", "missed")
	if back := tr.enter(n, object{"token": token, "pid": ann.pid, "offset": ann.offset}); back.code != "token_expired" {
		t.Errorf("it is back: %q", back.code)
	}
}
