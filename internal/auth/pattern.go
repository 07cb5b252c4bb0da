package auth

import (
	"path"
	"strings"
)

// special are the special characters of a pattern in addition to *.
const special = `?[\`

// match reports whether a well-formed pattern matches a room, as [path.Match] does. Most
// patterns are text and asterisks, and take time proportional to the sum of the lengths of
// pattern and room. The others may take time proportional to the product, so checkPatterns
// bounds their length.
func match(pattern, room string) bool {
	if strings.ContainsAny(pattern, special) {
		matched, _ := path.Match(pattern, room) // checkPatterns has validated the pattern
		return matched
	}
	text, pattern, star := strings.Cut(pattern, "*")
	if !star {
		return text == room
	}
	rest, ok := strings.CutPrefix(room, text)
	if !ok {
		return false
	}
	// The first match of a text is sufficient: text before a later match can be matched by
	// the asterisk after the first one.
	for star {
		text, pattern, star = strings.Cut(pattern, "*")
		at := strings.Index(rest, text)
		if !star {
			at = len(rest) - len(text)
			ok = strings.HasSuffix(rest, text)
		} else {
			ok = at >= 0
		}
		if !ok || strings.Contains(rest[:at], "/") {
			return false
		}
		rest = rest[at+len(text):]
	}
	return true
}
