package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// mappingOf returns a mapping, of which each text may be empty. Rules of rooms are separated by |.
func mappingOf(t *testing.T, user, rooms, can string) (m Mapping) {
	t.Helper()
	var errs []error
	if user != "" {
		errs = append(errs, m.MapUser(user))
	}
	if rooms != "" {
		for rule := range strings.SplitSeq(rooms, "|") {
			errs = append(errs, m.MapRooms(rule))
		}
	}
	if can != "" {
		errs = append(errs, m.MapPermissions(can))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMapping: what tokens give by a mapping. A token that is refused has a message without
// anything of its values.
func TestMapping(t *testing.T) {
	list := func(n int) string {
		return strings.TrimSuffix(strings.Repeat(`"r%d",`, n), ",")
	}
	numbered := func(n int) string {
		numbers := make([]any, n)
		for i := range numbers {
			numbers[i] = i
		}
		return "[" + fmt.Sprintf(list(n), numbers...) + "]"
	}
	const admin = `{"roles=admin":{"all":true}}`
	for name, tt := range map[string]struct {
		user, rooms, can string
		claims           string
		want             string // the identity, or !part of the refusal
	}{
		"nothing": {"", "", "", `{"sub":"ann","groups":["a"]}`, `{"user":"ann","can":{"join":["default"]}}`},

		"user":                       {"oid", "", "", `{"sub":"ann","oid":"bob"}`, `{"user":"bob","can":{"join":["default"]}}`},
		"user, nested":               {"a.b.c", "", "", `{"a":{"b":{"c":"bob"}}}`, `{"user":"bob","can":{"join":["default"]}}`},
		"user, a number":             {"oid", "", "", `{"oid":12345678901234567890}`, `{"user":"12345678901234567890","can":{"join":["default"]}}`},
		"user, not split":            {"scope", "", "", `{"scope":"a b"}`, `{"user":"a b","can":{"join":["default"]}}`},
		"user, missing":              {"oid", "", "", `{"sub":"ann"}`, `!otherwise oid`},
		"user, null":                 {"oid", "", "", `{"sub":"ann","oid":null}`, `!otherwise oid`},
		"user, empty":                {"oid", "", "", `{"sub":"ann","oid":""}`, `!otherwise oid`},
		"user, another case":         {"oid", "", "", `{"sub":"ann","OID":"bob"}`, `!otherwise oid`},
		"user, nested, another case": {"a.b", "", "", `{"sub":"ann","a":{"B":"bob"}}`, `!otherwise a.b`},
		"user, a list":               {"oid", "", "", `{"oid":["confidential"]}`, `!claim oid: not a text or a number`},
		"user, true":                 {"oid", "", "", `{"oid":true}`, `!claim oid: not a text or a number`},
		"user, duplicate":            {"a.b", "", "", `{"a":{"b":"ann","b":"confidential"}}`, `!claim a.b: duplicate name`},
		"user, not in an object":     {"a.b", "", "", `{"a":"confidential"}`, `!claim a.b: not a text`},
		"user, by rejoin":            {"oid", "", "", `{"oid":"ann","rejoin":{"user":"bob"}}`, `{"user":"bob","can":{"join":["default"]}}`},
		"user, too long":             {"oid", "", "", `{"oid":"` + strings.Repeat("confidential", 20) + `"}`, `!otherwise oid`},

		"rooms, flat":             {"", "rooms", "", `{"sub":"ann","rooms":["a","b","a"]}`, `{"user":"ann","rooms":["a","b"],"can":{"join":["default"]}}`},
		"rooms, one":              {"", "room", "", `{"sub":"ann","room":"a b"}`, `{"user":"ann","rooms":["a b"],"can":{"join":["default"]}}`},
		"rooms, namespaced":       {"", "https://app.example/rooms", "", `{"sub":"ann","https://app.example/rooms":["a"],"https://app":{"example/rooms":["x"]}}`, `{"user":"ann","rooms":["a"],"can":{"join":["default"]}}`},
		"rooms, in a namespaced":  {"", `https://app\.example.rooms`, "", `{"sub":"ann","https://app.example":{"rooms":["a"]}}`, `{"user":"ann","rooms":["a"],"can":{"join":["default"]}}`},
		"rooms, a dot":            {"", `my\.claim`, "", `{"sub":"ann","my.claim":["a"],"my":{"claim":["x"]}}`, `{"user":"ann","rooms":["a"],"can":{"join":["default"]}}`},
		"rooms, no dot":           {"", `my.claim`, "", `{"sub":"ann","my.claim":["x"],"my":{"claim":["a"]}}`, `{"user":"ann","rooms":["a"],"can":{"join":["default"]}}`},
		"rooms, a scope":          {"", `scope=room:{}`, "", `{"sub":"ann","scope":" openid room:a  room:b room: "}`, `{"user":"ann","rooms":["a","b"],"can":{"join":["default"]}}`},
		"rooms, renamed":          {"", `cognito:groups as team:{}:news`, "", `{"sub":"ann","cognito:groups":["a",7]}`, `{"user":"ann","rooms":["team:a:news","team:7:news"],"can":{"join":["default"]}}`},
		"rooms, a part":           {"", `groups=/teams/{}/x as t{}`, "", `{"sub":"ann","groups":["/teams/a/x","/teams//x","/teams/x","/TEAMS/b/x"]}`, `{"user":"ann","rooms":["ta"],"can":{"join":["default"]}}`},
		"rooms, one value":        {"", `groups=a as x|groups=b`, "", `{"sub":"ann","groups":["b","A","a"]}`, `{"user":"ann","rooms":["x","b"],"can":{"join":["default"]}}`},
		"rooms, missing":          {"", "rooms", "", `{"sub":"ann"}`, `{"user":"ann","can":{"join":["default"]}}`},
		"rooms, another case":     {"", "rooms", "", `{"sub":"ann","Rooms":["a"]}`, `{"user":"ann","can":{"join":["default"]}}`},
		"rooms, by rejoin":        {"", "rooms", "", `{"sub":"ann","rooms":["a"],"rejoin":{"rooms":["b"]}}`, `{"user":"ann","rooms":["b"],"can":{"join":["default"]}}`},
		"rooms, of sub":           {"", "sub as inbox:{}", "", `{"sub":"ann"}`, `{"user":"ann","rooms":["inbox:ann"],"can":{"join":["default"]}}`},
		"rooms, an object":        {"", "rooms", "", `{"sub":"ann","rooms":{"confidential":1}}`, `!claim rooms: not a text`},
		"rooms, lists in a list":  {"", "rooms", "", `{"sub":"ann","rooms":[["confidential"]]}`, `!claim rooms: not a text`},
		"rooms, null in a list":   {"", "rooms", "", `{"sub":"ann","rooms":[null]}`, `!claim rooms: not a text`},
		"rooms, empty":            {"", "rooms", "", `{"sub":"ann","rooms":[""]}`, `{"user":"ann","can":{"join":["default"]}}`},
		"rooms, of a user":        {"", "rooms", "", `{"sub":"ann","rooms":["user:confidential"]}`, `!reserved for users`},
		"rooms, of a user, built": {"", "rooms as us{}", "", `{"sub":"ann","rooms":["er:confidential"]}`, `!reserved for users`},
		"rooms, 100":              {"", "rooms=r99", "", `{"sub":"ann","rooms":` + numbered(100) + `}`, `{"user":"ann","rooms":["r99"],"can":{"join":["default"]}}`},
		"rooms, 101":              {"", "rooms", "", `{"sub":"ann","rooms":` + numbered(101) + `}`, `!rooms: more than 100`},
		"rooms, 1001 values":      {"", "rooms=r99", "", `{"sub":"ann","rooms":` + numbered(1001) + `}`, `!claim rooms: more than 1000 values`},
		"rooms, too long":         {"", "rooms as {}{}", "", `{"sub":"ann","rooms":["` + strings.Repeat("x", 101) + `"]}`, `!rooms: names must`},

		"can, by a role":           {"", "", admin, `{"sub":"ann","roles":["admin"]}`, `{"user":"ann","can":{"all":true,"join":["default"]}}`},
		"can, one role":            {"", "", admin, `{"sub":"ann","roles":"admin"}`, `{"user":"ann","can":{"all":true,"join":["default"]}}`},
		"can, not by a part":       {"", "", admin, `{"sub":"ann","roles":["administrator","xadmin"]}`, `{"user":"ann","can":{"join":["default"]}}`},
		"can, not by a word":       {"", "", admin, `{"sub":"ann","roles":"user admin"}`, `{"user":"ann","can":{"join":["default"]}}`},
		"can, not in another case": {"", "", admin, `{"sub":"ann","roles":["Admin","ADMIN"],"Roles":["admin"],"ROLES":"admin"}`, `{"user":"ann","can":{"join":["default"]}}`},
		"can, not elsewhere":       {"", "", `{"realm_access.roles=admin":{"all":true}}`, `{"sub":"ann","roles":["admin"],"realm_access.roles":["admin"],"realm_access":{"Roles":["admin"]}}`, `{"user":"ann","can":{"join":["default"]}}`},
		"can, nested":              {"", "", `{"realm_access.roles=admin":{"all":true}}`, `{"sub":"ann","realm_access":{"roles":["x","admin"]}}`, `{"user":"ann","can":{"all":true,"join":["default"]}}`},
		"can, a flag":              {"", "", `{"moderator=true":{"broadcast":true}}`, `{"sub":"ann","moderator":true}`, `{"user":"ann","can":{"broadcast":true,"join":["default"]}}`},
		"can, any but false":       {"", "", `{"a":{"broadcast":true},"b={}":{"all":true},"c=false":{"private":true},"d=x{}":{"to":["{}"]}}`, `{"sub":"ann","a":false,"b":["false"],"c":false,"d":"xfalse"}`, `{"user":"ann","can":{"join":["default"],"private":true,"to":["false"]}}`},
		"rooms, a flag unset":      {"", "mod as mods", "", `{"sub":"ann","mod":false}`, `{"user":"ann","can":{"join":["default"]}}`},
		"can, a flag unset":        {"", "", `{"moderator=true":{"broadcast":true}}`, `{"sub":"ann","moderator":false}`, `{"user":"ann","can":{"join":["default"]}}`},
		"can, adds up":             {"", "", `{"scp=a":{"join":["a"]},"scp=b":{"join":["b","default"],"private":true}}`, `{"sub":"ann","scp":"b a"}`, `{"user":"ann","can":{"join":["default","a","b"],"private":true}}`},
		"can, flags add up":        {"", "", `{"r=a":{"all":true,"broadcast":true,"private":true},"r=b":{"to":["b"]}}`, `{"sub":"ann","r":["a","b"]}`, `{"user":"ann","can":{"all":true,"broadcast":true,"join":["default"],"private":true,"to":["b"]}}`},
		"can, of each value":       {"", "", `{"org":{"to":["org:{}:*"]}}`, `{"sub":"ann","org":["a","b"]}`, `{"user":"ann","can":{"join":["default"],"to":["org:a:*","org:b:*"]}}`},
		"can, by rejoin":           {"", "", admin, `{"sub":"ann","roles":["admin"],"rejoin":{"can":{"private":true}}}`, `{"user":"ann","can":{"private":true}}`},
		"can, too much":            {"", "", `{"rooms":{"join":["{}"]}}`, `{"sub":"ann","rooms":` + numbered(100) + `}`, `!join: more than 100`},
		"can, an object":           {"", "", admin, `{"sub":"ann","roles":{"admin":true}}`, `!claim roles: not a text`},
	} {
		v := verifier(t, Options{Secret: secret, Default: Permissions{Join: []string{"default"}}, Mapping: mappingOf(t, tt.user, tt.rooms, tt.can)})
		token := signed(t, secret, strings.Replace(tt.claims, "{", `{"exp":9999999999,`, 1))
		id, err := v.Verify(context.Background(), token)
		want, refused := strings.CutPrefix(tt.want, "!")
		var because *Error
		switch {
		case refused:
			if !errors.As(err, &because) || because.Code != TokenInvalid || !strings.Contains(because.Message, want) || strings.Contains(because.Message, "confidential") {
				t.Errorf("%s: got %v, %v, want a refusal with %q", name, id, err, want)
			}
		case err != nil || id.String() != want:
			t.Errorf("%s: got %s, %v, want %s", name, id, err, want)
		}
	}
}

// TestMappedPatternsAreLiteral: a value that looks like a pattern gives permission for its own text
// only.
func TestMappedPatternsAreLiteral(t *testing.T) {
	m := mappingOf(t, "", "", `{"org":{"join":["org:{}:*"]}}`)
	for _, value := range []string{"*", "a*", "[a-z]", "?", `\`, `\*`, "a/b", "é"} {
		can, err := m.permissionsOf(map[string]json.RawMessage{"org": quoted(value)}, Permissions{})
		if err != nil || can.check() != nil {
			t.Fatal(err, can.check())
		}
		if own := "org:" + value + ":x"; !can.MayJoin(own) {
			t.Errorf("org %q: may not join %q", value, own)
		}
		for _, other := range []string{"org:a:x", "org:ab:x", "org::x", "org:*a:x"} {
			if other != "org:"+value+":x" && can.MayJoin(other) {
				t.Errorf("org %q: may join %q", value, other)
			}
		}
	}
}

// TestSharedDefaults: the permissions of one token do not reach those of another.
func TestSharedDefaults(t *testing.T) {
	m := mappingOf(t, "", "", `{"org":{"join":["{}"]}}`)
	defaults := Permissions{Join: append(make([]string, 0, 10), "default")}
	first, _ := m.permissionsOf(map[string]json.RawMessage{"org": quoted("a")}, defaults)
	second, _ := m.permissionsOf(map[string]json.RawMessage{"org": quoted("b")}, defaults)
	if !first.MayJoin("a") || first.MayJoin("b") || second.MayJoin("a") || !second.MayJoin("b") || defaults.MayJoin("a") {
		t.Errorf("got %q and %q, with %q", first.Join, second.Join, defaults.Join)
	}
}

func quoted(text string) json.RawMessage {
	raw, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return raw
}

func TestBadMappings(t *testing.T) {
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", `a\b`, `a\`} {
		if err := new(Mapping).MapUser(bad); err == nil {
			t.Errorf("user %q is accepted", bad)
		}
	}
	for _, bad := range []string{"", "a=", "=b", "a={}{}", "a as", "a as ", " as b", "a as user:{}", "a as user:x", "a as " + strings.Repeat("x", 201)} {
		if err := new(Mapping).MapRooms(bad); err == nil {
			t.Errorf("rooms %q are accepted", bad)
		}
	}
	for _, bad := range []string{
		"", "null", "[]", "{} {}", `{"a":null}`, `{"a":[]}`, `{"a=":{}}`, `{"a":{"jion":["x"]}}`, `{"a":{"join":["["]}}`, `{"a":{},"a":{}}`,
		`{"a":{"join":["[{}]"]}}`, `{"a":{"join":["\\{}"]}}`, `{"a":{"join":["?{}"]}}`, `{"a":{"Join":["x"]}}`,
	} {
		if err := new(Mapping).MapPermissions(bad); err == nil {
			t.Errorf("permissions %q are accepted", bad)
		}
	}
	many := strings.Repeat("x ", 60)
	m := mappingOf(t, "", "", fmt.Sprintf(`{"a":{"join":["%s"]},"b":{"join":["%s"]}}`, strings.Join(unique("a", many), `","`), strings.Join(unique("b", many), `","`)))
	if err := m.Check(Permissions{}); err == nil || !strings.Contains(err.Error(), "join: more than 100") {
		t.Errorf("120 patterns of all claims together: %v", err)
	}
	if m = mappingOf(t, "", "", `{"a":{"join":["a"]}}`); m.Check(Permissions{Join: unique("x", strings.Repeat("x ", 99))}) != nil || m.Check(Permissions{Join: unique("x", strings.Repeat("x ", 100))}) == nil {
		t.Error("the default is not counted")
	}
}

func unique(prefix, words string) []string {
	all := strings.Fields(words)
	for i := range all {
		all[i] = fmt.Sprint(prefix, i)
	}
	return all
}

// TestMappedAudience: the audience is read from its claim only.
func TestMappedAudience(t *testing.T) {
	var m Mapping
	if err := m.MapAudience("client_id"); err != nil {
		t.Fatal(err)
	}
	v := verifier(t, Options{Secret: secret, Audience: "here", Mapping: m})
	for claims, want := range map[string]Code{
		`"client_id":"here"`:               "",
		`"client_id":["there","here"]`:     "",
		`"client_id":"there"`:              TokenInvalid,
		`"client_id":"there","aud":"here"`: TokenInvalid,
		`"aud":"here"`:                     TokenInvalid,
		`"CLIENT_ID":"here"`:               TokenInvalid,
		`"client_id":{"here":1}`:           TokenInvalid,
		`"client_id":null`:                 TokenInvalid,
		`"client_id":[]`:                   TokenInvalid,
		`"client_id":"here there"`:         TokenInvalid,
	} {
		if got := judge(t, v, signed(t, secret, `{"sub":"ann","exp":9999999999,`+claims+`}`)); got != want {
			t.Errorf("%s: %q, want %q", claims, got, want)
		}
	}
}

// TestExplain: notes name the claims without effect.
func TestExplain(t *testing.T) {
	m := mappingOf(t, "oid", "groups=team-{}|groups=staff", `{"scope=chat":{"all":true},"a.b":{"private":true}}`)
	id, notes, err := Explain(Options{Mapping: m}, `{"exp":1,"aud":"x","oid":"ann","groups":["team-a","x","staff"],"scope":"chat","azp":"web","Groups":[]}`)
	if err != nil || id.String() != `{"user":"ann","rooms":["a","staff"],"can":{"all":true}}` {
		t.Errorf("got %s, %v", id, err)
	}
	want := []string{"claims that map to nothing: azp, Groups", "values of claim groups that map to nothing: x", "claim a.b is mapped, but missing or empty"}
	if fmt.Sprint(notes) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", notes, want)
	}
	for claims, want := range map[string]string{
		`{"sub":"ann","iss":"issuer","client_id":["x","here"]}`: `[]`,
		`{"sub":"ann","iss":"other","client_id":"here"}`:        `[the token would be refused: iss is not "issuer"]`,
		`{"sub":"ann","iss":"issuer","client_id":"x"}`:          `[the token would be refused: client_id does not contain the audience "here"]`,
	} {
		var m Mapping
		if err := m.MapAudience("client_id"); err != nil {
			t.Fatal(err)
		}
		if _, notes, err := Explain(Options{Issuer: "issuer", Audience: "here", Mapping: m}, claims); err != nil || fmt.Sprint(notes) != want {
			t.Errorf("%s: got %q, %v, want %s", claims, notes, err, want)
		}
	}
	if _, notes, err := Explain(Options{}, `{"sub":"ann","rejoin":{}}`); err != nil || len(notes) > 0 {
		t.Errorf("got %q, %v, want no notes", notes, err)
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"sub":1}`, `{"sub":"ann"} x`} {
		if _, _, err := Explain(Options{}, bad); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
