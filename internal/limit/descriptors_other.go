//go:build !unix

package limit

// Descriptors returns the number of files and connections that this process may have open; 0 if
// unknown.
func Descriptors() int { return 0 }
