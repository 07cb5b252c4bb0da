package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// A loop serves any number of connections on the caller's goroutine. The
// clients of a measurement therefore share state without locks, and cost one
// read for whatever the server sent them since the last.
type loop struct {
	epoll  int
	conns  []*conn // by descriptor
	unsent []*conn // with something to flush
	buf    [1 << 18]byte
}

func newLoop() (*loop, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &loop{epoll: epoll}, nil
}

// add makes l the one to serve c and to close it.
func (l *loop) add(c *conn) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(c.fd)}
	if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, c.fd, &event); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	for len(l.conns) <= c.fd {
		l.conns = append(l.conns, nil)
	}
	c.loop = l
	l.conns[c.fd] = c
	return nil
}

// drop makes l forget c, without closing it: what it is sent from now on stays
// unread.
func (l *loop) drop(c *conn) error {
	l.conns[c.fd], c.loop = nil, nil
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_DEL, c.fd, nil))
}

// dial opens n connections to the main namespace, which l serves and closes.
func (l *loop) dial(ctx context.Context, addr string, n int) ([]*conn, error) {
	conns := make([]*conn, 0, n)
	for range n {
		c, err := l.open(ctx, addr)
		if err == nil {
			err = c.connect()
		}
		if err != nil {
			return nil, fmt.Errorf("connection %d of %d to %s: %w", len(conns)+1, n, addr, err)
		}
		conns = append(conns, c)
	}
	return conns, nil
}

var errTimeout = errors.New("timed out")

// until serves the connections until done says so, which is asked whenever
// some of them have been served. The error is errTimeout at the deadline.
func (l *loop) until(deadline time.Time, done func() bool) error {
	var events [256]syscall.EpollEvent
	for {
		if err := l.flush(); err != nil {
			return err
		}
		if done() {
			return nil
		}
		wait := time.Until(deadline).Milliseconds()
		if wait <= 0 {
			return errTimeout
		}
		n, err := syscall.EpollWait(l.epoll, events[:], int(wait))
		if err != nil && err != syscall.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range events[:max(n, 0)] {
			if l.conns[e.Fd] == nil { // dropped since
				continue
			}
			if err := l.conns[e.Fd].receive(l.buf[:]); err != nil {
				return err
			}
		}
	}
}

// during serves the connections for d.
func (l *loop) during(d time.Duration) error {
	err := l.until(time.Now().Add(d), func() bool { return false })
	if errors.Is(err, errTimeout) {
		return nil
	}
	return err
}

// flush sends what the connections have queued, in one write each.
func (l *loop) flush() error {
	for _, c := range l.unsent {
		if err := c.flush(); err != nil {
			return err
		}
	}
	l.unsent = l.unsent[:0]
	return nil
}

// bytes returns how much the connections have read.
func (l *loop) bytes() int {
	var sum int
	for _, c := range l.conns {
		if c != nil {
			sum += c.bytes
		}
	}
	return sum
}

// close closes the connections too.
func (l *loop) close() {
	for _, c := range l.conns {
		if c != nil {
			c.close()
		}
	}
	_ = syscall.Close(l.epoll)
}
