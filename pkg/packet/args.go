package packet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"
)

// Binary is data that is sent as an attachment, wherever it occurs in an argument. encoding/json
// handles it like a []byte, as base64.
type Binary []byte

// Raw is a value as received in a packet: JSON, and the packet's attachments, which placeholders in
// the JSON refer to. AppendArgs forwards a Raw, anywhere in an argument, unchanged, with those
// attachments that it needs.
type Raw struct {
	JSON        json.RawMessage
	Attachments [][]byte
}

// Checked is JSON that needs no further check: an element of the Args of a [Packet], or one that
// [SplitArray] or [SplitEvent] has returned. As an argument AppendArgs copies it. Without
// attachments in its packet it is the cheapest form to forward.
type Checked json.RawMessage

// MarshalJSON returns c.
func (c Checked) MarshalJSON() ([]byte, error) { return json.RawMessage(c).MarshalJSON() }

// AppendArgs appends args to b as JSON, separated by commas and without surrounding brackets, and
// returns their attachments. It escapes nothing that JSON does not require.
//
// A Binary becomes an attachment wherever it occurs. So does a []byte that is an argument or is
// nested only in []any and map[string]any; elsewhere, as in the field of a struct, it remains
// base64. A nil one is null. A json.RawMessage is checked and copied. Everything else is as in
// encoding/json.
//
// The attachments share their memory with args. On error b must not be used any more. The error is
// an *[Error] if args violate the protocol: more than MaxAttachments or MaxElements, JSON that is
// invalid or nested deeper than MaxDepth, invalid UTF-8 in it, or, beside attachments, an object
// that looks like a placeholder but is not one.
func AppendArgs(b []byte, args ...any) (_ []byte, attachments [][]byte, err error) {
	if len(args) > MaxElements {
		return b, nil, &Error{TooManyElements}
	}
	start := len(b)
	e := encoder{b: b}
	for i, arg := range args {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		if err := e.value(arg, MaxDepth-1); err != nil {
			return e.b, nil, fmt.Errorf("packet: argument %d: %w", i, err)
		}
	}
	if len(e.attachments) > 0 {
		if err := e.checkPlaceholders(e.b[start:]); err != nil {
			return e.b, nil, err
		}
	}
	return e.b, e.attachments, nil
}

// An encoder collects the JSON and the attachments of one list of arguments. All appended text
// is valid: text from callers is checked before.
type encoder struct {
	b           []byte
	attachments [][]byte
}

// checkPlaceholders checks that the arguments contain a placeholder for each attachment and no
// other object that the receiver would take for one.
func (e *encoder) checkPlaceholders(text []byte) error {
	if len(e.attachments) > MaxAttachments {
		return &Error{BadAttachments}
	}
	s := scanner{b: text, depth: MaxDepth - 1, collect: true}
	if reason := s.list(nil); reason != "" {
		return &Error{reason} // a placeholder is nested one level deeper than its attachment was
	}
	if len(s.found) != len(e.attachments) {
		return &Error{BadPlaceholder}
	}
	for i, ph := range s.found {
		var own [32]byte
		if !bytes.Equal(text[ph.start:ph.end], appendPlaceholder(own[:0], i)) {
			return &Error{BadPlaceholder} // such an object contains one of ours
		}
	}
	return nil
}

// value appends a value in which arrays and objects may be nested at most depth levels deep.
func (e *encoder) value(v any, depth int) error {
	switch v := v.(type) {
	case nil:
		e.b = append(e.b, "null"...)
	case string:
		e.b = AppendString(e.b, v)
	case bool:
		e.b = strconv.AppendBool(e.b, v)
	case int:
		e.b = strconv.AppendInt(e.b, int64(v), 10)
	case []byte:
		e.binary(v)
	case Binary:
		e.binary(v)
	case Checked:
		if depth < MaxDepth-1 || len(v) == 0 {
			return e.raw(Raw{JSON: json.RawMessage(v)}, depth)
		}
		e.b = append(e.b, v...)
	case json.RawMessage:
		return e.raw(Raw{JSON: v}, depth)
	case Raw:
		return e.raw(v, depth)
	case []any:
		return e.array(v, depth)
	case map[string]any:
		return e.object(v, depth)
	default:
		return e.other(v, depth)
	}
	return nil
}

func (e *encoder) binary(data []byte) {
	if data == nil {
		e.b = append(e.b, "null"...)
		return
	}
	e.b = appendPlaceholder(e.b, len(e.attachments))
	e.attachments = append(e.attachments, data)
}

func (e *encoder) raw(r Raw, depth int) error {
	if r.JSON == nil {
		e.b = append(e.b, "null"...)
		return nil
	}
	text, found, err := locate(r, depth)
	if err != nil {
		return err
	}
	done := 0
	for _, ph := range found {
		e.b = append(e.b, text[done:ph.start]...)
		e.binary(r.Attachments[ph.num])
		done = ph.end
	}
	e.b = append(e.b, text[done:]...)
	return nil
}

func (e *encoder) array(elems []any, depth int) error {
	if elems == nil {
		e.b = append(e.b, "null"...)
		return nil
	}
	if depth == 0 {
		return &Error{TooDeep}
	}
	e.b = append(e.b, '[')
	for i, elem := range elems {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		if err := e.value(elem, depth-1); err != nil {
			return err
		}
	}
	e.b = append(e.b, ']')
	return nil
}

func (e *encoder) object(members map[string]any, depth int) error {
	if members == nil {
		e.b = append(e.b, "null"...)
		return nil
	}
	if depth == 0 {
		return &Error{TooDeep}
	}
	e.b = append(e.b, '{')
	for i, key := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.b = AppendString(e.b, key)
		e.b = append(e.b, ':')
		if err := e.value(members[key], depth-1); err != nil {
			return err
		}
	}
	e.b = append(e.b, '}')
	return nil
}

// other encodes v with encoding/json, and then turns the marked base64 of each Binary in it into a
// placeholder. The result may be too deep, or contain invalid UTF-8 from a json.Marshaler.
func (e *encoder) other(v any, depth int) error {
	j := jsonPool.Get().(*jsonEncoder)
	defer j.release()
	if err := j.Encode(v); err != nil {
		return err
	}
	text, start := bytes.TrimSuffix(j.buf.Bytes(), []byte{'\n'}), len(e.b)
	for {
		before, data, after, ok := cutMarked(text)
		e.b = append(e.b, before...)
		if !ok {
			break
		}
		e.binary(data)
		text = after
	}
	_, err := checkJSON(e.b[start:], depth, false, nil)
	return err
}

// AppendString appends s to b as a JSON string and returns the result. Invalid
// UTF-8 in s becomes U+FFFD.
func AppendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			j := jsonPool.Get().(*jsonEncoder)
			defer j.release()
			_ = j.Encode(s) // a string can always be encoded
			return append(b, bytes.TrimSuffix(j.buf.Bytes(), []byte{'\n'})...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// A jsonEncoder is encoding/json without the escaping of HTML, which encoding/json only offers with
// a buffer.
type jsonEncoder struct {
	*json.Encoder
	buf bytes.Buffer
}

var jsonPool = sync.Pool{New: func() any {
	j := new(jsonEncoder)
	j.Encoder = json.NewEncoder(&j.buf)
	j.SetEscapeHTML(false)
	return j
}}

func (j *jsonEncoder) release() {
	// A buffer that a rare large value has grown would keep that size.
	if j.buf.Cap() <= 64<<10 {
		j.buf.Reset()
		jsonPool.Put(j)
	}
}
