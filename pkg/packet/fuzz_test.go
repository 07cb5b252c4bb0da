package packet

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzDecoder: decoding never panics, and a decoded packet is the same after it was encoded
// and decoded again.
func FuzzDecoder(f *testing.F) {
	for text := range wireTexts() {
		f.Add(text)
	}
	for _, test := range accepted {
		f.Add(test.text)
	}
	for _, test := range refused {
		f.Add(test.text[:min(len(test.text), 4096)])
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := decode(text)
		if err != nil {
			if e := new(Error); !errors.As(err, &e) || p != nil {
				t.Fatalf("%v, %v", p, err)
			}
			return
		}
		if p.Data != nil && !json.Valid(p.Data) {
			t.Fatalf("accepted invalid JSON: %s", p.Data)
		}
		if !utf8.ValidString(p.Namespace) || !utf8.Valid(p.Data) {
			t.Fatalf("accepted invalid UTF-8: %q", text)
		}
		wantSplit(t, p)
		encoded := string(p.AppendText(nil))
		again, err := decode(encoded)
		if err != nil {
			t.Fatalf("%q became %q: %v", text, encoded, err)
		}
		if !same(p, again) || string(again.AppendText(nil)) != encoded {
			t.Fatalf("%q became %q: %+v, %+v", text, encoded, p, again)
		}
		switch p.Type {
		case Event:
			name, args, err := SplitEvent(p.Data)
			if err != nil || Reserved(name) || name != p.Event || !reflect.DeepEqual(args, p.Args) && len(args)+len(p.Args) > 0 {
				t.Fatalf("%q: split into %q, %q: %v", text, name, args, err)
			}
		case Ack:
			if args, err := SplitArray(p.Data); err != nil || !reflect.DeepEqual(args, p.Args) && len(args)+len(p.Args) > 0 {
				t.Fatalf("%q: %q, %v", text, args, err)
			}
		}
	})
}

// FuzzScanner: the scanner accepts the same JSON as encoding/json, and finds the same
// placeholders as in the decoded value.
func FuzzScanner(f *testing.F) {
	for _, test := range accepted {
		f.Add(string(test.want.Data))
	}
	for _, test := range refused {
		f.Add(strings.TrimLeft(test.text[:min(len(test.text), 4096)], "0123456789/-"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		value := bytes.Trim([]byte(text), space)
		found, err := checkJSON(value, MaxDepth, true, nil)
		e := new(Error)
		if errors.As(err, &e) && e.Reason == TooDeep {
			return
		}
		if valid := json.Valid([]byte(text)) && utf8.ValidString(text); valid != (err == nil) {
			t.Fatalf("%q: valid is %v, but the scanner says %v, want %v", text, valid, err, err == nil)
		}
		var v any
		if err != nil || json.Unmarshal(value, &v) != nil { // a number out of range
			return
		}
		// Decoding loses all but the last of members with the same name.
		if want := countPlaceholders(v); len(found) < want {
			t.Fatalf("%q: %d placeholders, found %v", text, want, found)
		}
		for _, ph := range found {
			var object map[string]any
			if err := json.Unmarshal(value[ph.start:ph.end], &object); err != nil || object["_placeholder"] != true {
				t.Fatalf("%q: %v is not a placeholder", text, ph)
			}
			if num, _ := object["num"].(float64); ph.num >= 0 && float64(ph.num) != num {
				t.Fatalf("%q: %v has number %v", text, ph, num)
			}
		}
	})
}

func countPlaceholders(v any) int {
	n := 0
	switch v := v.(type) {
	case []any:
		for _, elem := range v {
			n += countPlaceholders(elem)
		}
	case map[string]any:
		if v["_placeholder"] == true {
			return 1
		}
		for _, elem := range v {
			n += countPlaceholders(elem)
		}
	}
	return n
}

// FuzzArgs: arguments are the same after encoding and decoding, in every way.
func FuzzArgs(f *testing.F) {
	for _, test := range accepted {
		f.Add(string(test.want.Data), "name", []byte{1, 2, 3})
	}
	f.Add(`{"b":`+ph(0)+`}`, markValue+"QQ==", []byte{})
	f.Add(`["\u000a",null]`, "\xff<&>\u2028", []byte(markText))

	type inner struct {
		S string
		B Binary
		J any
		R Raw
	}
	f.Fuzz(func(t *testing.T, raw, s string, data []byte) {
		var j any
		if json.Unmarshal([]byte(raw), &j) != nil || !utf8.ValidString(raw) {
			raw, j = "null", nil
		}
		s = strings.ToValidUTF8(s, "\ufffd")
		data = append([]byte{}, data...) // a nil one would be null
		args := []any{
			s, data, j, json.RawMessage(raw),
			map[string]any{s: []any{data, j}},
			inner{S: s, B: data, J: j, R: Raw{json.RawMessage(ph(0)), [][]byte{data}}},
		}
		text, attachments, err := AppendArgs([]byte{'['}, args...)
		var e *Error
		switch {
		case errors.As(err, &e) && (e.Reason == BadPlaceholder && countPlaceholders(args) > 0 || e.Reason == TooDeep):
			return
		case err != nil:
			t.Fatal(err)
		case !utf8.Valid(text):
			t.Fatalf("%q is not UTF-8", text)
		case len(attachments) != 4:
			t.Fatalf("%s: %d attachments", text, len(attachments))
		}
		elems, err := SplitArray(append(text, ']'))
		if err != nil || len(elems) != len(args) {
			t.Fatalf("%s: %q, %v", text, elems, err)
		}
		check := func(i int, into, want any) {
			if err := Unmarshal(elems[i], attachments, into); err != nil {
				t.Fatalf("%s: %v", elems[i], err)
			}
			if got := reflect.ValueOf(into).Elem().Interface(); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s:\n got %#v\nwant %#v", elems[i], got, want)
			}
		}
		check(0, new(string), s)
		check(1, new([]byte), data)
		check(2, new(any), j)
		check(3, new(any), j)
		check(4, new(any), map[string]any{s: []any{data, j}})
		check(5, new(struct {
			S string
			B []byte
			J any
			R Binary
		}), struct {
			S string
			B []byte
			J any
			R Binary
		}{s, data, j, data})
	})
}

