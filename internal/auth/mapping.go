package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Mapping derives the user, the rooms and the permissions of a client from claims of its token,
// as identity providers issue them. What the token states under rejoin has precedence. The zero
// value maps nothing.
type Mapping struct {
	audience claimPath // nil for aud
	user     claimPath // nil for sub
	rooms    []roomRule
	can      []grantRule
}

// A roomRule puts a client into the room for each value of its source.
type roomRule struct {
	source
	room string // with the placeholder
}

// A grantRule gives permissions for each value of its source. The placeholder in their patterns
// stands for the value, and matches that text only.
type grantRule struct {
	source
	can Permissions
}

// MapAudience sets the claim that has the audience, or a list of them, in place of aud.
func (m *Mapping) MapAudience(claim string) (err error) {
	if m.audience, err = parsePath(claim); err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	return nil
}

// audienceName returns the place of the audience.
func (m *Mapping) audienceName() string {
	if m.audience == nil {
		return "aud"
	}
	return m.audience.String()
}

// MapUser sets the claim that names the user.
func (m *Mapping) MapUser(claim string) (err error) {
	if m.user, err = parsePath(claim); err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	return nil
}

// MapRooms adds a rule of the form CLAIM, CLAIM=VALUE, or one of these followed by " as ROOM".
func (m *Mapping) MapRooms(rule string) error {
	from, room, renamed := strings.Cut(rule, " as ")
	if !renamed {
		room = placeholder
	}
	s, err := parseSource(strings.TrimSpace(from))
	if err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	room = strings.TrimSpace(room)
	if err := checkNames([]string{room}); err != nil {
		return fmt.Errorf("auth: room of claim %s: %w", from, err)
	}
	if OfUser(room) {
		return fmt.Errorf("auth: room of claim %s: rooms with the prefix %q are reserved for users", from, userRooms)
	}
	m.rooms = append(m.rooms, roomRule{s, room})
	return nil
}

