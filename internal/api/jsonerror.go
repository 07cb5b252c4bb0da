package api

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// inJSON returns an error of decoding as a caller reads it, who knows JSON but not the types of this
// program.
func inJSON(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	var corrupt base64.CorruptInputError
	switch {
	case errors.Is(err, io.EOF):
		return "it is empty, and must be a JSON object"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the JSON ends too early"
	case errors.As(err, &syntax):
		return fmt.Sprintf("malformed JSON at byte %d: %v", syntax.Offset, syntax)
	case errors.As(err, &corrupt):
		return "attachments must be base64"
	case errors.As(err, &kind):
		given, _, _ := strings.Cut(kind.Value, " ") // what follows is a number
		name := kind.Field[strings.LastIndex(kind.Field, ".")+1:]
		if name == "" {
			return fmt.Sprintf("got %s, want %s", article(given), named(kind.Type))
		}
		return fmt.Sprintf("%s: got %s, want %s", name, article(given), named(kind.Type)) // also of an element
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// named returns JSON's name of the values of a Go type.
func named(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return named(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "an integer"
	case reflect.Slice, reflect.Array:
		switch {
		case t.Elem().Kind() == reflect.Uint8:
			return "a string in base64"
		case t.Elem().Kind() == reflect.String:
			return "an array of strings"
		}
		return "an array"
	}
	return "an object"
}

func article(value string) string {
	switch value {
	case "array", "object":
		return "an " + value
	case "bool":
		return "true or false"
	}
	return "a " + value
}
