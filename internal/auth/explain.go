package auth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Explain returns the identity that a token with some claims, a JSON object, would give its client,
// and notes about claims that have no effect, and about an issuer or audience that a [Verifier] would
// refuse. It checks the other claims as a Verifier does, but not the signature, exp and nbf.
func Explain(o Options, text string) (Identity, []string, error) {
	c := claims{mapping: &o.Mapping}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return Identity{}, nil, fmt.Errorf("auth: claims are not one JSON object, or a claim is duplicate or has the wrong type: %w", err)
	}
	c.ExpiresAt = &date{Time: time.Now()}
	id, err := c.identity(o.Default)
	if err != nil {
		return Identity{}, nil, fmt.Errorf("auth: %w", err)
	}
	notes := o.Mapping.unused(text, c.mapped)
	if o.Issuer != "" && c.Issuer != o.Issuer {
		notes = append(notes, fmt.Sprintf("the token would be refused: iss is not %q", o.Issuer))
	}
	if audience, err := c.GetAudience(); o.Audience != "" && (err != nil || !slices.Contains(audience, o.Audience)) {
		notes = append(notes, fmt.Sprintf("the token would be refused: %s does not contain the audience %q", o.Mapping.audienceName(), o.Audience))
	}
	return id, notes, nil
}

// registered are the claims that a verifier reads itself, or that every issuer sets.
var registered = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "rejoin"}

// members are those of the claim rejoin.
var members = []string{"user", "rooms", "can"}

// unused returns notes about claims of a token that map to nothing, and mapped ones that it lacks.
func (m *Mapping) unused(text string, mapped map[string]json.RawMessage) (notes []string) {
	var names []string
	_ = eachMember([]byte(text), func(name string, d *json.Decoder) error { // has been decoded before
		var value json.RawMessage
		err := d.Decode(&value)
		_, read := mapped[name]
		switch {
		case read:
		case name == "rejoin":
			_ = eachMember(value, func(member string, d *json.Decoder) error {
				if !slices.Contains(members, member) {
					names = append(names, "rejoin."+member)
				}
				return d.Decode(new(json.RawMessage))
			})
		case slices.Contains(members, name):
			names = append(names, name+" (did you mean rejoin."+name+"?)")
		case !slices.Contains(registered, name):
			names = append(names, name)
		}
		return err
	})
	if len(names) > 0 {
		notes = append(notes, "claims that map to nothing: "+strings.Join(names, ", "))
	}
	var told []string
	for _, p := range m.paths() {
		place := p.String()
		if slices.Contains(told, place) {
			continue
		}
		told = append(told, place)
		values, err := p.values(mapped)
		switch {
		case err != nil || len(values) > 0 && (slices.Equal(p, m.user) || slices.Equal(p, m.audience)):
			continue // an error is that of a claim in whose place the token has a claim rejoin
		case len(values) == 0:
			notes = append(notes, fmt.Sprintf("claim %s is mapped, but missing or empty", place))
			continue
		}
		values = slices.DeleteFunc(values, func(value string) bool {
			return slices.ContainsFunc(m.sources(), func(s source) bool {
				_, ok := s.take(value)
				return ok && slices.Equal(s.path, p)
			})
		})
		if len(values) > 0 {
			notes = append(notes, fmt.Sprintf("values of claim %s that map to nothing: %s", place, strings.Join(values, ", ")))
		}
	}
	return notes
}

// String returns the user, the rooms and the permissions as JSON, in the form of the claim rejoin.
func (id Identity) String() string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	can := make(map[string]any)
	for name, list := range id.Can.lists() {
		if len(*list) > 0 {
			can[name] = *list
		}
	}
	for name, allowed := range map[string]bool{"broadcast": id.Can.Broadcast, "all": id.Can.All, "private": id.Can.Private} {
		if allowed {
			can[name] = true
		}
	}
	if err := e.Encode(struct {
		User  string         `json:"user"`
		Rooms []string       `json:"rooms,omitempty"`
		Can   map[string]any `json:"can"`
	}{id.User, id.Rooms, can}); err != nil {
		panic(err) // consists of texts
	}
	return strings.TrimSpace(b.String())
}
