//go:build unix

// Package redistest starts real Redis servers for tests: one server, a primary
// with Sentinels, or a cluster. They are redis-server processes that listen on
// free ports of 127.0.0.1, keep their files in a temporary directory and end with
// the test. A single server may have another [Host].
package redistest

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// patience bounds every wait. It is long because busy machines are slow, and because a Sentinel
// that was not scheduled for two seconds trusts nothing for 30 (its TILT mode).
const patience = 60 * time.Second

// A Server is one Redis server. Its methods are not safe for concurrent use, except Addr, URL,
// Client and Log.
type Server struct {
	Addr string // host:port

	t      testing.TB
	host   Host
	client *goredis.Client
}

// A Host runs one server on this machine: as a process, or in another way.
type Host interface {
	Run() error                  // starts it, for the first time or after Kill
	Running() bool               // last known
	Kill() error                 // ends it with SIGKILL and waits until it has ended; it may have ended already
	Signal(syscall.Signal) error // sends it a signal
	Pid() int                    // of its process
	Log() string                 // its log
}

// Start starts a server without persistence, unless the given lines of redis.conf enable it. It
// returns once the server answers.
func Start(t testing.TB, config ...string) *Server {
	t.Helper()
	return start(t, nil, config)
}

// start starts a process with arguments in addition to the configuration file.
func start(t testing.TB, args, config []string) *Server {
	t.Helper()
	return StartOn(t, func(text string) (Host, error) { return newProcess(t, text, args) }, config...)
}

// StartOn is Start on a host that host creates for a redis.conf, which names no directory.
func StartOn(t testing.TB, host func(config string) (Host, error), config ...string) *Server {
	t.Helper()
	const attempts = 10 // another process may take the port before the server does
	for range attempts {
		port := FreePort(t)
		lines := append([]string{
			"bind 127.0.0.1", "port " + port, `save ""`, "appendonly no", "rdb-del-sync-files yes", "repl-diskless-sync-delay 0",
			"cluster-port " + FreePort(t), // its default may be taken
		}, config...)
		h, err := host(strings.Join(lines, "\n") + "\n")
		if err != nil {
			t.Fatalf("redistest: %v", err)
		}
		s := &Server{t: t, host: h, Addr: net.JoinHostPort("127.0.0.1", port)}
		s.client = goredis.NewClient(&goredis.Options{Addr: s.Addr, Protocol: 2, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true})
		t.Cleanup(s.end)
		s.run()
		switch err := s.answers(); {
		case err == nil:
			return s
		case !strings.Contains(s.Log(), "Address already in use"):
			t.Fatalf("redistest: %s: %v\n%s", s.Addr, err, s.Log())
		}
	}
	t.Fatalf("redistest: no free port in %d attempts", attempts)
	return nil
}

// FreePort returns an unused port of 127.0.0.1, below those of outgoing connections, because a
// server that is down for a while must find its port free. No other test of this machine gets it
// before t has ended: each holds the UDP port of the same number.
func FreePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(15000 + rand.IntN(15000))
		taken, err := net.ListenPacket("udp", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			_ = taken.Close()
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = taken.Close() })
		return port
	}
	t.Fatal("redistest: no free port")
	return ""
}

func (s *Server) run() {
	s.t.Helper()
	if err := s.host.Run(); err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
}

// answers waits until the server answers. A server that loads its data answers with an error, and
// so does one that requires a password, but the latter is ready.
func (s *Server) answers() error {
	return poll(s.host.Running, func() error {
		conn, err := net.DialTimeout("tcp", s.Addr, patience)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("PING\r\n")); err != nil {
			return err
		}
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if err == nil && !strings.HasPrefix(answer, "+PONG") && !strings.HasPrefix(answer, "-NOAUTH") {
			err = fmt.Errorf("unexpected answer %q", answer)
		}
		return err
	})
}

// poll repeats check until it returns nil, for at most patience and while the server runs.
func poll(running func() bool, check func() error) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if !running() {
			return fmt.Errorf("process ended: %w", err)
		}
		select {
		case <-again.C:
		case <-deadline.C:
			return fmt.Errorf("not within %v: %w", patience, err)
		}
	}
}

// URL returns redis://host:port.
func (s *Server) URL() string { return "redis://" + s.Addr }

// Client returns a client that the test may use until it ends. It never retries.
func (s *Server) Client() *goredis.Client { return s.client }

// Pid returns the process's id, to measure its resource use.
func (s *Server) Pid() int { return s.host.Pid() }

// Kill ends the process with SIGKILL and waits until it has ended. It may have ended already.
func (s *Server) Kill() {
	s.t.Helper()
	if err := s.host.Kill(); err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
}

// Restart kills the server if it runs and starts it again at the same address, with its persistent
// data, if persistence is configured.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	s.run()
	if err := s.answers(); err != nil {
		s.t.Fatalf("redistest: restart %s: %v\n%s", s.Addr, err, s.Log())
	}
}

// Pause stops the process; its connections stay open. Resume continues it.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.host.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Log returns the end of the server's log.
func (s *Server) Log() string {
	text := s.host.Log()
	return text[max(0, len(text)-2048):]
}

// end ends the server with the test.
func (s *Server) end() {
	_ = s.client.Close()
	s.Kill()
	if s.t.Failed() {
		s.t.Logf("the log of redis-server at %s:\n%s", s.Addr, s.Log())
	}
}

// do runs a command and returns its answer.
func (s *Server) do(args ...any) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.client.Do(ctx, args...).Result()
}

// must is do, and fails the test on an error.
func (s *Server) must(args ...any) any {
	s.t.Helper()
	answer, err := s.do(args...)
	if err != nil {
		s.t.Fatalf("redistest: %s: %v: %v", s.Addr, args, err)
	}
	return answer
}

// eventually polls until check returns nil.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	if err := poll(func() bool { return true }, check); err != nil {
		t.Fatalf("redistest: %s: %v", what, err)
	}
}

// isMaster returns an error unless the server considers itself a master.
func (s *Server) isMaster() error {
	role, err := s.do("ROLE")
	if err == nil && role.([]any)[0] != "master" {
		err = fmt.Errorf("role is %v", role)
	}
	return err
}

// find returns the server at an address.
func find(t testing.TB, servers []*Server, addr string) *Server {
	t.Helper()
	i := slices.IndexFunc(servers, func(s *Server) bool { return s.Addr == addr })
	if i < 0 {
		t.Fatalf("redistest: there is no server at %s", addr)
	}
	return servers[i]
}
