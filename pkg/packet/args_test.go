package packet

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

type stamp int

func (s stamp) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, `{"at":%d}`, int(s)), nil }

type file struct {
	Name    string
	Content Binary
	Hash    []byte            `json:",omitempty"`
	Meta    any               `json:",omitempty"`
	Parts   map[string]Binary `json:",omitempty"`
	Next    *file             `json:",omitempty"`
}

// ph is the placeholder of attachment n.
func ph(n int) string { return fmt.Sprintf(`{"_placeholder":true,"num":%d}`, n) }

func TestAppendArgs(t *testing.T) {
	var nilBytes []byte
	tests := []struct {
		name        string
		args        []any
		want        string
		attachments string // separated by spaces
	}{
		{"nothing", nil, ``, ""},
		{"scalars", []any{nil, true, false, -1, 2.5, "a"}, `null,true,false,-1,2.5,"a"`, ""},
		{"no HTML escaping", []any{"<a&b>", map[string]string{"<": "&"}}, `"<a&b>",{"<":"&"}`, ""},
		{"strings", []any{"\"\\\n\x00\x7f", "ü", "\u2028"}, `"\"\\\n\u0000` + "\x7f" + `","ü","\u2028"`, ""},
		{"invalid UTF-8 in a string", []any{"a\xffb"}, `"a\ufffdb"`, ""},
		{"json.RawMessage", []any{json.RawMessage(` {"a" : [1]} `), json.RawMessage(nil)}, `{"a" : [1]},null`, ""},
		{"Checked", []any{Checked(`{"a" : [1]}`), Checked(nil), []any{Checked(` 1 `)}, map[string]Checked{"a": Checked(`2`)}}, `{"a" : [1]},null,[1],{"a":2}`, ""},
		{"json.Marshaler", []any{stamp(7)}, `{"at":7}`, ""},
		{"nil containers", []any{[]any(nil), map[string]any(nil), nilBytes, Binary(nil), Raw{}}, `null,null,null,null,null`, ""},
		{"generic containers", []any{[]any{1, []any{}, map[string]any{}}, map[string]any{"b": "x", "a": nil}}, `[1,[],{}],{"a":null,"b":"x"}`, ""},

		{"[]byte", []any{[]byte("x"), []byte{}}, ph(0) + "," + ph(1), "x "},
		{"Binary", []any{Binary("x"), &file{}}, ph(0) + `,{"Name":"","Content":null}`, "x"},
		{"[]byte in generic containers", []any{map[string]any{"b": []byte("1"), "a": []any{[]byte("0")}}}, `{"a":[` + ph(0) + `],"b":` + ph(1) + `}`, "0 1"},
		{"[]byte elsewhere", []any{[][]byte{[]byte("x")}, file{Hash: []byte("h")}}, `["eA=="],{"Name":"","Content":null,"Hash":"aA=="}`, ""},
		{
			"Binary in a struct",
			[]any{1, file{Name: "f", Content: Binary("c"), Meta: []any{Binary{}}, Parts: map[string]Binary{"p": Binary("q")}, Next: &file{Content: Binary("n")}}},
			`1,{"Name":"f","Content":` + ph(0) + `,"Meta":[` + ph(1) + `],"Parts":{"p":` + ph(2) + `},"Next":{"Name":"","Content":` + ph(3) + `}}`,
			"c  q n",
		},
		{"Binary in a struct in a map", []any{map[string]any{"f": file{Content: Binary("c")}}, []byte("d")}, `{"f":{"Name":"","Content":` + ph(0) + `}},` + ph(1), "c d"},

		{
			"Raw is renumbered, and takes what it needs",
			[]any{[]byte("0"), Raw{json.RawMessage(`[` + ph(2) + `, ` + ph(1) + `]`), [][]byte{[]byte("a"), []byte("b"), []byte("c")}}},
			ph(0) + `,[` + ph(1) + `, ` + ph(2) + `]`,
			"0 c b",
		},
		{
			"Raw in a struct",
			[]any{struct{ Args []Raw }{[]Raw{{json.RawMessage(ph(0)), [][]byte{[]byte("a")}}, {JSON: json.RawMessage(`1`)}, {}}}},
			`{"Args":[` + ph(0) + `,1,null]}`,
			"a",
		},
		{"what looks like a placeholder, without attachments", []any{json.RawMessage(ph(9)), map[string]any{"_placeholder": true}}, ph(9) + `,{"_placeholder":true}`, ""},
		{"as many attachments as there may be", []any{make([]Binary, 3), repeat(Binary("x"), MaxAttachments)}, `[null,null,null],` + placeholders(MaxAttachments), strings.Repeat("x ", MaxAttachments-1) + "x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, attachments, err := AppendArgs([]byte(`["n",`), test.args...)
			if err != nil {
				t.Fatal(err)
			}
			if want := `["n",` + test.want; string(got) != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
			if joined := string(bytes.Join(attachments, []byte(" "))); joined != test.attachments {
				t.Errorf("attachments %q, want %q", joined, test.attachments)
			}
		})
	}
}

