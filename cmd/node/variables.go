package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
)

// prefix begins the name of every variable.
const prefix = "REJOIN"

// A variable is one field of config as the environment knows it.
type variable struct {
	name  string
	field reflect.StructField
}

// variables lists the fields of config in order, under the names that envconfig
// gives them.
func variables() []variable {
	var names strings.Builder
	if err := envconfig.Usagef(prefix, new(config), &names, "{{range .}}{{usage_key .}} {{end}}"); err != nil {
		panic(err) // config is not a struct, or the template is wrong
	}
	var vs []variable
	for i, name := range strings.Fields(names.String()) {
		vs = append(vs, variable{name, reflect.TypeFor[config]().Field(i)})
	}
	return vs
}

// load reads the configuration from the environment. It is good if the report
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

// read returns the variable's value, or its default if it has none that is
// allowed. The fields go through envconfig one by one since it stops at the
// first problem.
func (v variable) read(r *report) reflect.Value {
	spec := reflect.New(reflect.StructOf([]reflect.StructField{v.field}))
	err := envconfig.Process(prefix, spec.Interface())
	value := spec.Elem().Field(0)
	if err == nil && v.within(value) && v.oneof(value) {
		return value
	}
	r.refuse(v.name, v.shown(os.Getenv(v.name)), v.allowed())
	return v.parse(v.field.Tag.Get("default"))
}

// shown returns a value as it may be written down.
func (v variable) shown(value string) string {
	if v.field.Tag.Get("secret") != "" {
		return "(not shown)"
	}
	return value
}

// parse reads a value that the code itself contains: a default or a bound.
func (v variable) parse(s string) reflect.Value {
	value := reflect.New(v.field.Type)
	var err error
	switch p := value.Interface().(type) {
	case *string:
		*p = s
	case *bool:
		*p, err = strconv.ParseBool(s)
	case *int:
		*p, err = strconv.Atoi(s)
	case *time.Duration:
		*p, err = time.ParseDuration(s)
	case envconfig.Decoder:
		err = p.Decode(s)
	default:
		err = errors.ErrUnsupported
	}
	if err != nil {
		panic(fmt.Sprintf("%s: the tag's %q: %v", v.name, s, err))
	}
	return value.Elem()
}

// bounds returns the smallest and the largest value as the tag has them.
func (v variable) bounds() (least, most string, ok bool) {
	return strings.Cut(v.field.Tag.Get("within"), " ")
}

func (v variable) within(value reflect.Value) bool {
	least, most, ok := v.bounds()
	return !ok || v.parse(least).Int() <= value.Int() && value.Int() <= v.parse(most).Int()
}

func (v variable) oneof(value reflect.Value) bool {
	values, ok := v.field.Tag.Lookup("oneof")
	return !ok || slices.Contains(strings.Fields(values), value.String())
}

// allowed says in words which values the variable can have.
func (v variable) allowed() string {
	least, most, _ := v.bounds()
	switch v.field.Type {
	case reflect.TypeFor[bool]():
		return "true or false"
	case reflect.TypeFor[int]():
		return fmt.Sprintf("a number from %s to %s", least, most)
	case reflect.TypeFor[size]():
		return fmt.Sprintf("a number of bytes, such as 65536, 64KiB or 1MiB, from %s to %s", least, most)
	case reflect.TypeFor[time.Duration]():
		return fmt.Sprintf("a duration, such as 500ms, 25s or 2m, from %s to %s", least, most)
	}
	if values, ok := v.field.Tag.Lookup("oneof"); ok {
		return strings.Join(strings.Fields(values), ", ")
	}
	return v.field.Tag.Get("allowed")
}
