package packet

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
)

type embedded struct{ Meta any }

type target struct {
	Name  string
	Bytes []byte
	Bin   Binary
	Ptr   *Binary
	Any   any
	List  []Binary
	Map   map[string]any
	Typed map[string]struct{ V any }
	Array [2]any
	embedded
}

type named []byte

// upper are bytes with their own UnmarshalText.
type upper []byte

func (u *upper) UnmarshalText(text []byte) error { *u = bytes.ToUpper(text); return nil }

func TestUnmarshal(t *testing.T) {
	a, b := []byte("a"), []byte{}
	attachments := [][]byte{a, b}
	bin := Binary(a)
	tests := []struct {
		raw  string
		into any
		want any
	}{
		{ph(0), new([]byte), a},
		{ph(0), new(Binary), Binary(a)},
		{ph(1), new(Binary), Binary{}},
		{" " + ph(0) + " ", new(any), a},
		{ph(0), new(*Binary), &bin},
		{`1`, new(int), 1},
		{`"s"`, new(string), "s"},
		{`"YQ=="`, new(json.RawMessage), json.RawMessage(`"YQ=="`)},
		{`"text"`, new(upper), upper("TEXT")},
		{`["YQ=="]`, new([][]byte), [][]byte{a}},
		{`{"Bytes":"YQ==","Bin":"YQ=="}`, new(target), target{Bytes: a, Bin: a}},
		{`[97]`, new([]byte), a},
		{`null`, new(Binary), Binary(nil)},
		{`[` + ph(0) + `,1,[` + ph(1) + `]]`, new(any), []any{a, 1.0, []any{b}}},
		{`{"x":` + ph(0) + `}`, new(map[string]any), map[string]any{"x": a}},
		{`{"x":` + ph(0) + `}`, new(map[string][]byte), map[string][]byte{"x": a}},
		{`{"_placeholder":true,"num":0,"more":` + ph(7) + `}`, new(any), a},
		{
			`{"Name":"n","Bytes":` + ph(0) + `,"Bin":` + ph(0) + `,"Ptr":` + ph(0) + `,"Any":{"x":[` + ph(0) + `]},"List":[` + ph(0) + `,null],` +
				`"Map":{"x":` + ph(1) + `},"Typed":{"x":{"V":` + ph(0) + `}},"Array":[0,` + ph(0) + `],"Meta":` + ph(0) + `}`,
			new(target),
			target{
				Name: "n", Bytes: a, Bin: a, Ptr: &bin, Any: map[string]any{"x": []any{a}}, List: []Binary{a, nil},
				Map: map[string]any{"x": b}, Typed: map[string]struct{ V any }{"x": {a}}, Array: [2]any{0.0, a}, embedded: embedded{a},
			},
		},
	}
	for _, test := range tests {
		if err := Unmarshal(json.RawMessage(test.raw), attachments, test.into); err != nil {
			t.Errorf("%s: %v", test.raw, err)
			continue
		}
		if got := reflect.ValueOf(test.into).Elem().Interface(); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s:\n got %#v\nwant %#v", test.raw, got, test.want)
		}
	}
}

// TestUnmarshalString: a string decodes as by json.Unmarshal, and invalid strings are
// refused.
func TestUnmarshalString(t *testing.T) {
	for _, raw := range []string{
		`"a"`, `""`, ` "a" `, `"\u0061\n\ud83d\ude00\ud83d"`, `"ü"`, "\"\xff\"", `null`,
		``, ` `, `1`, `true`, `{}`, `[]`, `["a"]`, `"`, `"a`, `"a"b`, `"a""b"`, `"\x"`, "\"\n\"",
	} {
		got, want := "before", "before"
		err, wantErr := Unmarshal(json.RawMessage(raw), nil, &got), json.Unmarshal([]byte(raw), &want)
		if got != want || (err == nil) != (wantErr == nil) {
			t.Errorf("%q: got %q, %v, want %q, %v", raw, got, err, want, wantErr)
		}
	}
	if err := Unmarshal(json.RawMessage(`"a"`), nil, (*string)(nil)); err == nil {
		t.Error("a string was decoded into a nil pointer")
	}
}

