package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// writeTable writes the documentation of all variables for a terminal.
func writeTable(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VARIABLE\tDEFAULT\tMEANING")
	for _, v := range variables() {
		if section := v.field.Tag.Get("section"); section != "" {
			fmt.Fprintf(table, "\n%s\n", section)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", v.name, cmp.Or(v.field.Tag.Get("default"), "-"), v.field.Tag.Get("desc"))
		fmt.Fprintf(table, "\t\t  %s\n", v.values())
	}
	table.Flush()
}

// writeDocument writes it as docs/configuration.md.
func writeDocument(w io.Writer) {
	fmt.Fprint(w, `# Configuration

A node is configured by environment variables only. `+"`rejoin -h`"+` prints this list. `+"`rejoin -check`"+` checks an environment and reports all
errors. A node does not start with an invalid value, or with an unknown name that begins with `+"`REJOIN_`"+`. If a file holds a value, trailing newlines are
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
