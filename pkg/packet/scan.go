package packet

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// A scanner walks over JSON once, checking it (RFC 8259) and its UTF-8 and decoding nothing. Its
// methods return the reason why the JSON is refused, or "". They expect s.i at the first byte of
// the value and leave it after the last one.
type scanner struct {
	b     []byte
	i     int
	depth int // how many more arrays and objects may be opened

	collect bool // collect placeholders
	found   []placeholder
}

// space are the bytes that JSON allows around values.
const space = " \t\r\n"

// split is checkJSON that also returns the elements if b is an array, as sub-slices of it.
func split(b []byte, collect bool) (elems []json.RawMessage, found []placeholder, err error) {
	// Most events have few arguments: collected on the stack, they cost one allocation of the right
	// size.
	var few [8]json.RawMessage
	all := few[:0]
	found, err = checkJSON(b, MaxDepth, collect, func(start, end int) { all = append(all, b[start:end:end]) })
	if err != nil {
		return nil, nil, err
	}
	return append(elems, all...), found, nil
}

// checkJSON checks that b is one value without space around it, nested at most depth levels deep,
// and returns the placeholders in it if collect is set. If it is an array and each is not nil, it
// calls each with the extent of every element, at most MaxElements times.
func checkJSON(b []byte, depth int, collect bool, each func(start, end int)) ([]placeholder, error) {
	s := scanner{b: b, depth: depth, collect: collect}
	var reason Reason
	if s.peek() == '[' {
		reason = s.array(each)
	} else {
		reason = s.value()
	}
	switch {
	case reason != "":
		return nil, &Error{reason}
	case s.i < len(b):
		return nil, &Error{InvalidJSON}
	}
	return s.found, nil
}

// peek returns the next byte, or 0, which is never valid, at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) value() Reason {
	switch c := s.peek(); c {
	case '"':
		return s.str()
	case '{':
		return s.object()
	case '[':
		return s.array(nil)
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) literal(word string) Reason {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return InvalidJSON
	}
	s.i += len(word)
	return ""
}

func (s *scanner) number() Reason {
	if s.peek() == '-' {
		s.i++
	}
	if s.peek() == '0' {
		s.i++
	} else if !s.digits() {
		return InvalidJSON
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return InvalidJSON
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return InvalidJSON
		}
	}
	return ""
}

func (s *scanner) digits() bool {
	start := s.i
	for c := s.peek(); '0' <= c && c <= '9'; c = s.peek() {
		s.i++
	}
	return s.i > start
}

func (s *scanner) str() Reason {
	start, ascii := s.i, true
	for i := start + 1; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.i = i + 1
			if !ascii && !utf8.Valid(s.b[start:i]) {
				return InvalidUTF8
			}
			return ""
		case c >= utf8.RuneSelf:
			ascii = false
		case c < ' ':
			return InvalidJSON
		case c == '\\':
			n := escape(s.b[i+1:])
			if n == 0 {
				return InvalidJSON
			}
			i += n
		}
	}
	return InvalidJSON
}

// escape returns the length of the escape at the start of b, after its backslash. 0 means that it
// is invalid.
func escape(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	switch b[0] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 1
	case 'u':
		if len(b) < 5 {
			return 0
		}
		for _, c := range b[1:5] {
			switch {
			case '0' <= c && c <= '9', 'a' <= c && c <= 'f', 'A' <= c && c <= 'F':
			default:
				return 0
			}
		}
		return 5
	}
	return 0
}

func (s *scanner) array(each func(start, end int)) Reason {
	if s.depth--; s.depth < 0 {
		return TooDeep
	}
	s.i++
	s.space()
	if s.peek() != ']' {
		if reason := s.list(each); reason != "" {
			return reason
		}
		if s.peek() != ']' {
			return InvalidJSON
		}
	}
	s.i++
	s.depth++
	return ""
}

// list reads values separated by commas, and stops at anything else.
func (s *scanner) list(each func(start, end int)) Reason {
	for n := 1; ; n++ {
		if each != nil && n > MaxElements {
			return TooManyElements
		}
		s.space()
		start := s.i
		if reason := s.value(); reason != "" {
			return reason
		}
		if each != nil {
			each(start, s.i)
		}
		s.space()
		if s.peek() != ',' {
			return ""
		}
		s.i++
	}
}

func (s *scanner) object() Reason {
	if s.depth--; s.depth < 0 {
		return TooDeep
	}
	start, outer := s.i, len(s.found)
	self, marked := placeholder{num: -1}, false
	s.i++
	s.space()
	for more := s.peek() != '}'; more; {
		name, value, reason := s.member()
		if reason != "" {
			return reason
		}
		if s.collect {
			switch string(unquote(name)) {
			case "_placeholder":
				marked = string(value) == "true"
			case "num":
				self.num = attachmentIndex(value)
			}
		}
		if more = s.peek() == ','; more {
			s.i++
		}
	}
	if s.peek() != '}' {
		return InvalidJSON
	}
	s.i++
	s.depth++
	if marked {
		// The placeholders inside are dropped with the object.
		self.start, self.end = start, s.i
		s.found = append(s.found[:outer], self)
	}
	return ""
}

// member reads a member of an object, possibly surrounded by space, and returns its name, still
// quoted, and its value.
func (s *scanner) member() (name, value []byte, _ Reason) {
	s.space()
	if s.peek() != '"' {
		return nil, nil, InvalidJSON
	}
	start := s.i
	if reason := s.str(); reason != "" {
		return nil, nil, reason
	}
	name = s.b[start:s.i]
	s.space()
	if s.peek() != ':' {
		return nil, nil, InvalidJSON
	}
	s.i++
	s.space()
	start = s.i
	if reason := s.value(); reason != "" {
		return nil, nil, reason
	}
	value = s.b[start:s.i:s.i]
	s.space()
	return name, value, ""
}

// unquote returns the string that a valid JSON string denotes. Without escapes
// it is a sub-slice.
func unquote(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		panic("packet: unquote: " + err.Error()) // the caller has not checked it
	}
	return []byte(s)
}
