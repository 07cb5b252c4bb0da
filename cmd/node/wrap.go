package main

import "strings"

// width is the maximum length of a line of -h.
const width = 100

// wrap breaks a text into lines of at most width characters, each behind an indent, unless a word is
// longer.
func wrap(text, indent string) string {
	var b strings.Builder
	line := indent
	for _, word := range strings.Fields(text) {
		if line != indent && len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
	return b.String()
}
