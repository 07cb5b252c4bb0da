package main

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// The expected values were computed with another implementation of RFC 5869. Nodes of all versions
// must agree on them.
func TestEachPurposeHasItsKey(t *testing.T) {
	const s = secret("that of the tests' clusters")
	offsets, forwarding := derive(s, forOffsets), derive(s, forForwarding)
	if bytes.Equal(offsets, forwarding) {
		t.Error("one key for two purposes")
	}
	for key, want := range map[string]string{
		hex.EncodeToString(offsets):    "d039320bd76b3a1d1fd7cf096e852f657fae2733560e36826a641b84f5bca1a9",
		hex.EncodeToString(forwarding): "2cb5e5db56590882c0843aa93cb327414e6aa61248eb30c6006ce9435f047fc8",
	} {
		if key != want {
			t.Errorf("got %s, want %s", key, want)
		}
	}
}
