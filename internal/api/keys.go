package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// keys are the hashes of the API's keys, so that keys of any length can be compared in constant
// time.
type keys [][sha256.Size]byte

// SetKeys replaces the keys that authenticate callers. Calls in progress are not affected.
func (a *API) SetKeys(list []string) {
	ks := newKeys(list)
	a.keys.Store(&ks)
}

func newKeys(list []string) keys {
	all := make(keys, len(list))
	for i, key := range list {
		all[i] = sha256.Sum256([]byte(key))
	}
	return all
}

// refusal returns why a request is refused, or nil.
func (ks keys) refusal(r *http.Request) *failure {
	if len(ks) == 0 {
		return fail(noAPIKeys, "this node has no API keys; REJOIN_API_KEYS sets them")
	}
	given := keyOf(r)
	if given == "" {
		return fail(unauthorized, "an API key is required, as Authorization: Bearer or X-API-Key")
	}
	hash, same := sha256.Sum256([]byte(given)), 0
	for _, key := range ks { // all keys, so that the time does not depend on the match
		same |= subtle.ConstantTimeCompare(hash[:], key[:])
	}
	if same == 0 {
		return fail(unauthorized, "unknown API key")
	}
	return nil
}

func keyOf(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return r.Header.Get("X-API-Key")
}
