package socketio

import (
	"crypto/rand"
	"encoding/base64"
)

// idBytes is the number of random bytes in the ids of newID.
const idBytes = 15

// newID returns 20 random characters, for socket ids, private ids and queries.
func newID() string {
	var b [idBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// isID reports whether newID can have made an id.
func isID(id string) bool {
	_, err := base64.RawURLEncoding.DecodeString(id)
	return err == nil && len(id) == base64.RawURLEncoding.EncodedLen(idBytes)
}
