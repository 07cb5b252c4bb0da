package auth

import (
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzClaims: claims are read under their exact names, once each, and an accepted identity
// has a user and rooms within the limits.
func FuzzClaims(f *testing.F) {
	for _, text := range []string{
		`{"sub":"ada","exp":1795557600}`,
		`{"iss":"i","aud":["here","there"],"sub":"ada","exp":1.5e9,"nbf":-1,"iat":1e300,"rejoin":{"user":"bob","rooms":["a"],"can":{"join":["*"],"all":true}}}`,
		`{"exp":1,"EXP":1795557600}`, `{"aud":"elsewhere","AUD":"here"}`, `{"\u0065xp":7,"exp":8}`, `{"ſub":"ada"}`,
		`{"rejoin":null,"sub":null,"exp":null}`, `{"rejoin":{"can":null,"rooms":null}}`, `{"rejoin":{"user":"` + "\xff" + `"}}`,
		`null`, `[]`, `{`, `{"sub":"ada"}{}`, `{"sub":1}`, `{"rejoin":{"rooms":["user:ada"],"rooms":[]}}`, `{"rejoin":{"can":{"to":["["]}}}`,
	} {
		f.Add([]byte(text))
	}
	defaults := Permissions{Join: []string{"default"}}
	f.Fuzz(func(t *testing.T, text []byte) {
		var c claims
		if json.Unmarshal(text, &c) != nil {
			return
		}
		var exact map[string]json.RawMessage
		if err := json.Unmarshal(text, &exact); err != nil {
			t.Fatalf("%q is taken, and is not an object: %v", text, err)
		}
		var subject *string
		if raw, ok := exact["sub"]; ok && json.Unmarshal(raw, &subject) != nil {
			t.Fatalf("%q is taken", text)
		}
		if subject == nil && c.Subject != "" || subject != nil && c.Subject != *subject {
			t.Fatalf("%q has the subject %q", text, c.Subject)
		}
		if given, ok := exact["exp"]; (!ok || string(given) == "null") != (c.ExpiresAt == nil) {
			t.Fatalf("%q expires at %v", text, c.ExpiresAt)
		}
		if given, ok := exact["rejoin"]; (!ok || string(given) == "null") && (c.Rejoin.User != nil || c.Rejoin.Rooms != nil || c.Rejoin.Can != nil) {
			t.Fatalf("%q has %+v", text, c.Rejoin)
		}
		if c.ExpiresAt == nil {
			return // the parser refuses it
		}
		if c.ExpiresAt.Before(time.Unix(0, 0)) || c.ExpiresAt.After(lastDate) {
			t.Fatalf("%q expires at %v", text, c.ExpiresAt)
		}
		id, err := c.identity(defaults)
		if err != nil {
			if !utf8.ValidString(err.Error()) || len(err.Error()) > 200 {
				t.Errorf("the error repeats text from the token: %q", err)
			}
			return
		}
		if id.User == "" || len(UserRoom(id.User)) > maxRoomName || len(id.Rooms) > maxNames {
			t.Errorf("%q is accepted as %+v", text, id)
		}
		for _, room := range id.Rooms {
			if !id.MayBeIn(room) || OfUser(room) || len(room) > maxRoomName {
				t.Errorf("%q puts %q into %q", text, id.User, room)
			}
		}
		if !id.MayBeIn(UserRoom(id.User)) || id.MayBeIn(UserRoom(id.User+"x")) {
			t.Errorf("%q may be in the wrong user's room", text)
		}
	})
}

// FuzzMappedClaims: whatever the claims, an accepted identity is within the limits of a token, has no
// permissions but those of the rules, and a refusal repeats nothing of the claims.
func FuzzMappedClaims(f *testing.F) {
	for _, text := range []string{
		`{"uid":"ada","groups":["/t/1","/t/*"],"a":{"b":["x"]},"scope":"s t"}`, `{"uid":7,"groups":"/t/user:","a":null}`,
		`{"uid":"ada","a":{"b":{"c":1}}}`, `{"uid":"ada","a":{"b":1,"b":2}}`, `{"UID":"ada","uid":["x"]}`, `{"uid":"ada","groups":[[]]}`,
		`{"uid":"ada","groups":["/t/\\","/t/[a","/t/?"],"scope":"  s  "}`, `{"uid":" ","a":"b","groups":[1e400,true,null]}`, `null`, `[]`,
	} {
		f.Add([]byte(text))
	}
	var m Mapping
	for _, err := range []error{
		m.MapUser("uid"), m.MapRooms("groups=/t/{}"), m.MapRooms("a.b as us{}"),
		m.MapPermissions(`{"groups=/t/{}":{"to":["t:{}:*"]},"scope=s":{"all":true}}`),
	} {
		if err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := claims{mapping: &m}
		if json.Unmarshal(text, &c) != nil {
			return
		}
		c.ExpiresAt = &date{}
		id, err := c.identity(Permissions{})
		if err != nil {
			if !utf8.ValidString(err.Error()) || len(err.Error()) > 200 {
				t.Errorf("the error repeats text from the token: %q", err)
			}
			return
		}
		if id.User == "" || len(id.User) > maxUser || checkNames(id.Rooms) != nil || id.Can.check() != nil {
			t.Errorf("%q is accepted as %v", text, id)
		}
		if c.Rejoin.Can != nil {
			return
		}
		if id.Can.Broadcast || id.Can.Private || len(id.Can.Join)+len(id.Can.History)+len(id.Can.Members) > 0 {
			t.Errorf("%q may do more than the rules give: %v", text, id)
		}
		for _, room := range []string{"t::x", "x", "t:1:x/y"} {
			if id.Can.MaySend(room) {
				t.Errorf("%q may send to %q: %v", text, room, id)
			}
		}
	})
}
