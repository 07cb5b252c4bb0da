package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
)

// prefix begins the name of every variable.
const prefix = "REJOIN"

// A variable is one field of config with the name of its environment variable.
type variable struct {
	name  string
	field reflect.StructField
}

// variables returns the fields of config in order, with the names that
// envconfig gives them.
func variables() []variable {
	var names strings.Builder
	if err := envconfig.Usagef(prefix, new(config), &names, "{{range .}}{{usage_key .}} {{end}}"); err != nil {
		panic(err) // config is not a struct, or the template is invalid
	}
	var vs []variable
	for i, name := range strings.Fields(names.String()) {
		vs = append(vs, variable{name, reflect.TypeFor[config]().Field(i)})
	}
	return vs
}

// load reads the configuration from the environment. It is valid if the report
// has no problems.
func load() (config, *report) {
	var c config
	r := new(report)
	vs := variables()
	r.unknown(os.Environ(), vs)
	for i, v := range vs {
		reflect.ValueOf(&c).Elem().Field(i).Set(v.read(r))
	}
	c.validate(r)
	return c, r
}

// read returns the variable's value, or its default if the value is missing or
// not allowed.
func (v variable) read(r *report) reflect.Value {
	if path := os.Getenv(v.fileName()); v.mayBeFile() && path != "" {
		value, err := v.readFile(path)
		if err == nil {
			return value
		}
		r.refuse(v.fileName(), path, err.Error())
		return v.byDefault()
	}
	text, set := os.LookupEnv(v.name)
	if !set {
		return v.byDefault()
	}
	value, err := v.decode(text)
	if err == nil && v.within(value) {
		return value
	}
	r.refuse(v.name, v.shown(text), v.required(err))
	return v.byDefault()
}

// required describes the values that the variable can have, and why another one was refused.
func (v variable) required(err error) string {
	if advice := (*adviceError)(nil); errors.As(err, &advice) {
		return fmt.Sprintf("%s (%v)", v.allowed(), advice)
	}
	return v.allowed()
}

func (v variable) byDefault() reflect.Value { return v.parse(v.field.Tag.Get("default")) }

// maxFile is the maximum size of a file that holds a value.
const maxFile = 64 << 10

// mayBeFile reports whether a file may hold the value, so that it need not be in
// the environment, which more users can read.
func (v variable) mayBeFile() bool {
	return v.secret() || v.field.Tag.Get("file") != ""
}

// secret reports whether the value is never shown.
func (v variable) secret() bool { return v.field.Tag.Get("secret") != "" }

func (v variable) fileName() string { return v.name + "_FILE" }

// readFile returns the value in a file, without trailing newlines. An error states the
// requirements on the file.
func (v variable) readFile(path string) (reflect.Value, error) {
	if os.Getenv(v.name) != "" {
		return reflect.Value{}, fmt.Errorf("the only one: %s is set, too", v.name)
	}
	f, err := os.Open(path)
	if err != nil {
		return reflect.Value{}, fmt.Errorf("a file that can be read (%w)", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return reflect.Value{}, fmt.Errorf("a file that can be read (%w)", err)
	}
	line := strings.TrimRight(string(text), "\r\n")
	if line == "" || len(text) > maxFile {
		return reflect.Value{}, fmt.Errorf("a file of 1 to %d bytes", maxFile)
	}
	value, err := v.decode(line)
	if err == nil && !v.within(value) {
		err = errNotAllowed
	}
	if err != nil {
		return reflect.Value{}, fmt.Errorf("a file that holds %s", v.required(err))
	}
	return value, nil
}

// shown returns a value as it may be printed.
func (v variable) shown(value string) string {
	if v.secret() {
		return "(not shown)"
	}
	return value
}

// parse reads a value that the code itself contains: a default or a bound.
func (v variable) parse(s string) reflect.Value {
	value, err := v.decode(s)
	if err != nil {
		panic(fmt.Sprintf("%s: the tag's %q: %v", v.name, s, err))
	}
	return value
}

// decode reads a value, whose text, or that of each element, must match the pattern.
func (v variable) decode(s string) (reflect.Value, error) {
	value := reflect.New(v.field.Type)
	texts := []string{s}
	var err error
	switch p := value.Interface().(type) {
	case *string:
		*p = s
	case *secret:
		*p = secret(s)
	case *bool:
		*p, err = strconv.ParseBool(s)
	case *int:
		var n int64
		n, err = strconv.ParseInt(s, 0, strconv.IntSize)
		*p = int(n)
	case *time.Duration:
		*p, err = time.ParseDuration(s)
	case envconfig.Decoder:
		err = p.Decode(s)
	default:
		err = errors.ErrUnsupported
	}
	if l, ok := value.Elem().Interface().(interface{ elements() []string }); ok {
		texts = l.elements()
	}
	if pattern, ok := v.field.Tag.Lookup("pattern"); ok && err == nil {
		whole := regexp.MustCompile("^(?:" + pattern + ")$")
		if slices.ContainsFunc(texts, func(text string) bool { return !whole.MatchString(text) }) {
			err = errNotAllowed
		}
	}
	return value.Elem(), err
}

// bounds returns the minimum and the maximum from the tag.
func (v variable) bounds() (minimum, maximum string, ok bool) {
	return strings.Cut(v.field.Tag.Get("within"), " ")
}

func (v variable) within(value reflect.Value) bool {
	minimum, maximum, ok := v.bounds()
	return !ok || v.parse(minimum).Int() <= value.Int() && value.Int() <= v.parse(maximum).Int()
}

// allowed describes the values that the variable can have.
func (v variable) allowed() string {
	minimum, maximum, _ := v.bounds()
	switch v.field.Type {
	case reflect.TypeFor[bool]():
		return "true or false"
	case reflect.TypeFor[int]():
		return fmt.Sprintf("a number from %s to %s", minimum, maximum)
	case reflect.TypeFor[size]():
		return fmt.Sprintf("a number of bytes, such as 65536, 64KiB or 1MiB, from %s to %s", minimum, maximum)
	case reflect.TypeFor[time.Duration]():
		return fmt.Sprintf("a duration, such as 500ms, 25s or 2m, from %s to %s", minimum, maximum)
	}
	return v.field.Tag.Get("allowed")
}

// values is allowed with the alternative of a file.
func (v variable) values() string {
	if v.mayBeFile() {
		return v.allowed() + "; or " + v.fileName() + ", the name of a file that holds it"
	}
	return v.allowed()
}
