package app

import (
	"encoding/json"
	"testing"
)

// TestTokenIn: the token is the one that encoding/json finds.
func TestTokenIn(t *testing.T) {
	for _, payload := range []string{
		``, `{}`, `{ }`, `{"token":"a"}`, ` {"token" : "a" } `[1:], `{"Token":"a"}`, `{"token":"a","TOKEN":"b"}`, `{"TOKEN":"b","token":"a"}`,
		`{"x":{"token":"a"}}`, `{"x":["token","a"],"token":null,"y":1}`, `{"tokens":"a","oken":"b"}`, `{"\u0074oken":"a"}`,
		`{"to` + "\u212a" + `en":"a"}`, `{"token":{"a":[1,"}"]}}`, `{"token":7}`, `{"x":"\"token\":","token":"a\u0062"}`, `{"":"","token":""}`,
	} {
		var want struct {
			Token json.RawMessage `json:"token"`
		}
		_ = json.Unmarshal([]byte(payload), &want)
		if got := tokenIn([]byte(payload)); string(got) != string(want.Token) {
			t.Errorf("%s: got %s, want %s", payload, got, want.Token)
		}
	}
}
