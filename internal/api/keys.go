package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// keys are the hashes of all callers' keys, so that keys of any length can be compared in constant
// time.
type keys []hashedKey

type hashedKey struct {
	hash   [sha256.Size]byte
	caller *Caller
}

// SetKeys replaces the keys without a name and the callers with one. Calls in progress are not affected.
func (a *API) SetKeys(list []string, named []Caller) {
	ks := newKeys(append([]Caller{{Keys: list}}, named...))
	a.keys.Store(&ks)
}

func newKeys(callers []Caller) (all keys) {
	for i := range callers {
		for _, key := range callers[i].Keys {
			all = append(all, hashedKey{sha256.Sum256([]byte(key)), &callers[i]})
		}
	}
	return all
}

// caller returns the caller of a request, or why it is refused.
func (ks keys) caller(r *http.Request) (*Caller, *failure) {
	if len(ks) == 0 {
		return nil, fail(noAPIKeys, "this node has no API keys; REJOIN_API_KEYS and REJOIN_API_CALLERS set them")
	}
	given := keyOf(r)
	if given == "" {
		return nil, fail(unauthorized, "an API key is required, as Authorization: Bearer or X-API-Key")
	}
	hash, found := sha256.Sum256([]byte(given)), -1
	for i := range ks { // all keys, so that the time does not depend on the match
		same := subtle.ConstantTimeCompare(hash[:], ks[i].hash[:])
		found = subtle.ConstantTimeSelect(same, i, found)
	}
	if found < 0 {
		return nil, fail(unauthorized, "unknown API key")
	}
	return ks[found].caller, nil
}

func keyOf(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return r.Header.Get("X-API-Key")
}
