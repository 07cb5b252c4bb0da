package packet

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
)

// Unmarshal decodes raw, an argument of a packet with these attachments, into the value
// that v points to. It works as json.Unmarshal does, and a placeholder decodes into a
// Binary, a []byte, or as a []byte into an interface. The result shares no memory with raw
// and attachments. The error is an *[Error] if a placeholder has no attachment.
//
// Unlike json.Unmarshal it decodes no string into a slice of bytes, because binary
// arguments are attachments and a string is text. In the fields and elements of v a
// string is base64, as json.Marshal writes it there. To decode an argument that is
// base64, decode it into a string first.
func Unmarshal(raw json.RawMessage, attachments [][]byte, v any) error {
	if text := bytes.Trim(raw, space); len(text) > 0 && text[0] == '"' {
		if wantsBytes(v) {
			return fmt.Errorf("packet: cannot unmarshal a string into a Go value of type %s: "+
				"send binary data, or decode into a string and convert that", reflect.TypeOf(v).Elem())
		}
		if s, ok := v.(*string); ok && s != nil { // the most frequent argument
			if _, err := checkJSON(text, 0, false, nil); err == nil {
				*s = string(unquote(text))
				return nil
			}
		}
	}
	if len(attachments) == 0 {
		return json.Unmarshal(raw, v) // an object that looks like a placeholder is an ordinary object here
	}
	text, found, err := locate(Raw{raw, attachments}, MaxDepth)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return json.Unmarshal(raw, v)
	}
	if ph := found[0]; ph.end-ph.start == len(text) && assign(v, attachments[ph.num]) {
		return nil
	}
	if err := json.Unmarshal(expand(text, found, attachments), v); err != nil {
		return err
	}
	return reveal(reflect.ValueOf(v), make(map[place]bool))
}

// wantsBytes reports whether v points to bytes that encoding/json would decode a
// string into as base64.
func wantsBytes(v any) bool {
	t := reflect.TypeOf(v)
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Slice || t.Elem().Kind() != reflect.Uint8 {
		return false
	}
	p := reflect.PointerTo(t)
	return !p.Implements(reflect.TypeFor[json.Unmarshaler]()) && !p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// assign handles the most frequent use of attachments, a whole argument as bytes, without a detour
// through base64.
func assign(v any, data []byte) bool {
	switch v := v.(type) {
	case *[]byte:
		if v != nil {
			*v = bytes.Clone(data)
			return true
		}
	case *Binary:
		if v != nil {
			*v = bytes.Clone(data)
			return true
		}
	case *any:
		if v != nil && *v == nil { // otherwise it may hold a pointer, which must be followed
			*v = bytes.Clone(data)
			return true
		}
	}
	return false
}

// A place is a pointer or a map, with its type: a struct and its first field share their address.
type place struct {
	typ  reflect.Type
	addr uintptr
}

// reveal finds the marked base64 that encoding/json has put into interfaces, because it does not know
// the mark, and replaces it by the data. Pointers and maps that it has seen may form cycles.
func reveal(v reflect.Value, seen map[place]bool) error {
	switch v.Kind() {
	case reflect.Pointer, reflect.Map:
		p := place{v.Type(), v.Pointer()}
		if seen[p] {
			return nil
		}
		seen[p] = true
	}
	switch v.Kind() {
	case reflect.Interface:
		if !v.CanSet() {
			return nil // embedded and unexported: encoding/json ignores it
		}
		s, ok := v.Interface().(string)
		if !ok {
			return reveal(v.Elem(), seen)
		}
		if data, ok := unmark(s); ok {
			v.Set(reflect.ValueOf(data))
		}
	case reflect.String:
		if _, ok := unmark(v.String()); ok {
			return fmt.Errorf("packet: cannot unmarshal an attachment into a Go value of type %s", v.Type())
		}
	case reflect.Pointer:
		return reveal(v.Elem(), seen)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); !f.IsExported() && !f.Anonymous {
				continue
			}
			if err := reveal(v.Field(i), seen); err != nil {
				return err
			}
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return nil
		}
		for i := range v.Len() {
			if err := reveal(v.Index(i), seen); err != nil {
				return err
			}
		}
	case reflect.Map:
		if !v.CanInterface() {
			return nil
		}
		for it := v.MapRange(); it.Next(); {
			elem := reflect.New(v.Type().Elem()).Elem() // a copy: those in a map cannot be set
			elem.Set(it.Value())
			if err := reveal(elem, seen); err != nil {
				return err
			}
			v.SetMapIndex(it.Key(), elem)
		}
	}
	return nil
}
