package packet

import (
	"bytes"
	"encoding/json"
	"iter"
	"math"
	"strconv"
)

// SplitArray returns the elements of a JSON array as sub-slices of data. It checks data as a
// [Decoder] does and decodes nothing. Empty data, as in an Ack without payload, counts as an empty
// array. More than MaxElements elements are an error.
func SplitArray(data []byte) ([]json.RawMessage, error) {
	if len(data) == 0 {
		return nil, nil
	}
	data = bytes.Trim(data, space)
	if len(data) == 0 || data[0] != '[' {
		return nil, &Error{InvalidJSON}
	}
	elems, _, err := split(data, false)
	return elems, err
}

// SplitEvent returns the name in an Event's Data and the arguments after it, as sub-slices of data.
// A name that is a number becomes the string that JavaScript makes of it. Empty data is an event
// without name and arguments. An Event of a [Decoder] has been split already.
func SplitEvent(data []byte) (name string, args []json.RawMessage, err error) {
	elems, err := SplitArray(data)
	if err != nil || len(data) == 0 {
		return "", nil, err
	}
	text, err := eventName(elems)
	if err != nil {
		return "", nil, err
	}
	return string(text), elems[1:], nil
}

// Members returns the names and values of the members of an object. The values are sub-slices of it.
// The object must be valid, as the Data of a Connect is.
func Members(object []byte) iter.Seq2[[]byte, json.RawMessage] {
	return func(yield func(name []byte, value json.RawMessage) bool) {
		s := scanner{b: object, i: 1, depth: MaxDepth}
		for {
			name, value, reason := s.member()
			if reason != "" || !yield(unquote(name), value) {
				return // after the last one there is no name
			}
			s.i++ // the comma
		}
	}
}

// eventName returns the name that the elements of an Event's array begin with.
func eventName(elems []json.RawMessage) (name []byte, err error) {
	if len(elems) == 0 {
		return nil, &Error{UnexpectedPayload}
	}
	switch c := elems[0][0]; {
	case c == '"':
		if name = unquote(elems[0]); Reserved(string(name)) {
			return nil, &Error{ReservedEvent}
		}
		return name, nil
	case c == '-', '0' <= c && c <= '9':
		return numberName(elems[0]), nil
	}
	return nil, &Error{UnexpectedPayload}
}

// numberName returns the string that JavaScript makes of a JSON number. It is the same as
// encoding/json's except for three values.
func numberName(number []byte) []byte {
	f, _ := strconv.ParseFloat(string(number), 64)
	switch {
	case f == 0:
		return []byte("0") // also for -0
	case math.IsInf(f, 1):
		return []byte("Infinity")
	case math.IsInf(f, -1):
		return []byte("-Infinity")
	}
	text, _ := json.Marshal(f) // finite, so there is no error
	return text
}
