package packet

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
)

// Unmarshal decodes raw, an argument of a packet with these attachments, into
// what v points to. It works as json.Unmarshal does, and a placeholder decodes
// into a Binary, a []byte, or as a []byte into an interface. What v receives
// shares no memory with raw and attachments. The error is an *[Error] if a
// placeholder has no attachment.
//
// Unlike json.Unmarshal it decodes no string into a slice of bytes, because binary
// arguments are attachments and a string is text. In the fields and elements of v a
// string is base64, as json.Marshal writes it there. To decode an argument that is
// base64, decode it into a string first.
func Unmarshal(raw json.RawMessage, attachments [][]byte, v any) error {
	if text, ok := v.(*string); ok && text != nil {
		if s := (scanner{b: raw}); s.peek() == '"' && s.document(nil) == "" { // the most frequent argument
			*text = string(unquote(raw))
			return nil
		}
	}
	if isString(raw) && wantsBytes(v) {
		return fmt.Errorf("packet: cannot unmarshal a string into a Go value of type %s: "+
			"send binary data, or decode into a string and convert that", reflect.TypeOf(v).Elem())
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
	r := revealer{seen: make(map[place]bool)}
	return r.reveal(reflect.ValueOf(v))
}

// isString reports whether raw, if valid, is a JSON string.
func isString(raw []byte) bool {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	return len(raw) > 0 && raw[0] == '"'
}

// wantsBytes reports whether v points to bytes that encoding/json would decode a
// string into as base64.
func wantsBytes(v any) bool {
	switch v.(type) {
	case *string, *any: // by far the most frequent
		return false
	case json.Unmarshaler, encoding.TextUnmarshaler:
		return false
	}
	t := reflect.TypeOf(v)
	for t != nil && t.Kind() == reflect.Pointer {
		if t = t.Elem(); t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 {
			p := reflect.PointerTo(t)
			return !p.Implements(reflect.TypeFor[json.Unmarshaler]()) && !p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
		}
	}
	return false
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
		if v != nil && *v == nil { // otherwise it may hold a pointer, to be followed
			*v = bytes.Clone(data)
			return true
		}
	}
	return false
}

// A revealer finds the marked base64 that encoding/json has put into interfaces, because it does
// not know the mark, and replaces it by the data.
type revealer struct {
	seen map[place]bool // pointers and maps already visited, because they may form cycles
}

// A place needs the type too: a struct and its first field share their address.
type place struct {
	typ  reflect.Type
	addr uintptr
}

func (r *revealer) reveal(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Interface:
		if !v.CanSet() {
			return nil // embedded and unexported: encoding/json ignores it
		}
		if s, ok := v.Interface().(string); ok {
			if data, ok := unmark(s); ok {
				v.Set(reflect.ValueOf(data))
			}
			return nil
		}
		return r.reveal(v.Elem())
	case reflect.String:
		if _, ok := unmark(v.String()); ok {
			return fmt.Errorf("packet: cannot unmarshal an attachment into a Go value of type %s", v.Type())
		}
	case reflect.Pointer:
		if r.first(v) {
			return r.reveal(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); !f.IsExported() && !f.Anonymous {
				continue
			}
			if err := r.reveal(v.Field(i)); err != nil {
				return err
			}
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return nil
		}
		for i := range v.Len() {
			if err := r.reveal(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Map:
		return r.revealMap(v)
	}
	return nil
}

// revealMap works on copies of the elements: those in a map cannot be set.
func (r *revealer) revealMap(m reflect.Value) error {
	if !m.CanInterface() || !r.first(m) {
		return nil
	}
	for it := m.MapRange(); it.Next(); {
		elem := reflect.New(m.Type().Elem()).Elem()
		elem.Set(it.Value())
		if err := r.reveal(elem); err != nil {
			return err
		}
		m.SetMapIndex(it.Key(), elem)
	}
	return nil
}

// first reports whether a pointer or map is not nil and has not been seen.
func (r *revealer) first(v reflect.Value) bool {
	p := place{v.Type(), v.Pointer()}
	if v.IsNil() || r.seen[p] {
		return false
	}
	r.seen[p] = true
	return true
}