// A packet without attachments has no placeholders, only objects.
func TestUnmarshalWithoutAttachments(t *testing.T) {
	var v any
	if err := Unmarshal(json.RawMessage(ph(0)), nil, &v); err != nil {
		t.Fatal(err)
	}
	if want := (map[string]any{"_placeholder": true, "num": 0.0}); !reflect.DeepEqual(v, want) {
		t.Errorf("got %v, want %v", v, want)
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	attachments := [][]byte{[]byte("a")}
	for raw, reason := range map[string]Reason{
		ph(1):    BadPlaceholder,
		ph(-1):   BadPlaceholder,
		`[1`:     InvalidJSON,
		`1,2`:    InvalidJSON,
		`  `:     InvalidJSON,
		"\"\n\"": InvalidJSON,
	} {
		var v any
		err := Unmarshal(json.RawMessage(raw), attachments, &v)
		var e *Error
		if !errors.As(err, &e) || e.Reason != reason {
			t.Errorf("%s: got %v, want %q", raw, err, reason)
		}
	}
	// An attachment cannot be decoded into other types, like an array.
	for _, into := range []any{new(string), new(int), new([]string), new(struct{ A int })} {
		if err := Unmarshal(json.RawMessage(ph(0)), attachments, into); err == nil {
			t.Errorf("an attachment was decoded into %T", into)
		}
	}
	if err := Unmarshal(json.RawMessage(`["x",`+ph(0)+`]`), attachments, new([]string)); err == nil {
		t.Error("an attachment was decoded into a []string")
	}
	for _, into := range []any{new([]byte), new(Binary), new(*[]byte), new(named)} { // not base64
		for _, raw := range []string{`"YQ=="`, ` "YQ=="`} {
			for _, attachments := range [][][]byte{nil, attachments} {
				if err := Unmarshal(json.RawMessage(raw), attachments, into); err == nil {
					t.Errorf("a string was decoded into %T", into)
				}
			}
		}
	}
	var pointer *Binary
	if err := Unmarshal(json.RawMessage(ph(0)), attachments, pointer); err == nil {
		t.Error("an attachment was decoded into a nil pointer")
	}
}

// Decoded values belong to the caller.
func TestUnmarshalCopies(t *testing.T) {
	attachments := [][]byte{[]byte("a")}
	for _, into := range []any{new([]byte), new(Binary), new(any)} {
		if err := Unmarshal(json.RawMessage(ph(0)), attachments, into); err != nil {
			t.Fatal(err)
		}
		v := reflect.ValueOf(into).Elem()
		if v.Kind() == reflect.Interface {
			v = v.Elem()
		}
		v.Bytes()[0] = 'x'
		if string(attachments[0]) != "a" {
			t.Fatalf("a change through %T went into the packet", into)
		}
	}
}

// Values that the caller's value pointed to before are reused, as in json.Unmarshal, even
// if they form cycles.
func TestUnmarshalIntoPointers(t *testing.T) {
	type node struct {
		Any   any
		First *any
		Self  *node `json:"-"`
	}
	n := new(node)
	n.Self, n.First = n, &n.Any
	var v any = n
	if err := Unmarshal(json.RawMessage(`{"First":`+ph(0)+`}`), [][]byte{[]byte("a")}, &v); err != nil {
		t.Fatal(err)
	}
	if got, ok := n.Any.([]byte); !ok || string(got) != "a" {
		t.Errorf("got %v", n.Any)
	}

	var data []byte
	v = &data
	if err := Unmarshal(json.RawMessage(ph(0)), [][]byte{[]byte("a")}, &v); err != nil || string(data) != "a" {
		t.Errorf("got %q, %v", data, err)
	}
}
