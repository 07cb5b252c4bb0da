// Package strict decodes JSON objects of other programs. It refuses what encoding/json would accept
// in silence, because a mistake in a name must not become a setting without effect.
package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"unicode/utf8"
)

// Errors that callers may test for.
var (
	ErrUTF8     = errors.New("not UTF-8")
	ErrNoObject = errors.New("not a JSON object")
)

// Decode decodes a JSON text into the struct that v points to, which has a field for each allowed
// name. Unknown and duplicate names, names that differ in case, and trailing data are errors. Values
// inside of fields are decoded as encoding/json does, except that unknown names are errors in them, too.
func Decode(text []byte, v any) error {
	if !utf8.Valid(text) {
		return ErrUTF8
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, more := d.Token(); more != io.EOF {
		return errors.New("trailing data after the JSON object")
	}
	return exact(text, v)
}

// exact refuses two things that encoding/json accepts: duplicate fields, of which it takes the
// last, and names that match a field only if case is ignored. The text must decode into v.
func exact(text []byte, v any) error {
	members, err := Members(text)
	if err != nil {
		return err
	}
	known := make(map[string]bool)
	for _, field := range reflect.VisibleFields(reflect.TypeOf(v).Elem()) {
		known[field.Tag.Get("json")] = true
	}
	for name := range members {
		if !known[name] {
			return fmt.Errorf("unknown field %q", name)
		}
	}
	return nil
}

// Members returns the members of a JSON object, whose names must be different.
func Members(text []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, ErrNoObject
	}
	members := make(map[string]json.RawMessage)
	for d.More() { // not packet.Members, which end at a value that is nested deeper than a packet's
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, _ := token.(string)
		if _, duplicate := members[name]; duplicate {
			return nil, fmt.Errorf("duplicate field %q", name)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		members[name] = value
	}
	return members, nil
}