func repeat(b Binary, n int) []any {
	s := make([]any, n)
	for i := range s {
		s[i] = b
	}
	return s
}

func placeholders(n int) string {
	s := make([]string, n)
	for i := range s {
		s[i] = ph(i)
	}
	return "[" + strings.Join(s, ",") + "]"
}

// nested puts a value into levels of arrays.
func nested(levels int, v any) any {
	for range levels {
		v = []any{v}
	}
	return v
}

// TestAppendArgsDepth: arguments of the maximum depth can be decoded, in every form.
func TestAppendArgsDepth(t *testing.T) {
	raw := nest(MaxDepth - 1)[1:]
	for _, arg := range []any{
		json.RawMessage(raw), Checked(raw), Raw{JSON: json.RawMessage(raw)}, nested(MaxDepth-1, 1), nested(MaxDepth-2, Binary("x")),
		nested(9, json.RawMessage(nest(MaxDepth - 10)[1:])), nested(9, []json.RawMessage{json.RawMessage(nest(MaxDepth - 11)[1:])}),
	} {
		text, _, err := AppendArgs([]byte(`["a",`), arg)
		if err != nil {
			t.Errorf("%.20T: %v", arg, err)
			continue
		}
		if _, err := SplitArray(append(text, ']')); err != nil {
			t.Errorf("%T: %v", arg, err)
		}
		if _, _, err := AppendArgs(nil, []any{arg}); err == nil {
			t.Errorf("%T: one level more was accepted", arg)
		}
	}
}

func TestAppendArgsRefuses(t *testing.T) {
	circle := make([]any, 1)
	circle[0] = circle
	deep := any(nil)
	for range MaxDepth {
		deep = []int{1}
	}
	for range MaxDepth {
		deep = &struct{ A any }{deep}
	}
	tests := []struct {
		name   string
		args   []any
		reason Reason
	}{
		{"too many attachments", repeat(Binary("x"), MaxAttachments+1), BadAttachments},
		{"too many arguments", make([]any, MaxElements+1), TooManyElements},
		{"a circle", []any{circle}, TooDeep},
		{"too deep for a decoder", []any{deep}, TooDeep},
		{"too deep raw", []any{json.RawMessage(nest(MaxDepth)[1:])}, TooDeep},
		{"invalid raw", []any{json.RawMessage(`{"a":}`)}, InvalidJSON},
		{"two values as one", []any{json.RawMessage(`1,2`)}, InvalidJSON},
		{"two values as one, nested", []any{[]any{Checked(`1,2`)}}, InvalidJSON},
		{"too deep for a decoder, nested", []any{[]any{json.RawMessage(nest(MaxDepth - 1)[1:])}}, TooDeep},
		{"too deep for a decoder, Checked", []any{map[string]any{"a": Checked(nest(MaxDepth - 1)[1:])}}, TooDeep},
		{"an attachment too deep", []any{nested(MaxDepth-1, Binary("x"))}, TooDeep},
		{"empty Checked", []any{Checked{}}, InvalidJSON},
		{"empty raw", []any{json.RawMessage{}}, InvalidJSON},
		{"raw that is not UTF-8", []any{json.RawMessage("\"\xff\"")}, InvalidUTF8},
		{"raw in a struct that is not UTF-8", []any{struct{ A json.RawMessage }{json.RawMessage("\"\xff\"")}}, InvalidUTF8},
		{"Raw without its attachment", []any{Raw{json.RawMessage(ph(1)), make([][]byte, 1)}}, BadPlaceholder},
		{"Raw in a struct without its attachment", []any{struct{ A Raw }{Raw{json.RawMessage(ph(1)), make([][]byte, 1)}}}, BadPlaceholder},
		{"a forged placeholder, raw", []any{Binary("x"), json.RawMessage(ph(0))}, BadPlaceholder},
		{"a forged placeholder, Checked", []any{Checked(ph(0)), Binary("x")}, BadPlaceholder},
		{"a forged placeholder, escaped", []any{Binary("x"), json.RawMessage(`{"\u005fplaceholder":true,"num":9}`)}, BadPlaceholder},
		{"a forged placeholder, in a map", []any{Binary("x"), map[string]any{"_placeholder": true, "num": 0}}, BadPlaceholder},
		{"a forged placeholder around a true one", []any{map[string]any{"_placeholder": true, "num": 0, "x": Binary("x")}}, BadPlaceholder},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, attachments, err := AppendArgs(nil, test.args...)
			var e *Error
			if !errors.As(err, &e) || e.Reason != test.reason || attachments != nil {
				t.Errorf("got %v, want %q", err, test.reason)
			}
		})
	}
	for _, v := range []any{make(chan int), math.NaN(), map[string]any{"f": func() {}}} {
		if _, _, err := AppendArgs(nil, 1, v); err == nil || !strings.Contains(err.Error(), "argument 1") {
			t.Errorf("%T: got %v", v, err)
		}
	}
}

