package main

import (
	"cmp"
	"fmt"
	"io"
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
