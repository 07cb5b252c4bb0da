package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// A conn is one Socket.IO client on a WebSocket, as lean as a client can be,
// so that the machine's time goes to the server: no masking key, no JSON, no
// goroutine.
type conn struct {
	handle func(message []byte) error // gets what arrives; message is only valid during the call

	file    *os.File
	fd      int
	loop    *loop
	hails   bool   // the answer to the upgrade request is still to come
	partial []byte // the beginning of a frame whose rest has not arrived
	out     []byte // frames to send at the next flush
	bytes   int    // read from the wire so far
}

// open opens a connection that l serves and closes, and asks for the upgrade to
// WebSocket, as a client that can recover. The descriptor is a blocking one, outside of
// the runtime's poller, which would otherwise wake for every arrival too.
func (l *loop) open(ctx context.Context, addr string) (*conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = nc.Close() }() // the file is a duplicate
	file, err := nc.(*net.TCPConn).File()
	if err != nil {
		return nil, err
	}
	c := &conn{file: file, fd: int(file.Fd()), hails: true}
	if err := l.add(c); err != nil {
		c.close()
		return nil, err
	}
	timeout := syscall.NsecToTimeval(setupTimeout.Nanoseconds())
	if err := syscall.SetsockoptTimeval(c.fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &timeout); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	const request = "GET /socket.io/?recovery=true&EIO=4&transport=websocket HTTP/1.1\r\n" +
		"Host: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	return c, write(c.fd, fmt.Appendf(nil, request, addr))
}

// connect makes the handshakes of the WebSocket, Engine.IO and Socket.IO.
func (c *conn) connect() error {
	if err := c.expect("0{"); err != nil {
		return err
	}
	c.send([]byte("40"))
	return c.expect(`40{"sid"`)
}

// expect waits for the next message, which must begin with prefix.
func (c *conn) expect(prefix string) error {
	came := false
	c.handle = func(message []byte) error {
		if came || !bytes.HasPrefix(message, []byte(prefix)) {
			return fmt.Errorf("expected %s…, got %.200q", prefix, message)
		}
		came = true
		return nil
	}
	return c.loop.until(time.Now().Add(setupTimeout), func() bool { return came })
}

// call emits args, a JSON array of an event and its arguments, and waits for
// an acknowledgement that says ok.
func (c *conn) call(args string) error {
	c.send([]byte("420" + args))
	if err := c.expect(`430[{"ok":true`); err != nil {
		return fmt.Errorf("calling %s: %w", args, err)
	}
	return nil
}

// heard takes the answer to the upgrade request off what has arrived, once it is
// there.
func (c *conn) heard(data []byte) (rest []byte, err error) {
	head, rest, whole := bytes.Cut(data, []byte("\r\n\r\n"))
	if !whole {
		return data, nil
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		return data, fmt.Errorf("no upgrade: %.200q", head)
	}
	c.hails = false
	return rest, nil
}

// receive reads once, into buf, and handles every whole message. The fd must
// be readable.
func (c *conn) receive(buf []byte) error {
	begin := copy(buf, c.partial)
	n, err := read(c.fd, buf[begin:])
	if err != nil {
		return err
	}
	c.bytes += n
	rest, err := c.dispatch(buf[:begin+n])
	c.partial = append(c.partial[:0], rest...)
	return err
}

// dispatch handles the whole messages in data and returns what is left.
func (c *conn) dispatch(data []byte) (rest []byte, err error) {
	if c.hails {
		if data, err = c.heard(data); err != nil || c.hails {
			return data, err
		}
	}
	for {
		message, size, err := frame(data)
		if size == 0 || err != nil {
			return data, err
		}
		data = data[size:]
		if string(message) == "2" { // Engine.IO ping
			c.send([]byte("3"))
			continue
		}
		if err := c.handle(message); err != nil {
			return data, err
		}
	}
}

// send queues a text message until the next flush.
func (c *conn) send(message []byte) {
	if len(c.out) == 0 && c.loop != nil {
		c.loop.unsent = append(c.loop.unsent, c)
	}
	c.out = appendFrame(c.out, message)
}

// flush sends all that is queued in one write.
func (c *conn) flush() error {
	err := write(c.fd, c.out)
	c.out = c.out[:0]
	return err
}

// close ends the connection; nothing is left to lose.
func (c *conn) close() { _ = c.file.Close() }

func read(fd int, buf []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, buf)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.ErrUnexpectedEOF
		default:
			return n, nil
		}
	}
}

func write(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := syscall.Write(fd, data)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return os.NewSyscallError("write", err)
		default:
			data = data[n:]
		}
	}
	return nil
}

// cutInt returns the decimal number that b begins with and what follows it.
func cutInt(b []byte) (n int, rest []byte, ok bool) {
	for len(b) > 0 && '0' <= b[0] && b[0] <= '9' {
		n, b, ok = 10*n+int(b[0]-'0'), b[1:], true
	}
	return n, b, ok
}
