//go:build unix

package limit

import "syscall"

// Descriptors returns how many files and connections this process may have open; 0 if
// that is not known.
func Descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	const most = 1 << 20                     // more than any node serves; where there is no limit, the number is huge
	return int(min(uint64(limit.Cur), most)) //nolint:unconvert // its type differs by system
}
