package auth

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestAlgorithms: each key verifies its own algorithms, and tokens of other keys are
// refused.
func TestAlgorithms(t *testing.T) {
	var signers = map[string]struct{ key, other any }{
		"HS256": {secret, []byte("another secret, which is long, too")}, "HS512": {secret, []byte("x")},
		"RS256": {rsaKey, otherRSA}, "RS512": {rsaKey, otherRSA}, "PS256": {rsaKey, otherRSA}, "PS384": {rsaKey, otherRSA},
		"ES256": {ecKey, otherEC}, "ES384": {ec384, newEC(ec384.Curve)}, "EdDSA": {edKey, otherEd},
	}
	options := map[string]Options{
		"HS": {Secret: secret}, "RS": {PublicKeys: public(t, rsaKey)}, "ES": {PublicKeys: public(t, ecKey)},
		"Ed": {PublicKeys: public(t, edKey)}, "P-384": {PublicKeys: public(t, ec384)},
		"all": {Secret: secret, PublicKeys: public(t, rsaKey, ecKey, ec384, edKey)},
	}
	family := func(alg string) string {
		switch {
		case alg == "ES384":
			return "P-384"
		case alg[:2] == "PS":
			return "RS"
		}
		return alg[:2]
	}
	for name, o := range options {
		v := verifier(t, o)
		for alg, s := range signers {
			want := TokenInvalid
			if name == "all" || name == family(alg) {
				want = ""
			}
			if got := judge(t, v, sign(t, alg, s.key, nil)); got != want {
				t.Errorf("%s of a verifier with keys of %s: %q, want %q", alg, name, got, want)
			}
			if got := judge(t, v, sign(t, alg, s.other, nil)); got != TokenInvalid {
				t.Errorf("%s by another key, of a verifier with keys of %s: %q", alg, name, got)
			}
		}
	}
}

