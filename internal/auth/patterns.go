package auth

import "slices"

// Patterns are patterns of names, as in [Permissions].
type Patterns []string

// Check returns an error if a pattern is malformed, or the patterns exceed the limits of a list of
// permissions.
func (ps Patterns) Check() error { return checkPatterns(ps) }

// Match reports whether one of the patterns, which Check accepts, matches a name.
func (ps Patterns) Match(name string) bool {
	return slices.ContainsFunc(ps, func(pattern string) bool { return match(pattern, name) })
}
