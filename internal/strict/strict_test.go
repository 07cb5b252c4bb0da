package strict

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestDecode(t *testing.T) {
	type part struct {
		B int `json:"b"`
	}
	for text, good := range map[string]bool{
		`{}`: true, `{"a":1}`: true, ` {"a":1,"c":{"b":2}} `: true, `{"b":3}`: true, `{"a":null}`: true,
		``: false, `null`: false, `[]`: false, `1`: false, `{"a":1}{}`: false, `{"a":1},`: false, `{"a":"1"}`: false,
		`{"x":1}`: false, `{"A":1}`: false, `{"a":1,"a":1}`: false, `{"a":1,"\u0061":1}`: false, `{"c":{"x":1}}`: false, "{\"a\":1,\"x\xff\":1}": false,
	} {
		var v struct {
			A int `json:"a"`
			part
			C part `json:"c"`
		}
		if err := Decode([]byte(text), &v); (err == nil) != good {
			t.Errorf("%s: %v, want an error: %v", text, err, !good)
		}
	}
}

func TestMembers(t *testing.T) {
	members, err := Members([]byte(`{"a":1,"b":{"a":2}}`))
	if err != nil || len(members) != 2 || string(members["b"]) != `{"a":2}` {
		t.Errorf("got %s, %v", members, err)
	}
	for text, want := range map[string]error{`null`: ErrNoObject, `[1]`: ErrNoObject, ``: ErrNoObject} {
		if _, err := Members([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
	if _, err := Members([]byte(`{"a":1,"a":2}`)); err == nil {
		t.Error("a duplicate is accepted")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"a":[1],"b":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var v struct {
			A json.RawMessage `json:"a"`
			B int             `json:"b"`
		}
		if Decode(text, &v) == nil && !json.Valid(text) {
			t.Errorf("%q is accepted, and is not valid", text)
		}
	})
}