func TestBadTokens(t *testing.T) {
	v := verifier(t, Options{Secret: secret, PublicKeys: public(t, rsaKey), Issuer: "issuer", Audience: "here"})
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	good := jwt.MapClaims{"iss": "issuer", "aud": []string{"there", "here"}}
	but := func(name string, value any, more ...any) string {
		claims := jwt.MapClaims{name: value}
		for n, v := range good {
			if n != name {
				claims[n] = v
			}
		}
		for i := 0; i < len(more); i += 2 {
			claims[more[i].(string)] = more[i+1]
		}
		return sign(t, "HS256", secret, claims)
	}
	fine := but("x", 1)
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + strings.Split(fine, ".")[1] + "."
	many := strings.Split(strings.Repeat("r ", 101), " ")[:101]
	for name, test := range map[string]struct {
		token string
		want  Code
	}{
		"a good one":                     {fine, ""},
		"none":                           {"", TokenMissing},
		"garbage":                        {"garbage", TokenInvalid},
		"dots":                           {strings.Repeat(".", 1000), TokenInvalid},
		"huge":                           {strings.Repeat("a", 16<<10) + fine, TokenInvalid},
		"cut short":                      {fine[:len(fine)-4], TokenInvalid},
		"changed":                        {strings.Split(fine, ".")[0] + "." + strings.Split(but("sub", "bob"), ".")[1] + "." + strings.Split(fine, ".")[2], TokenInvalid},
		"unsigned":                       {none, TokenInvalid},
		"HMAC with the public key":       {sign(t, "HS256", public(t, rsaKey), good), TokenInvalid},
		"a critical extension":           {sign(t, "HS256", secret, good, "crit", "exp"), TokenInvalid},
		"just expired":                   {but("exp", in(-Leeway-time.Second)), TokenExpired},
		"expired within the leeway":      {but("exp", in(-Leeway/2)), ""},
		"without an end":                 {but("exp", nil), TokenInvalid},
		"an exp that is not a number":    {but("exp", "tomorrow"), TokenInvalid},
		"not valid yet":                  {but("nbf", in(Leeway*2)), TokenInvalid},
		"valid soon":                     {but("nbf", in(Leeway/2)), ""},
		"valid long after all times":     {but("nbf", jwtNumber("1e300")), TokenInvalid},
		"valid from before all times on": {but("nbf", jwtNumber("-1e300")), ""},
		"no number of any size":          {but("nbf", jwtNumber("1e400")), TokenInvalid},
		"expired before all times":       {but("exp", jwtNumber("-1e300")), TokenExpired},
		"an end that is null":            {but("exp", jwtNumber("null")), TokenInvalid},
		"no beginning":                   {but("nbf", jwtNumber("null")), ""},
		"another issuer":                 {but("iss", "other"), TokenInvalid},
		"no issuer":                      {but("iss", nil), TokenInvalid},
		"another audience":               {but("aud", "there"), TokenInvalid},
		"no audience":                    {but("aud", nil), TokenInvalid},
		"another audience, and expired":  {sign(t, "HS256", secret, jwt.MapClaims{"iss": "issuer", "exp": in(-time.Hour)}), TokenInvalid},
		"no user":                        {but("sub", nil), TokenInvalid},
		"a user of 195 bytes":            {but("sub", strings.Repeat("u", 195)), ""},
		"a longer user":                  {but("sub", strings.Repeat("u", 196)), TokenInvalid},
		"a user that is a number":        {but("rejoin", map[string]any{"user": 7}), TokenInvalid},
		"an empty rejoin.user":           {but("rejoin", map[string]any{"user": ""}), TokenInvalid},
		"claims of another kind":         {but("rejoin", "everything"), TokenInvalid},
		"100 rooms":                      {but("rejoin", map[string]any{"rooms": many[:100]}), ""},
		"more rooms":                     {but("rejoin", map[string]any{"rooms": many}), TokenInvalid},
		"an empty room":                  {but("rejoin", map[string]any{"rooms": []string{""}}), TokenInvalid},
		"a room of another user":         {but("rejoin", map[string]any{"rooms": []string{"user:bob"}}), TokenInvalid},
		"a malformed pattern":            {but("rejoin", map[string]any{"can": map[string]any{"to": []string{"ok", "a[b"}}}), TokenInvalid},
		"more patterns":                  {but("rejoin", map[string]any{"can": map[string]any{"join": many}}), TokenInvalid},
		"a long pattern":                 {but("rejoin", map[string]any{"can": map[string]any{"join": []string{strings.Repeat("p", 201)}}}), TokenInvalid},
		"a permission of another kind":   {but("rejoin", map[string]any{"can": map[string]any{"all": "yes"}}), TokenInvalid},
		"another EXP":                    {but("EXP", 1), ""},
		"an EXP in place of exp":         {but("exp", nil, "EXP", in(time.Hour)), TokenInvalid},
		"another AUD":                    {but("aud", "elsewhere", "AUD", "here"), TokenInvalid},
		"another SUB":                    {but("sub", nil, "SUB", "ann"), TokenInvalid},
		"a permission in capitals":       {but("rejoin", map[string]any{"CAN": map[string]any{"to": []string{"a[b"}}}), ""},
		"exp twice":                      {signed(t, secret, `{"iss":"issuer","aud":"here","sub":"ann","exp":1,"exp":9999999999}`), TokenInvalid},
		"can twice":                      {signed(t, secret, `{"iss":"issuer","aud":"here","sub":"ann","exp":9999999999,"rejoin":{"can":{},"can":{"all":true}}}`), TokenInvalid},
		"all twice":                      {signed(t, secret, `{"iss":"issuer","aud":"here","sub":"ann","exp":9999999999,"rejoin":{"can":{"all":false,"all":true}}}`), TokenInvalid},
		"the same, once":                 {signed(t, secret, `{"iss":"issuer","aud":"here","sub":"ann","exp":9999999999,"rejoin":{"can":{"all":true}}}`), ""},
		"a permission of a later server": {but("rejoin", map[string]any{"can": map[string]any{"fly": true}}), ""},
	} {
		if got := judge(t, v, test.token); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	if _, err := v.Verify(t.Context(), but("sub", 7)); err == nil || !strings.Contains(err.Error(), "wrong type") {
		t.Errorf("a sub that is a number: %v", err)
	}
	// Errors do not repeat values from a token.
	if _, err := v.Verify(t.Context(), but("rejoin", map[string]any{"rooms": []string{"user:confidential"}})); err == nil || strings.Contains(err.Error(), "confidential") {
		t.Errorf("got %v, want an error without the name of the room", err)
	}
}

// signed returns a token whose claims are this text.
func signed(t *testing.T, secret []byte, claims string) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims))
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(text))
	return text + "." + encode(m.Sum(nil))
}

