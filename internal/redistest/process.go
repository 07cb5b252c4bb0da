//go:build unix

package redistest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// A process is a redis-server process on this machine.
type process struct {
	binary string
	args   []string
	dir    string // for its files, and the log

	*os.Process
	exited chan struct{} // closed once it has ended
}

// newProcess returns a process that has not been started, with arguments in addition to the
// configuration file.
func newProcess(t testing.TB, config string, args []string) (*process, error) {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errors.New("redis-server not found: run make setup or apt-get install redis-server")
	}
	p := &process{binary: binary, dir: t.TempDir()}
	file := filepath.Join(p.dir, "redis.conf")
	p.args = append([]string{file}, args...)
	return p, os.WriteFile(file, []byte("dir "+p.dir+"\n"+config), 0o600)
}

func (p *process) Run() error {
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(p.binary, p.args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, withUs()
	err = cmd.Start()
	if closeErr := log.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	exited := make(chan struct{})
	p.Process, p.exited = cmd.Process, exited
	go func() { // ends with the process, for which Kill waits
		_ = cmd.Wait() // the log has more details than the status
		close(exited)
	}()
	return nil
}

func (p *process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *process) Kill() error {
	if p.Process != nil {
		_ = p.Process.Kill() // fails only if the process has ended
		<-p.exited
	}
	return nil
}

func (p *process) Signal(s syscall.Signal) error { return p.Process.Signal(s) }

func (p *process) Pid() int { return p.Process.Pid }

func (p *process) logFile() string { return filepath.Join(p.dir, "redis.log") }

func (p *process) Log() string {
	text, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}
