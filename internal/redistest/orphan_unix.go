//go:build unix && !linux

package redistest

import "syscall"

// withUs does nothing: other systems have no such option.
func withUs() *syscall.SysProcAttr { return nil }
