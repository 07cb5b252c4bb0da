package main

import (
	"fmt"
	"slices"
	"strings"
)

// A report collects all errors of a configuration, so that they can be fixed
// together, and its warnings.
type report struct {
	problems []string
	warnings []string
}

// refuse records a value that is not allowed.
func (r *report) refuse(name string, value any, allowed string) {
	r.problems = append(r.problems, fmt.Sprintf("%s=%v: must be %s", name, value, allowed))
}

// warn records a value that is allowed, but probably not intended.
func (r *report) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
}

// unknown refuses variables with our prefix that are not ours: a typo in a name
// would otherwise be a setting without effect. Variables that Kubernetes sets
// for a Service called rejoin are not mistakes.
func (r *report) unknown(environ []string, known []variable) {
	var injected []string
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(entry, "=")
		switch {
		case !strings.HasPrefix(name, prefix+"_"),
			slices.ContainsFunc(known, func(v variable) bool { return v.name == name || v.mayBeFile() && v.fileName() == name }):
		case strings.HasPrefix(name, prefix+"_SERVICE_"), strings.HasPrefix(name, prefix+"_PORT"):
			injected = append(injected, name)
		default:
			hint := "; -h lists them"
			like, ok := similar(name, known)
			if ok {
				hint = "; did you mean " + like.name + "?"
			}
			r.problems = append(r.problems, fmt.Sprintf("%s=%s: is not a variable of this program%s", name, like.shown(value), hint))
		}
	}
	if len(injected) > 0 {
		r.warn("ignored variables that Kubernetes sets for a Service called rejoin (REJOIN_ADDR sets a port): %s", strings.Join(injected, ", "))
	}
}

// similar returns the known variable with the closest name, if it is close.
func similar(name string, known []variable) (best variable, ok bool) {
	shortest := 4 // more edits are not a typo
	for _, v := range known {
		if d := distance(name, v.name); d < shortest {
			best, shortest, ok = v, d, true
		}
	}
	return best, ok
}

// distance counts the characters to insert, delete or replace to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
