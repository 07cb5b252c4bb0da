package packet

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
)

// SplitArray returns the elements of a JSON array as sub-slices of data. It checks data and decodes
// nothing. Empty data, as in an Ack without payload, counts as an empty array. More than
// MaxElements elements are an error.
func SplitArray(data []byte) ([]json.RawMessage, error) {
	if len(data) == 0 {
		return nil, nil
	}
	// Most events have few arguments: collected on the stack, they cost one allocation of the right
	// size.
	var few [8]json.RawMessage
	elems := few[:0]
	s := scanner{b: data, depth: MaxDepth}
	s.space()
	if s.peek() != '[' {
		return nil, &Error{InvalidJSON}
	}
	reason := s.array(MaxElements, func(start, end int) { elems = append(elems, data[start:end:end]) })
	s.space()
	switch {
	case reason != "":
		return nil, &Error{reason}
	case s.i < len(data):
		return nil, &Error{InvalidJSON}
	}
	return slices.Clone(elems), nil
}

// SplitEvent returns the name in an Event's Data and the arguments after it, as sub-slices of data.
// A name that is a number becomes the string that JavaScript makes of it. Empty data is an event
// without name and arguments.
func SplitEvent(data []byte) (name string, args []json.RawMessage, err error) {
	elems, err := SplitArray(data)
	if err != nil || len(data) == 0 {
		return "", nil, err
	}
	if reason := checkName(data); reason != "" {
		return "", nil, &Error{reason}
	}
	if elems[0][0] == '"' {
		return string(unquote(elems[0])), elems[1:], nil
	}
	return numberName(elems[0]), elems[1:], nil
}

// numberName returns the string that JavaScript makes of a JSON number. It is the same as
// encoding/json's except for three values.
func numberName(number []byte) string {
	f, _ := strconv.ParseFloat(string(number), 64)
	switch {
	case f == 0:
		return "0" // also for -0
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	text, _ := json.Marshal(f) // finite, so there is no error
	return string(text)
}

// checkName checks that data, a valid array, starts with an event's name.
func checkName(data []byte) Reason {
	s := scanner{b: data}
	s.space()
	s.i++
	s.space()
	start := s.i
	switch c := s.peek(); {
	case c == '"':
		s.str()
		if Reserved(string(unquote(data[start:s.i]))) {
			return ReservedEvent
		}
		return ""
	case c == '-', '0' <= c && c <= '9':
		return ""
	}
	return UnexpectedPayload
}
