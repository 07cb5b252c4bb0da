package wire

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A scenario is one conversation of a script file. README.md beside this file
// describes the language.
type scenario struct {
	title   string
	options map[string]string
	steps   []step
}

// A step is one line: peer, verb, and data.
type step struct {
	line  int
	actor string
	verb  string // ">", "<", ":", "drop" or "reset"
	text  string
}

func (s step) String() string {
	return strings.TrimSpace(fmt.Sprintf("line %d: %s %s %s", s.line, s.actor, s.verb, s.text))
}

// readScript parses a file of scenarios. A file that can't be read is a broken
// test, so it fails t.
func readScript(t *testing.T, name string) []scenario {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var scenarios []scenario
	for i, line := range strings.Split(string(content), "\n") {
		at := fmt.Sprintf("%s:%d", name, i+1)
		switch {
		case strings.HasPrefix(line, "## "):
			scenarios = append(scenarios, scenario{title: line[3:], options: map[string]string{}})
		case line == "" || strings.HasPrefix(line, "#"):
		case len(scenarios) == 0:
			t.Fatalf("%s: a step before the first scenario", at)
		case strings.HasPrefix(line, "options "):
			for option := range strings.FieldsSeq(line[len("options "):]) {
				key, value, ok := strings.Cut(option, "=")
				if !ok {
					t.Fatalf("%s: an option without a value: %s", at, option)
				}
				scenarios[len(scenarios)-1].options[key] = value
			}
		default:
			actor, rest, _ := strings.Cut(line, " ")
			verb, text, _ := strings.Cut(rest, " ")
			switch verb {
			case ">", "<", ":", "drop", "reset":
			default:
				t.Fatalf("%s: no such verb: %q", at, line)
			}
			last := &scenarios[len(scenarios)-1]
			last.steps = append(last.steps, step{i + 1, actor, verb, text})
		}
	}
	return scenarios
}

// variables are the values of a conversation's placeholders: {{name}}.
type variables map[string]string

// control characters are written as their pictures.
var control = strings.NewReplacer("␞", "\x1e", "␡", "\x7f")

var (
	placeholder = regexp.MustCompile(`\{\{.+?\}\}`)
	repetition  = regexp.MustCompile(`^(.+)\*(\d+)$`)
)

// fill replaces the placeholders of a text to be sent.
func (v variables) fill(text string) (string, error) {
	var failed error
	text = placeholder.ReplaceAllStringFunc(text, func(p string) string {
		name := p[2 : len(p)-2]
		if m := repetition.FindStringSubmatch(name); m != nil {
			n, _ := strconv.Atoi(m[2])
			return strings.Repeat(m[1], n)
		}
		value, ok := v[name]
		if !ok {
			failed = fmt.Errorf("nothing has set %s yet", p)
		}
		return value
	})
	return control.Replace(text), failed
}

// match compares a received text with a pattern, and remembers what the
// pattern's new placeholders stand for.
func (v variables) match(pattern, got string) error {
	pattern = control.Replace(pattern)
	var expr strings.Builder
	var names []string
	rest := pattern
	for {
		loc := placeholder.FindStringIndex(rest)
		if loc == nil {
			break
		}
		expr.WriteString(regexp.QuoteMeta(rest[:loc[0]]))
		name, length, _ := strings.Cut(rest[loc[0]+2:loc[1]-2], ":")
		rest = rest[loc[1]:]
		known, isKnown := v[name]
		switch m := repetition.FindStringSubmatch(name); {
		case name == "*":
			expr.WriteString(`(?s:.*)`)
		case m != nil:
			n, _ := strconv.Atoi(m[2])
			expr.WriteString(regexp.QuoteMeta(strings.Repeat(m[1], n)))
		case isKnown:
			expr.WriteString(regexp.QuoteMeta(known))
		case length != "":
			expr.WriteString(`([A-Za-z0-9_-]{` + length + `})`)
			names = append(names, name)
		default:
			expr.WriteString("([^\"\x1e]+)")
			names = append(names, name)
		}
	}
	expr.WriteString(regexp.QuoteMeta(rest))
	re, err := regexp.Compile("^" + expr.String() + "$")
	if err != nil {
		return err
	}
	found := re.FindStringSubmatch(got)
	if found == nil {
		return fmt.Errorf("got  %s\nwant %s", excerpt(got), excerpt(pattern))
	}
	for i, name := range names {
		v[name] = found[i+1]
	}
	return nil
}

// excerpt shows a text on one readable line.
func excerpt(text string) string {
	text = strings.ReplaceAll(text, "\x1e", "␞")
	if len(text) > 300 {
		return fmt.Sprintf("%s… (%d bytes)", text[:300], len(text))
	}
	return text
}
