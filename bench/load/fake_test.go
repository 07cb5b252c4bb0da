package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
)

// A fake serves as much of the protocol as the load speaks. Its faults say what
// it sends in place of the nth event to a member, or of the nth echo.
type fake struct {
	deliver, echo func(n int, message string) []string

	mu      sync.Mutex
	members []*fakeConn
	echoes  int
}

type fakeConn struct {
	net.Conn
	in     *bufio.Reader
	events int // sent to this one
}

func correct(_ int, message string) []string { return []string{message} }

// at makes a fault that strikes once.
func at(strike int, fault func(message string) []string) func(int, string) []string {
	return func(n int, message string) []string {
		if n == strike {
			return fault(message)
		}
		return []string{message}
	}
}

// serve returns the fake as a server to measure; it ends with the test.
func (f *fake) serve(t *testing.T) *server {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = c.Close() }()
				f.talk(&fakeConn{Conn: c, in: bufio.NewReader(c)})
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		serving.Wait()
	})
	return &server{addr: ln.Addr().String(), pid: os.Getpid()}
}

// talk serves one client until it goes.
func (f *fake) talk(c *fakeConn) {
	if _, err := http.ReadRequest(c.in); err != nil {
		return
	}
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
	c.send(`0{"sid":"e"}`)
	for {
		message, err := c.receive()
		if err != nil {
			return
		}
		f.answer(c, message)
	}
}

func (f *fake) answer(c *fakeConn, message []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if string(message) == "40" {
		c.send(`40{"sid":"s"}`)
		return
	}
	id, args, _ := cutInt(bytes.TrimPrefix(message, []byte("42")))
	if event, ok := bytes.CutPrefix(args, []byte(`["to","hall",`)); ok {
		for _, m := range f.members {
			for _, sent := range f.deliver(m.events, "42["+string(event)) {
				m.send(sent)
			}
			m.events++
		}
		c.send(fmt.Sprintf(`43%d[{"ok":true}]`, id))
		return
	}
	if echoed, ok := bytes.CutPrefix(args, []byte(`["echo",`)); ok {
		for _, sent := range f.echo(f.echoes, fmt.Sprintf("43%d[%s", id, echoed)) {
			c.send(sent)
		}
		f.echoes++
		return
	}
	f.members = append(f.members, c) // join
	c.send(fmt.Sprintf(`43%d[{"ok":true}]`, id))
}

func (c *fakeConn) send(message string) {
	b := []byte{finText, byte(len(message))}
	if len(message) >= len16 {
		b = binary.BigEndian.AppendUint16([]byte{finText, len16}, uint16(len(message)))
	}
	_, _ = c.Write(append(b, message...)) // a client that is gone fails its own reads
}

func (c *fakeConn) receive() ([]byte, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c.in, head); err != nil {
		return nil, err
	}
	length := int(head[1] &^ masked)
	if length == len16 {
		if _, err := io.ReadFull(c.in, head); err != nil {
			return nil, err
		}
		length = int(binary.BigEndian.Uint16(head))
	}
	message := make([]byte, 4+length) // behind the masking key, which is zero
	_, err := io.ReadFull(c.in, message)
	return message[4:], err
}