func TestIdentity(t *testing.T) {
	defaults := Permissions{Join: []string{"lobby"}}
	v := verifier(t, Options{Secret: secret, Default: defaults})
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	for claims, want := range map[string]Identity{
		`{}`:           {User: "ann", Can: defaults},
		`{"can":null}`: {User: "ann", Can: defaults},
		`{"can":{}}`:   {User: "ann"},
		`{"user":"bea","rooms":["x"],"can":{"to":["a*"],"history":["h"],"members":["m"],"broadcast":true,"all":true,"private":true}}`: {
			User: "bea", Rooms: []string{"x"},
			Can: Permissions{To: []string{"a*"}, History: []string{"h"}, Members: []string{"m"}, Broadcast: true, All: true, Private: true},
		},
	} {
		token, err := Sign(Options{Secret: secret}, fmt.Sprintf(`{"sub":"ann","exp":%d,"rejoin":%s}`, end.Unix(), claims))
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Verify(t.Context(), token)
		want.Expires = end.Add(Leeway)
		if !got.Expires.Equal(want.Expires) {
			t.Errorf("expires %v, want %v", got.Expires, want.Expires)
		}
		want.Expires = got.Expires
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", claims, got, err, want)
		}
	}
	for _, exp := range []string{"99999999999999", "9e18", "1e300"} { // the last valid time
		claims := jwt.MapClaims{"exp": jwtNumber(exp)}
		got, err := v.Verify(t.Context(), sign(t, "HS256", secret, claims))
		if err != nil || !got.Expires.Equal(lastDate.Add(Leeway)) {
			t.Errorf("exp %s: expires %v, %v", exp, got.Expires, err)
		}
	}
}

type jwtNumber string

func (n jwtNumber) MarshalJSON() ([]byte, error) { return []byte(n), nil }

func TestPatterns(t *testing.T) {
	p := Permissions{Join: []string{"chat:*", "a/?", `lit\*`}}
	for room, want := range map[string]bool{"chat:": true, "chat:x": true, "chat:x/y": false, "a/b": true, "a/bc": false, "lit*": true, "lits": false, "": false} {
		if p.MayJoin(room) != want {
			t.Errorf("MayJoin(%q) = %v, want %v", room, !want, want)
		}
	}
	all := Everything()
	if !all.MayJoin("a/b/c") || !all.MaySend("x") || !all.MayReadHistory("x") || !all.MayListMembers("x") || !all.All || !all.Broadcast || !all.Private {
		t.Errorf("not everything: %+v", all)
	}
	id := Identity{User: "ann", Rooms: []string{"given"}, Can: Permissions{Join: []string{"*"}}}
	for room, want := range map[string]bool{"user:ann": true, "user:bob": false, "given": true, "x": true, "x/y": false} {
		if id.MayBeIn(room) != want {
			t.Errorf("may be in %q: %v", room, !want)
		}
	}
}

func TestSameRooms(t *testing.T) {
	id := func(change func(*Identity)) *Identity {
		id := &Identity{User: "ann", Rooms: []string{"given"}, Can: Permissions{Join: []string{"a", "b"}}}
		change(id)
		return id
	}
	same := id(func(*Identity) {})
	for name, tt := range map[string]struct {
		change func(*Identity)
		want   bool
	}{
		"the same":       {func(*Identity) {}, true},
		"may send":       {func(id *Identity) { id.Can.To, id.Can.All = []string{"x"}, true }, true},
		"later":          {func(id *Identity) { id.Expires = time.Now() }, true},
		"another user":   {func(id *Identity) { id.User = "bob" }, false},
		"fewer rooms":    {func(id *Identity) { id.Rooms = nil }, false},
		"fewer patterns": {func(id *Identity) { id.Can.Join = id.Can.Join[:1] }, false},
		"everything":     {func(id *Identity) { id.Can.unbounded = true }, false},
	} {
		if got := id(tt.change).SameRooms(same); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// A pattern matches the same rooms as path.Match.
func FuzzMatch(f *testing.F) {
	for _, pattern := range []string{"chat:*", "*-7-*", "*", "**", "a*/b*c", "*a/*", "*ab", "", "a/?", `\*x*`, "[a-c]*", "*é*"} {
		for _, room := range []string{"", "chat:", "chat:x/y", "a-7-b", "a/-7-", "-7--7-/", "ab", "aab", "ax/by/c", "ax/bc", "xa/a", "a/a/", "é", "*x"} {
			f.Add(pattern, room)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, room string) {
		want, err := path.Match(pattern, room)
		if _, malformed := path.Match(pattern, ""); err != nil || malformed != nil {
			return
		}
		if got := match(pattern, room); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, room, got, want)
		}
	})
}

