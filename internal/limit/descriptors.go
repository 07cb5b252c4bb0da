//go:build unix

package limit

import "syscall"

// Descriptors returns the number of files and connections that this process may have open; 0 if
// unknown.
func Descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	const maximum = 1 << 20                     // more than any node serves; without a limit, the number is huge
	return int(min(uint64(limit.Cur), maximum)) //nolint:unconvert // its type differs by system
}
