//go:build unix && !linux

package redistest

import "syscall"

// withUs has no other system's help.
func withUs() *syscall.SysProcAttr { return nil }