// Patterns of text and asterisks take time proportional to the sum of the lengths of
// pattern and room, whereas path.Match takes their product. The total length of other
// patterns is bounded.
func TestWorkOfPatterns(t *testing.T) {
	pattern, room := "*"+strings.Repeat("-7", 50)+"8*", strings.Repeat("-7", maxRoomName/2)
	quickest := func(match func() bool) time.Duration { // the machine may be busy, but hardly each time
		least := time.Hour
		for range 20 {
			began := time.Now()
			for range 100 {
				if match() {
					t.Fatal("it matches")
				}
			}
			least = min(least, time.Since(began))
		}
		return least
	}
	took := quickest(func() bool { return Permissions{Join: []string{pattern}}.MayJoin(room) })
	product := quickest(func() bool { matched, _ := path.Match(pattern, room); return matched })
	if took > product/4 {
		t.Errorf("%v, and path.Match takes %v, want at most %v", took, product, product/4)
	}
	list := make([]string, maxSpecial/maxRoomName)
	for i := range list {
		list[i] = strings.Repeat("?", maxRoomName)
	}
	p := Permissions{Join: append(list, strings.Repeat("*", maxRoomName))}
	if err := p.check(); err != nil {
		t.Error(err)
	}
	if p.Join = append(list, "?"); p.check() == nil {
		t.Errorf("more than %d bytes of special patterns are taken", maxSpecial)
	}
}

func TestParsePermissions(t *testing.T) {
	p, err := ParsePermissions(` {"join": ["a"], "all": true} `)
	if err != nil || !reflect.DeepEqual(p, Permissions{Join: []string{"a"}, All: true}) {
		t.Errorf("got %+v, %v, want join a and all", p, err)
	}
	for _, bad := range []string{"", "null", "[]", "{} {}", `{"joins":["a"]}`, `{"join":"a"}`, `{"join":["["]}`, `{"join":[""]}`, `{"Join":["a"]}`, `{"join":["a"],"join":[]}`} {
		if _, err := ParsePermissions(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestInvalidKeys(t *testing.T) {
	private, _ := Sign(Options{Secret: secret}, `{"sub":"x"}`)
	for name, o := range map[string]Options{
		"nothing":              {},
		"no PEM":               {PublicKeys: []byte(private)},
		"a short RSA key":      {PublicKeys: public(t, shortRSA)},
		"a curve without ES":   {PublicKeys: public(t, crypto.Signer(ec224Key))},
		"one good, one broken": {PublicKeys: append(public(t, rsaKey), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"...)},
		"a private key":        {PublicKeys: []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")},
		"a file URL":           {JWKSURL: "file:///etc/passwd"},
		"no URL":               {JWKSURL: "keys.example"},
	} {
		if v, err := New(o); err == nil || !strings.HasPrefix(err.Error(), "auth: ") {
			t.Errorf("%s: got %v, want an error that begins with auth:", name, err)
			if v != nil {
				v.Close()
			}
		}
	}
}

func TestSign(t *testing.T) {
	o := Options{Secret: secret, Issuer: "issuer", Audience: "here"}
	v := verifier(t, o)
	token, err := Sign(o, `{"sub": "ann"}`)
	if err != nil || judge(t, v, token) != "" {
		t.Errorf("Sign: got %s, %v, want a valid token", token, err)
	}
	for _, claims := range []string{"", "x", "[]", "null", "{} {}", "{}", `{"sub":"ann","exp":1}`, `{"sub":"ann","aud":"there"}`} {
		if _, err := Sign(o, claims); err == nil {
			t.Errorf("%s is signed", claims)
		}
	}
	if _, err := Sign(Options{}, `{"sub":"ann"}`); err == nil {
		t.Error("signed without a secret")
	}
}

// The number of concurrent verifications is bounded, and a token that gets no turn in time may
// still be valid.
func TestVerificationsTakeTurns(t *testing.T) {
	v := verifier(t, Options{PublicKeys: public(t, ecKey)})
	token := sign(t, "ES256", ecKey, nil)
	if cap(v.turns) > max(1, runtime.NumCPU()/2) {
		t.Errorf("%d verifications run concurrently", cap(v.turns))
	}
	for range cap(v.turns) {
		v.turns <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	var refused *Error
	if _, err := v.Verify(ctx, token); !errors.As(err, &refused) || refused.Code != Unavailable {
		t.Errorf("without a turn: %v", err)
	}
	hmac := verifier(t, Options{Secret: secret, PublicKeys: public(t, ecKey)})
	for range cap(hmac.turns) {
		hmac.turns <- struct{}{}
	}
	if _, err := hmac.Verify(t.Context(), sign(t, "HS256", secret, nil)); err != nil {
		t.Errorf("with a shared secret: %v", err)
	}
	<-v.turns
	for range 2 {
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Errorf("with a turn: %v", err)
		}
	}
}
