package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// A claimPath is the place of a claim in a token: the name of a claim, and the names of members in
// the objects below it.
type claimPath []string

// parsePath reads a path. Dots separate its names, and \. is a dot within one. A path with :// is
// one name, because identity providers require such names for claims of applications. So each text
// means one place, whatever a token contains.
func parsePath(text string) (claimPath, error) {
	if strings.ContainsAny(text, " \t") {
		return nil, fmt.Errorf("claim %q: blank in a name", text)
	}
	if strings.Contains(text, "://") && !strings.Contains(text, `\`) {
		return claimPath{text}, nil
	}
	var path claimPath
	name := ""
	for rest := text; ; {
		at := strings.IndexAny(rest, `.\`)
		switch {
		case at < 0:
			name += rest
		case rest[at] == '.':
			name += rest[:at]
		case strings.HasPrefix(rest[at:], `\.`):
			name += rest[:at] + "."
			rest = rest[at+2:]
			continue
		default:
			return nil, fmt.Errorf(`claim %q: a backslash must precede a dot`, text)
		}
		if name == "" {
			return nil, fmt.Errorf("claim %q: empty name", text)
		}
		path, name = append(path, name), ""
		if at < 0 {
			return path, nil
		}
		rest = rest[at+1:]
	}
}

// spaced reports whether a text at this place is a list, separated by spaces: scope is one
// (RFC 8693, section 4.2), and scp, which is the same in tokens of Entra. No other text is split,
// because users can choose texts such as their name, and could so choose values.
func (p claimPath) spaced() bool {
	last := p[len(p)-1]
	return last == "scope" || last == "scp"
}

// maxValues is the maximum number of values of one claim.
const maxValues = 1000

// find returns the claim as JSON, or nil if it is missing or null. Names are compared exactly.
func (p claimPath) find(claims map[string]json.RawMessage) (json.RawMessage, error) {
	raw := claims[p[0]]
	for _, name := range p[1:] {
		var member json.RawMessage
		if len(raw) == 0 {
			break
		}
		if err := unmarshalExact(raw, map[string]any{name: &member}, nil); err != nil {
			return nil, p.bad(err)
		}
		raw = member
	}
	if string(raw) == "null" {
		return nil, nil
	}
	return raw, nil
}

// values returns the values of the claim: of a list its elements.
func (p claimPath) values(claims map[string]json.RawMessage) ([]string, error) {
	raw, err := p.find(claims)
	if err != nil || raw == nil {
		return nil, err
	}
	var list []json.RawMessage
	if raw[0] != '[' {
		list = append(list, raw)
	} else if err := json.Unmarshal(raw, &list); err != nil {
		return nil, p.bad(err)
	}
	values := make([]string, len(list))
	for i, element := range list {
		if values[i], err = scalar(element); err != nil {
			return nil, p.bad(err)
		}
	}
	if raw[0] == '"' && p.spaced() {
		values = strings.FieldsFunc(values[0], func(r rune) bool { return r == ' ' })
	}
	if len(values) > maxValues {
		return nil, fmt.Errorf("claim %s: more than %d values", p, maxValues)
	}
	return values, nil
}

// bad describes an unusable claim by its place, without anything of the token.
func (p claimPath) bad(err error) error {
	if errors.Is(err, errTwice) {
		return fmt.Errorf("claim %s: duplicate name", p)
	}
	return fmt.Errorf("claim %s: %w", p, errClaimType)
}

// String is the inverse of parsePath.
func (p claimPath) String() string {
	if len(p) == 1 && strings.Contains(p[0], "://") {
		return p[0]
	}
	names := make([]string, len(p))
	for i, name := range p {
		names[i] = strings.ReplaceAll(name, ".", `\.`)
	}
	return strings.Join(names, ".")
}

var errClaimType = errors.New("not a text, a number, true or false, or a list of these")

// scalar returns a JSON text without its quotes, and a number, true and false as they are written.
func scalar(raw json.RawMessage) (text string, err error) {
	switch raw[0] {
	case '"':
		err = json.Unmarshal(raw, &text)
		return text, err
	case '{', '[', 'n':
		return "", errClaimType
	}
	return string(raw), nil
}

// placeholder stands for a claim's value, or for the part of it that a source takes.
const placeholder = "{}"

// A source selects values of a claim: CLAIM=VALUE that value, CLAIM=BEFORE{}AFTER all of this form,
// of which it takes the part between, and CLAIM all but false, which CLAIM=false selects.
type source struct {
	path          claimPath
	before, after string
	takes         bool // a part; otherwise before is the only value
}

func parseSource(text string) (s source, err error) {
	claim, value, selects := strings.Cut(text, "=")
	if !selects {
		value = placeholder
	}
	if s.path, err = parsePath(claim); err != nil {
		return s, err
	}
	s.before, s.after, s.takes = strings.Cut(value, placeholder)
	switch {
	case value == "":
		return s, fmt.Errorf("claim %q: empty value", claim)
	case strings.Contains(s.after, placeholder):
		return s, fmt.Errorf("claim %q: value with more than one %s", claim, placeholder)
	}
	return s, nil
}

// take returns the part of a value that the source takes, which is not empty, or, if it selects one
// value, that value.
func (s source) take(value string) (part string, ok bool) {
	if !s.takes {
		return value, value == s.before
	}
	if value == "false" && s.before+s.after == "" { // a flag that is not set, or the text of one
		return "", false
	}
	rest, ok := strings.CutPrefix(value, s.before)
	if !ok {
		return "", false
	}
	part, ok = strings.CutSuffix(rest, s.after)
	return part, ok && part != ""
}
