package redistest

import "syscall"

// withUs makes a process end with the test binary, which cannot end it itself after a timeout.
func withUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
