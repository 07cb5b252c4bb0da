package redistest

import "syscall"

// withUs makes a process die with the test binary, which has no chance to end it when it times out.
func withUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
