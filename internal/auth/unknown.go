package auth

import (
	"encoding/json"
	"maps"
	"slices"
)

// Unknown returns the names of claims, a JSON object, that a verifier ignores, and for each the name
// that was probably intended, or "". RFC 7519, section 4, requires that unknown claims are ignored, so
// a typing error has no other effect.
func Unknown(text string) map[string]string {
	unknown := make(map[string]string)
	var all, own map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &all) != nil {
		return unknown
	}
	ours := []string{"user", "rooms", "can"}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch {
		case slices.Contains(ours, name):
			unknown[name] = "rejoin." + name
		case !slices.Contains([]string{"iss", "sub", "aud", "iat", "exp", "nbf", "jti", "rejoin"}, name):
			unknown[name] = ""
		}
	}
	_ = json.Unmarshal(all["rejoin"], &own) // Sign refuses what is not an object
	for name := range own {
		if !slices.Contains(ours, name) {
			unknown["rejoin."+name] = ""
		}
	}
	return unknown
}