// No string becomes an attachment, even if it contains the mark; and JSON with the mark is
// refused if it would end its string.
func TestMarkCannotBeForged(t *testing.T) {
	if len(markValue) != 1+64 || strings.Trim(markValue, "\r\n") != "" {
		t.Errorf("the mark is %q, want 64 random line breaks after the first", markValue)
	}
	content := markValue + base64.StdEncoding.EncodeToString([]byte("x"))
	text, attachments, err := AppendArgs(nil, content, []string{content, `"` + content}, map[string]string{content: content}, file{Name: content})
	if err != nil || len(attachments) != 0 {
		t.Fatalf("got attachments %q, %v, want none", attachments, err)
	}
	elems, err := SplitArray(append(append([]byte{'['}, text...), ']'))
	if err != nil {
		t.Fatal(err)
	}
	var s string
	if err := json.Unmarshal(elems[0], &s); err != nil || s != content {
		t.Errorf("got %q, %v, want %q", s, err, content)
	}

	inside := struct{ A json.RawMessage }{json.RawMessage(`"a\` + markText + `eA=="`)}
	text, _, err = AppendArgs(nil, inside)
	var e *Error
	if !errors.As(err, &e) || e.Reason != InvalidJSON {
		t.Errorf("got %s, %v, want InvalidJSON", text, err)
	}
}

// For code that does not know attachments, a Binary is the same as a []byte.
func TestBinaryInJSON(t *testing.T) {
	for _, data := range [][]byte{nil, {}, {0}, []byte("hello, world")} {
		text, err := json.Marshal(file{Content: data})
		if err != nil {
			t.Fatal(err)
		}
		var asBytes struct{ Content []byte }
		var asBinary file
		if err := errors.Join(json.Unmarshal(text, &asBytes), json.Unmarshal(text, &asBinary)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(asBytes.Content, data) || !reflect.DeepEqual([]byte(asBinary.Content), data) {
			t.Errorf("%q became %q and %q", data, asBytes.Content, asBinary.Content)
		}
	}
}

func TestAppendString(t *testing.T) {
	for _, s := range []string{"", "a", "<b>", `"\`, "\n", "\x7f", "ü\u2028", "\xff", "😀"} {
		got := AppendString([]byte("x"), s)
		var back string
		if err := json.Unmarshal(got[1:], &back); err != nil || back != strings.ToValidUTF8(s, "\ufffd") {
			t.Errorf("%q: encoded as %s, %v", s, got, err)
		}
	}
}
