package packet

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// encoding/json does not know about attachments. So a Binary deep inside a value is written as
// base64 with a mark before it, which identifies it afterwards; in the other direction a
// placeholder is replaced by marked base64, which encoding/json decodes into any []byte.
//
// The mark is a run of line breaks. Base64 decoders skip those, so a marked string means the same
// as one without the mark to code that does not know it. The choice of line breaks is random for
// each process: JSON from elsewhere cannot contain the mark. Its first break is written with an
// escape that encoding/json does not use for it: no string that a program encodes can contain the
// mark either.
var (
	markText  string // as in the JSON string, with the quote before it
	markValue string // as in the decoded string
)

func init() {
	bits := make([]byte, 8)
	_, _ = rand.Read(bits) // never fails
	breaks := strings.NewReplacer("0", `\n`, "1", `\r`, "[", "", " ", "", "]", "")
	markText = `"\u000a` + breaks.Replace(fmt.Sprintf("%08b", bits))
	_ = json.Unmarshal([]byte(markText+`"`), &markValue) // is valid
}

// MarshalJSON returns b as base64 in a JSON string, or null if b is nil.
func (b Binary) MarshalJSON() ([]byte, error) {
	if b == nil {
		return []byte("null"), nil
	}
	return appendMarked(make([]byte, 0, len(markText)+base64.StdEncoding.EncodedLen(len(b))+1), b), nil
}

// MarshalJSON returns the JSON with base64 in place of the placeholders.
func (r Raw) MarshalJSON() ([]byte, error) {
	if r.JSON == nil {
		return []byte("null"), nil
	}
	if len(r.Attachments) == 0 {
		return r.JSON, nil
	}
	text, found, err := locate(r, MaxDepth)
	if err != nil {
		return nil, err
	}
	return expand(text, found, r.Attachments), nil
}

// expand replaces the placeholders in text by marked base64.
func expand(text []byte, found []placeholder, attachments [][]byte) []byte {
	var b []byte
	done := 0
	for _, ph := range found {
		b = append(b, text[done:ph.start]...)
		b = appendMarked(b, attachments[ph.num])
		done = ph.end
	}
	return append(b, text[done:]...)
}

func appendMarked(b, data []byte) []byte {
	b = append(b, markText...)
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, '"')
}

// cutMarked returns the JSON before the first marked string, the data in that string, and the
// JSON after it. If there is no marked string, before is all of it.
func cutMarked(text []byte) (before, data, after []byte, ok bool) {
	before, after, ok = bytes.Cut(text, []byte(markText))
	if !ok {
		return text, nil, nil, false
	}
	encoded, after, _ := bytes.Cut(after, []byte{'"'})
	data, err := base64.StdEncoding.AppendDecode([]byte{}, encoded)
	if err != nil {
		return text, nil, nil, false
	}
	return before, data, after, true
}

// unmark returns the data in a decoded string if it is marked.
func unmark(s string) (data []byte, ok bool) {
	if !strings.HasPrefix(s, markValue) {
		return nil, false
	}
	data, err := base64.StdEncoding.DecodeString(s)
	return data, err == nil
}
