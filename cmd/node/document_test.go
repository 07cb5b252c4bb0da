package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

// writeDocument writes the documentation of all variables as docs/configuration.md.
func writeDocument(w io.Writer) {
	fmt.Fprint(w, `# Configuration

A node is configured by environment variables only. `+"`rejoin -h`"+` prints this list. `+"`rejoin -check`"+` checks an environment and reports all
errors, and with `+"`-online`"+` also connects to Redis and the JWKS server as a node would. `+"`rejoin -config`"+` prints the values that a node would use. A node does not start with an invalid value, or with an unknown name that begins with `+"`REJOIN_`"+`. If a file holds a value, trailing newlines are
ignored.

This file is generated from the program: `+"`go test ./cmd/node -run TestConfigurationDocument -update`"+`.
`)
	for _, v := range variables() {
		if section := v.field.Tag.Get("section"); section != "" {
			fmt.Fprintf(w, "\n## %s\n\n| variable | default | values | meaning |\n|---|---|---|---|\n", section)
		}
		value := "none"
		if d := v.field.Tag.Get("default"); d != "" {
			value = "`" + d + "`"
		}
		fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", v.name, value, cell(v.values()), cell(v.field.Tag.Get("desc")))
	}
}

// cell escapes a text for a cell of a table.
func cell(text string) string { return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text) }

// TestConfigurationDocument: docs/configuration.md matches the program.
func TestConfigurationDocument(t *testing.T) {
	const file = "../../docs/configuration.md"
	var want bytes.Buffer
	writeDocument(&want)
	if *update {
		if err := os.WriteFile(file, want.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s does not match the variables; -update writes it", file)
	}
}

// TestEveryVariableHasASection: the document's tables begin with a heading.
func TestEveryVariableHasASection(t *testing.T) {
	if first := variables()[0]; first.field.Tag.Get("section") == "" {
		t.Errorf("%s begins no section", first.name)
	}
	var table bytes.Buffer
	writeTable(&table)
	for _, v := range variables() {
		if section := v.field.Tag.Get("section"); !strings.Contains(table.String(), section) {
			t.Errorf("-h lacks the section %q", section)
		}
	}
}