// FuzzAttachments: in any order of messages, a packet has exactly the attachments that
// followed it, pending bytes are counted, and nothing is kept after a packet or an error.
// The first byte of each message in the script gives its type and length: with the lowest
// bit set an attachment, otherwise text.
func FuzzAttachments(f *testing.F) {
	message := func(binary bool, s string) string {
		kind := byte(len(s)) << 1
		if binary {
			kind |= 1
		}
		return string(kind) + s
	}
	one := message(false, `51-["a",`+ph(0)+`]`)
	two := message(false, `52-/chat,7["b",{"x":`+ph(1)+`},`+ph(0)+`]`)
	f.Add([]byte(one + message(true, "\x00\xff")))
	f.Add([]byte(two + message(true, "first") + message(true, "")))
	f.Add([]byte(two + message(true, "first") + message(false, `2["c"]`)))
	f.Add([]byte(message(true, "too early") + one))
	f.Add([]byte(message(false, `2["c"]`) + message(false, `61-/chat,12[`+ph(0)+`]`) + message(true, "ack") + message(true, "one too many")))
	f.Add([]byte(message(false, `51-["a",`+ph(0)+`,`+ph(0)+`]`) + message(true, "shared")))
	f.Add([]byte(message(false, `51-["a",`+ph(3)+`]`) + message(true, "")))
	f.Add([]byte(message(false, `510-["a"]`) + strings.Repeat(message(true, "x"), 10)))
	f.Fuzz(func(t *testing.T, script []byte) {
		var d Decoder
		var sent [][]byte // attachments since the text that waits
		waits := 0        // bytes
		for len(script) > 0 {
			binary, n := script[0]&1 != 0, int(script[0]>>1)
			data := append([]byte{}, script[1:][:min(n, len(script)-1)]...)
			script = script[1+len(data):]
			was := d.Pending()
			var p *Packet
			var err error
			if binary {
				sent, waits = append(sent, data), waits+len(data)
				p, err = d.Binary(data)
			} else {
				sent, waits = nil, len(data)
				p, err = d.Text(data)
			}
			switch {
			case err != nil:
				e := new(Error)
				if !errors.As(err, &e) || p != nil || d.Pending() != 0 {
					t.Fatalf("%v, %v, %d bytes are held", p, err, d.Pending())
				}
				if (e.Reason == UnexpectedText) != (!binary && was > 0) || (e.Reason == UnexpectedBinary) != (binary && was == 0) {
					t.Fatalf("binary is %v, %d bytes waited: %v", binary, was, err)
				}
			case p == nil:
				if held := waits + argBytes*len(d.pending.Args); d.Pending() != held {
					t.Fatalf("%d bytes are held, but %d counted, want %d", held, d.Pending(), held)
				}
			default:
				if d.Pending() != 0 || !reflect.DeepEqual(p.Attachments, sent) && len(p.Attachments)+len(sent) > 0 {
					t.Fatalf("%d bytes are held, got %q, want %q", d.Pending(), p.Attachments, sent)
				}
				check(t, p)
				sent, waits = nil, 0
			}
		}
	})
}

// check forwards a packet: each attachment is sent at most once.
func check(t *testing.T, p *Packet) {
	if p.Data == nil || p.Type != Event && p.Type != Ack {
		return
	}
	elems, err := SplitArray(p.Data)
	if err != nil {
		t.Fatalf("%s: %v", p.Data, err)
	}
	args := make([]any, len(elems))
	for i, elem := range elems {
		args[i] = Raw{JSON: elem, Attachments: p.Attachments}
		var into any
		_ = Unmarshal(elem, p.Attachments, &into) // may be a number out of range
		_ = Unmarshal(elem, p.Attachments, new([]byte))
	}
	text, used, err := AppendArgs([]byte{'['}, args...)
	if err != nil {
		t.Fatalf("%s cannot be sent on: %v", p.Data, err)
	}
	if len(used) > len(p.Attachments) || !json.Valid(append(text, ']')) {
		t.Fatalf("%s with %d attachments becomes %s with %d", p.Data, len(p.Attachments), text, len(used))
	}
}
