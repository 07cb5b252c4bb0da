package main

import (
	"crypto/hkdf"
	"crypto/sha256"
)

// Purposes of keys that are derived from the cluster secret. Each purpose has its
// own key, so that a leaked key, or a signature that an attacker can request, is
// useless for the other purpose.
const (
	forOffsets    = "rejoin offsets"
	forForwarding = "rejoin forwarded requests"
)

// derive returns the key for a purpose: HKDF of RFC 5869 with SHA-256, without salt,
// and with the purpose as info. It is the same on all nodes with the secret.
func derive(s secret, purpose string) []byte {
	key, err := hkdf.Key(sha256.New, []byte(s), nil, purpose, sha256.Size)
	if err != nil {
		panic(err) // not for these lengths
	}
	return key
}
