package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A cluster is two nodes of a contender and the Redis between them, or one node alone.
type cluster struct {
	nodes []*server
	redis *server // nil for one node
}

// nodes is how many a cluster with Redis has.
const nodes = 2

func startCluster(ctx context.Context, c contender) (_ *cluster, err error) {
	cl := &cluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, cl.stop())
		}
	}()
	n := 1
	if c.Redis != "" {
		n = nodes
		if cl.redis, err = startRedis(ctx); err != nil {
			return nil, err
		}
		c.Env = append(c.Env[:len(c.Env):len(c.Env)], c.Redis+"=redis://"+cl.redis.addr)
	}
	for range n {
		s, err := start(ctx, c)
		if err != nil {
			return nil, err
		}
		cl.nodes = append(cl.nodes, s)
	}
	return cl, nil
}

// startRedis starts a redis-server that keeps nothing on disk.
func startRedis(ctx context.Context) (*server, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		return nil, err
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.CommandContext(ctx, "redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
	cmd.Dir = os.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{addr: addr, pid: cmd.Process.Pid, cmd: cmd, said: make(chan string, 1)}
	s.said <- "" // what it says is complete only when it has ended, and then it has been waited for
	for end := time.Now().Add(setupTimeout); ; time.Sleep(10 * time.Millisecond) {
		if answer, err := s.ask("PING"); err == nil && answer == "PONG" {
			return s, nil
		}
		if time.Now().After(end) {
			return nil, errors.Join(errors.New("redis-server does not answer"), s.stop(), errors.New(said.String()))
		}
	}
}

// ask has a Redis execute a command.
func (s *server) ask(command ...string) (string, error) {
	host, port, _ := net.SplitHostPort(s.addr)
	answer, err := exec.Command("redis-cli", append([]string{"-h", host, "-p", port}, command...)...).Output()
	return strings.TrimSpace(string(answer)), err
}

// kill ends a node as SIGKILL does.
func (cl *cluster) kill(i int) error {
	s := cl.nodes[i]
	cl.nodes = append(cl.nodes[:i:i], cl.nodes[i+1:]...)
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	<-s.said
	_ = s.cmd.Wait() // it says that it was killed
	return nil
}

func (cl *cluster) stop() error {
	var errs []error
	for _, s := range cl.nodes {
		errs = append(errs, s.stop())
	}
	if cl.redis != nil {
		errs = append(errs, cl.redis.stop())
	}
	return errors.Join(errs...)
}

// metered returns what the nodes that live used while do ran, and the CPU time of
// their Redis.
func (cl *cluster) metered(do func() error) (u usage, redis time.Duration, err error) {
	begin := time.Now()
	before, redisBefore, err := cl.totals(begin)
	if err != nil {
		return u, 0, err
	}
	if err := do(); err != nil {
		return u, 0, err
	}
	after, redisAfter, err := cl.totals(begin)
	return after.plus(before, -1), redisAfter - redisBefore, err
}

// totals reads what the nodes and their Redis have used since they began; Wall counts from begin.
func (cl *cluster) totals(begin time.Time) (sum usage, redis time.Duration, err error) {
	for _, s := range cl.nodes {
		u, err := s.totals()
		if err != nil {
			return sum, 0, err
		}
		sum = sum.plus(u, 1)
	}
	sum.Wall = time.Since(begin)
	if sum.Load, err = ownCPU(); err != nil || cl.redis == nil {
		return sum, 0, err
	}
	u, err := cl.redis.totals()
	return sum, u.cpu(), err
}

// send has each of some rooms get n events, numbered from first, by publishers at
// one node who wait for every acknowledgement.
func (cl *cluster) send(ctx context.Context, node int, rooms []string, first, n int) error {
	const publishers = 32
	l, err := newLoop()
	if err != nil {
		return err
	}
	defer l.close()
	conns, err := l.dial(ctx, cl.nodes[node].addr, min(publishers, len(rooms)))
	if err != nil {
		return err
	}
	acked := 0
	for p, c := range conns {
		room, number := p, 0
		send := func() {
			if room < len(rooms) {
				c.send(fmt.Appendf(nil, `420["to",%q,"m",{"p":0,"n":%d,"text":%q}]`, rooms[room], first+number, text))
				if number++; number == n {
					room, number = room+len(conns), 0
				}
			}
		}
		c.handle = func(message []byte) error {
			if !strings.HasPrefix(string(message), `430[{"ok":true`) {
				return fmt.Errorf("publisher got %.200q", message)
			}
			acked++
			send()
			return nil
		}
		send()
	}
	if err := l.until(time.Now().Add(drainTimeout), func() bool { return acked == n*len(rooms) }); err != nil {
		return fmt.Errorf("%d of %d acknowledgements: %w", acked, n*len(rooms), err)
	}
	return nil
}

// last is the node that clients of others come to.
func (cl *cluster) last() int { return len(cl.nodes) - 1 }
