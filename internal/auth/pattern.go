package auth

import (
	"path"
	"strings"
)

// special are the characters of a pattern, beside *, that do not stand for themselves.
const special = `?[\`

// match reports whether a well-formed pattern matches a room, as [path.Match] does. Most
// patterns are text and asterisks, and take time that grows with the lengths of pattern
// and room. The others may take their product, so checkPatterns bounds their length.
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
	// The first match of a text is as good as any other: what the asterisk before a later one
	// matches, the asterisk after the first one matches as well.
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
