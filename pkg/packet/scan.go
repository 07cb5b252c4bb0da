package packet

import (
	"bytes"
	"encoding/json"
	"math"
)

// A scanner walks over JSON once, checking it (RFC 8259) and decoding nothing. Its methods return
// the reason why the JSON is refused, or "". They expect to be at the first byte of what they read
// and leave s.i after its last.
type scanner struct {
	b     []byte
	i     int
	depth int // how many more arrays and objects may be opened

	collect bool // collect placeholders
	found   []placeholder
}

// document checks that b is one JSON value, possibly surrounded by space, and returns that value
// and, if collect is set, the placeholders in it. elements is the maximum number of elements if it
// is an array.
func document(b []byte, elements int, collect bool) (value []byte, found []placeholder, _ Reason) {
	s := scanner{b: b, depth: MaxDepth, collect: collect}
	s.space()
	start := s.i
	reason := Reason("")
	if s.peek() == '[' {
		reason = s.array(elements, nil)
	} else {
		reason = s.value()
	}
	if reason != "" {
		return nil, nil, reason
	}
	end := s.i
	s.space()
	if s.i < len(b) {
		return nil, nil, InvalidJSON
	}
	for i := range s.found {
		s.found[i].start -= start
		s.found[i].end -= start
	}
	return b[start:end:end], s.found, ""
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
		return s.array(math.MaxInt, nil)
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
	for i := s.i + 1; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.i = i + 1
			return ""
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

// array reads an array of up to most elements, and calls each, unless it is nil, with the extent
// of every element.
func (s *scanner) array(most int, each func(start, end int)) Reason {
	if s.depth--; s.depth < 0 {
		return TooDeep
	}
	s.i++
	s.space()
	if s.peek() != ']' {
		if reason := s.list(most, each); reason != "" {
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

// list reads up to most values separated by commas, and stops at anything else.
func (s *scanner) list(most int, each func(start, end int)) Reason {
	for ; ; most-- {
		if most == 0 {
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
		s.space()
		if s.peek() != '"' {
			return InvalidJSON
		}
		key := s.i
		if reason := s.str(); reason != "" {
			return reason
		}
		keyEnd := s.i
		s.space()
		if s.peek() != ':' {
			return InvalidJSON
		}
		s.i++
		s.space()
		val := s.i
		if reason := s.value(); reason != "" {
			return reason
		}
		if s.collect {
			switch string(unquote(s.b[key:keyEnd])) {
			case "_placeholder":
				marked = string(s.b[val:s.i]) == "true"
			case "num":
				self.num = attachmentIndex(s.b[val:s.i])
			}
		}
		s.space()
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
