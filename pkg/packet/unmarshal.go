package packet

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Unmarshal decodes raw, an argument of a packet with these attachments, into
// what v points to. It works as json.Unmarshal does, and a placeholder decodes
// into a Binary, a []byte, or as a []byte into an interface. What v receives
// shares no memory with raw and attachments. The error is an *[Error] if a
// placeholder has no attachment.
func Unmarshal(raw json.RawMessage, attachments [][]byte, v any) error {
	if len(attachments) == 0 {
		return json.Unmarshal(raw, v) // what looks like a placeholder is just an object
	}
	text, found, err := locate(Raw{raw, attachments})
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return json.Unmarshal(raw, v)
	}
	if whole := found[0]; whole.end-whole.start == len(text) {
		// By far the most frequent use of attachments needs no base64.
		switch v := v.(type) {
		case *[]byte:
			*v = bytes.Clone(attachments[whole.num])
			return nil
		case *Binary:
			*v = bytes.Clone(attachments[whole.num])
			return nil
		case *any:
			*v = bytes.Clone(attachments[whole.num])
			return nil
		}
	}
	if err := json.Unmarshal(expand(text, found, attachments), v); err != nil {
		return err
	}
	r := revealer{seen: make(map[uintptr]bool)}
	return r.reveal(reflect.ValueOf(v))
}

// A revealer finds the marked base64 that encoding/json has put into interfaces,
// where it could not know better, and replaces it by the data.
type revealer struct {
	seen map[uintptr]bool // pointers and maps, which may form circles
}

func (r *revealer) reveal(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Interface:
		if !v.CanSet() {
			return nil // embedded and unexported: encoding/json leaves it alone
		}
		if s, ok := v.Interface().(string); ok && strings.HasPrefix(s, markValue) {
			data, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				return fmt.Errorf("packet: attachment in an interface: %w", err)
			}
			v.Set(reflect.ValueOf(data))
			return nil
		}
		return r.reveal(v.Elem())
	case reflect.String:
		if strings.HasPrefix(v.String(), markValue) {
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
	if v.IsNil() || r.seen[v.Pointer()] {
		return false
	}
	r.seen[v.Pointer()] = true
	return true
}
