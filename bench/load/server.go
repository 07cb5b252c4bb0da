package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A contender is a server to measure, and how to start it. Both kinds say
// where they listen in a line of JSON on stderr.
type contender struct {
	Name    string
	Command []string
	Env     []string // in addition to this process's
	Figures []string // that it is measured for; nil for all
	Redis   string   // the variable for the URL of the Redis that makes two of them a cluster
}

// A server is a contender at work in a process of its own.
type server struct {
	addr    string
	metrics string // the URL of its metrics, or ""
	pid     int
	cmd     *exec.Cmd
	said    chan string // all of its stderr, once it has ended
}

// start returns once the server listens. The caller must stop it. It ends with
// ctx too, and at the latest with this process.
func start(ctx context.Context, c contender) (*server, error) {
	cmd := exec.CommandContext(ctx, c.Command[0], c.Command[1:]...)
	cmd.Env = append(append(os.Environ(), "NODE_ENV=production"), c.Env...) // of the peer
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{pid: cmd.Process.Pid, cmd: cmd, said: make(chan string, 1)}
	listening := make(chan addresses, 1)
	go s.listen(stderr, listening) // ends with the process; stop waits for it
	select {
	case at := <-listening:
		if s.addr = at.Addr; at.Internal != "" {
			s.metrics = "http://" + at.Internal + "/metrics"
		}
		if s.addr != "" {
			return s, nil
		}
		err = errors.New("server ended before it listened")
	case <-time.After(setupTimeout):
		err = fmt.Errorf("server not listening after %v", setupTimeout)
	}
	return nil, errors.Join(err, s.stop())
}

// addresses are what a server says when it listens.
type addresses struct {
	Addr     string
	Internal string `json:"internal_addr"` // of a node, which serves metrics there
}

// listen sends the addresses that the server logs, or none if its stderr ends
// without them, and keeps the log.
func (s *server) listen(stderr io.Reader, listening chan<- addresses) {
	var said strings.Builder
	in := bufio.NewReader(stderr)
	for named := false; ; {
		text, err := in.ReadString('\n')
		said.WriteString(text)
		var line struct {
			Msg string
			addresses
		}
		if !named && json.Unmarshal([]byte(text), &line) == nil && line.Msg == "listening" {
			listening <- line.addresses
			named = true
		}
		if err != nil {
			break
		}
	}
	close(listening)
	s.said <- said.String()
}

// stop ends the server, which must do so in time and without an error.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(stopTimeout, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	said := <-s.said
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("server ended with: %w\n%s", err, said)
	}
	return nil
}