// MapPermissions adds the rules of a JSON object: its names are of the form CLAIM or CLAIM=VALUE,
// its values permissions as in a token.
func (m *Mapping) MapPermissions(text string) error {
	if !json.Valid([]byte(text)) || strings.TrimSpace(text) == "null" {
		return errors.New("auth: permissions of claims: want one JSON object")
	}
	err := eachMember([]byte(text), func(name string, d *json.Decoder) error {
		s, err := parseSource(name)
		if err != nil {
			return err
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		can, err := ParsePermissions(string(raw))
		if err == nil {
			err = checkPlaceholders(can)
		}
		if err != nil {
			return fmt.Errorf("claim %s: %w", name, err)
		}
		m.can = append(m.can, grantRule{s, can})
		return nil
	})
	if err != nil {
		return fmt.Errorf("auth: permissions of claims: %w", err)
	}
	return nil
}

// checkPlaceholders refuses patterns in which the text of a value could be read as anything else
// than a text, as it could in a class of characters.
func checkPlaceholders(can Permissions) error {
	for _, patterns := range can.lists() {
		for _, pattern := range *patterns {
			if strings.Contains(pattern, placeholder) && strings.ContainsAny(pattern, special) {
				return fmt.Errorf("pattern %q: %s must not be combined with ?, [ or \\", pattern, placeholder)
			}
		}
	}
	return nil
}

// Check returns an error if a client to which all rules apply would have more permissions, together
// with the defaults, than a token may give.
func (m *Mapping) Check(defaults Permissions) error {
	for _, rule := range m.can {
		defaults = defaults.with(rule.can)
	}
	if err := defaults.check(); err != nil {
		return fmt.Errorf("auth: permissions of all claims and the default together: %w", err)
	}
	return nil
}

// paths returns the claims that the mapping reads.
func (m *Mapping) paths() (all []claimPath) {
	for _, p := range []claimPath{m.audience, m.user} {
		if p != nil {
			all = append(all, p)
		}
	}
	for _, s := range m.sources() {
		all = append(all, s.path)
	}
	return all
}

// sources returns the sources of rooms and permissions.
func (m *Mapping) sources() (all []source) {
	for _, rule := range m.rooms {
		all = append(all, rule.source)
	}
	for _, rule := range m.can {
		all = append(all, rule.source)
	}
	return all
}

// read returns the claims of a token that the mapping needs, by the first name of their paths.
func (m *Mapping) read(text []byte) (map[string]json.RawMessage, error) {
	paths := m.paths()
	if len(paths) == 0 {
		return nil, nil
	}
	into := make(map[string]any, len(paths))
	for _, p := range paths {
		into[p[0]] = new(json.RawMessage)
	}
	if err := unmarshalExact(text, into, nil); err != nil {
		return nil, err
	}
	found := make(map[string]json.RawMessage, len(into))
	for name, raw := range into {
		found[name] = *raw.(*json.RawMessage)
	}
	return found, nil
}

// userOf returns the user that the claims name, or "". It is a text or a number.
func (m *Mapping) userOf(claims map[string]json.RawMessage) (string, error) {
	raw, err := m.user.find(claims)
	if err != nil || raw == nil {
		return "", err
	}
	user, err := scalar(raw)
	if err != nil || raw[0] == 't' || raw[0] == 'f' {
		return "", fmt.Errorf("claim %s: not a text or a number", m.user)
	}
	return user, nil
}

// roomsOf returns the rooms that the claims name.
func (m *Mapping) roomsOf(claims map[string]json.RawMessage) (rooms []string, err error) {
	for _, rule := range m.rooms {
		err := rule.each(claims, func(part string) {
			if room := strings.ReplaceAll(rule.room, placeholder, part); !slices.Contains(rooms, room) && len(rooms) <= maxNames {
				rooms = append(rooms, room)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return rooms, nil
}

// permissionsOf returns the defaults and the permissions that the claims give, until these exceed a
// limit, which check reports.
func (m *Mapping) permissionsOf(claims map[string]json.RawMessage, defaults Permissions) (Permissions, error) {
	can := defaults
	for _, rule := range m.can {
		err := rule.each(claims, func(part string) {
			if !can.exceeds() {
				can = can.with(rule.can.of(part))
			}
		})
		if err != nil {
			return Permissions{}, err
		}
	}
	return can, nil
}

// each calls f with what the source takes of each value of its claim.
func (s source) each(claims map[string]json.RawMessage, f func(part string)) error {
	values, err := s.path.values(claims)
	if err != nil {
		return err
	}
	for _, value := range values {
		if part, ok := s.take(value); ok {
			f(part)
		}
	}
	return nil
}

// with returns the permissions and others, without duplicates. A list stops growing once it exceeds
// the limit, which check then reports.
func (p Permissions) with(other Permissions) Permissions {
	more := other.lists()
	for name, list := range p.lists() {
		all := slices.Clip(*list) // is shared
		for _, pattern := range *more[name] {
			if !slices.Contains(all, pattern) && len(all) <= maxNames {
				all = append(all, pattern)
			}
		}
		*list = all
	}
	p.Broadcast = p.Broadcast || other.Broadcast
	p.All = p.All || other.All
	p.Private = p.Private || other.Private
	p.unbounded = p.unbounded || other.unbounded
	return p
}

// exceeds reports whether a list has more patterns than check allows.
func (p Permissions) exceeds() bool {
	return max(len(p.Join), len(p.To), len(p.History), len(p.Members)) > maxNames
}

// of returns the permissions for a value.
func (p Permissions) of(value string) Permissions {
	literal := escape.Replace(value)
	for _, list := range p.lists() {
		patterns := slices.Clone(*list)
		for i, pattern := range patterns {
			patterns[i] = strings.ReplaceAll(pattern, placeholder, literal)
		}
		*list = patterns
	}
	return p
}

// escape makes a text a pattern that matches only this text.
var escape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)
