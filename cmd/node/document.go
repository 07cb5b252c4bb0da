package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
)

// writeTable writes the documentation of all variables for a terminal.
func writeTable(w io.Writer) {
	for _, v := range variables() {
		if section := v.field.Tag.Get("section"); section != "" {
			fmt.Fprintf(w, "\n%s\n\n", section)
		}
		fmt.Fprint(w, wrap(fmt.Sprintf("%s (default: %s)", v.name, cmp.Or(v.field.Tag.Get("default"), "none")), "  "))
		fmt.Fprint(w, wrap(v.field.Tag.Get("desc"), "      "))
		fmt.Fprint(w, wrap("Values: "+v.values(), "      "))
	}
}

// writeArguments writes the documentation of the arguments.
func writeArguments(w io.Writer, flags *flag.FlagSet) {
	flags.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		fmt.Fprint(w, wrap("-"+f.Name+" "+value, "  "))
		fmt.Fprint(w, wrap(usage, "      "))
	})
}
