package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

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
