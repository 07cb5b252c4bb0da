//go:build !unix

package limit

// Descriptors returns how many files and connections this process may have open; 0 if
// that is not known.
func Descriptors() int { return 0 }
