package limit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// serve serves a port's connections with a handler, and returns a function that opens one
// and sends data on it.
func serve(t *testing.T, p *Port, h http.HandlerFunc) (open func(text string) net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: p.Body(h, time.Minute), ConnState: p.ConnState, ConnContext: p.ConnContext, ReadHeaderTimeout: time.Minute}
	done := make(chan error)
	go func() { done <- s.Serve(p.Listener(l)) }() // ends with the test
	t.Cleanup(func() {
		s.Close()
		<-done
		if open := p.Open(); open != 0 || p.waiting != 0 {
			t.Errorf("in the end %d are open, and %d wait, want 0, 0", open, p.waiting)
		}
	})
	return func(text string) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if errors.Is(err, syscall.ECONNRESET) { // refused before Dial has returned
			c, _ = net.Pipe()
			_ = c.Close()
			return c
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(c, text) // one that is refused may be closed already
		return c
	}
}

const (
	whole = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
	half  = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n4"
)

// said returns the status line received on a connection, or "" if it is closed without one.
func said(c net.Conn) string {
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line)
}

// waits waits until some connections of a port wait for their clients.
func waits(t *testing.T, p *Port, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		waiting := p.waiting
		p.mu.Unlock()
		if waiting == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections wait, want %d", waiting, n)
		}
	}
}

// A port that is full of connections that wait for their clients still accepts a new one:
// the one that has waited longest is closed, regardless of the data it has sent.
func TestFullPortTakesClients(t *testing.T) {
	for name, text := range map[string]string{"nothing": "", "half a request": whole[:20], "half a body": half} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zap.WarnLevel)
			p := NewPort(PortOptions{Quota: Quota{Name: Connections, Max: 3, Tally: NewTally(zap.New(core))}})
			open := serve(t, p, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
			first := open(text)
			waits(t, p, 1)
			for range 2 {
				open(text)
			}
			waits(t, p, 3)
			if got := said(open(whole)); got != "HTTP/1.1 200 OK" {
				t.Errorf(`a whole request got %q, want "HTTP/1.1 200 OK"`, got)
			}
			if got := said(first); got != "" {
				t.Errorf(`the one that had waited longest got %q, want ""`, got)
			}
			if n := p.o.Tally.Refused()[Connections]; n != 1 || logs.FilterMessage("too many connections").Len() != 1 {
				t.Errorf("counted %d, logged %v", n, logs.All())
			}
		})
	}
}

// Requests that are being answered are not cut for new ones.
func TestFullPortKeepsRequests(t *testing.T) {
	p := NewPort(PortOptions{Quota: Quota{Name: Connections, Max: 2, Tally: NewTally(zap.NewNop())}})
	proceed := make(chan struct{})
	open := serve(t, p, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-proceed
	})
	busy := []net.Conn{open(whole), open(strings.Replace(half, "Length: 10", "Length: 1", 1))}
	for end := time.Now().Add(20 * time.Second); p.Open() < 2 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	waits(t, p, 0)
	if got := said(open(whole)); got != "" {
		t.Errorf(`one too many got %q, want ""`, got)
	}
	close(proceed)
	for _, c := range busy {
		if got := said(c); got != "HTTP/1.1 200 OK" {
			t.Errorf(`a request that was being answered got %q, want "HTTP/1.1 200 OK"`, got)
		}
	}
}

// A connection waits between requests, and not while its request is answered.
func TestIdleConnectionsAreBounded(t *testing.T) {
	p := NewPort(PortOptions{Quota: Quota{Name: Connections, Tally: NewTally(zap.NewNop())}, Waiting: 2})
	open := serve(t, p, func(http.ResponseWriter, *http.Request) {})
	first := open(whole)
	if got := said(first); got != "HTTP/1.1 200 OK" {
		t.Fatalf(`got %q, want "HTTP/1.1 200 OK"`, got)
	}
	waits(t, p, 1)
	open("")
	waits(t, p, 2)
	open("")
	if _, err := io.Copy(io.Discard, first); err != nil {
		t.Errorf("the one that had waited longest: %v", err)
	}
	waits(t, p, 2)
	if n := p.o.Tally.Refused()[IdleConnections]; n != 1 {
		t.Errorf("%d were closed, want 1", n)
	}
}

// The server waits a second for a body that its handler does not read, and longer for one
// that is read.
func TestUnreadBodyIsNotWaitedFor(t *testing.T) {
	p := NewPort(PortOptions{Quota: Quota{Name: Connections, Tally: NewTally(zap.NewNop())}})
	open := serve(t, p, func(http.ResponseWriter, *http.Request) {})
	begun := time.Now()
	c := open(half)
	if _, err := io.Copy(io.Discard, c); err != nil || time.Since(begun) > 10*time.Second {
		t.Errorf("closed after %v: %v, want at most %v", time.Since(begun), err, 10*time.Second)
	}
}

// A body that is read gets its full time, and the connection serves the next request.
func TestReadBodyKeepsItsConnection(t *testing.T) {
	p := NewPort(PortOptions{Quota: Quota{Name: Connections, Tally: NewTally(zap.NewNop())}})
	open := serve(t, p, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprint(w, string(body), err)
	})
	c := open(half)
	in := bufio.NewReader(c)
	for range 2 {
		waits(t, p, 1) // for the rest of the body
		_, _ = io.WriteString(c, "567890123")
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(r.Body); string(body) != "4567890123<nil>" {
			t.Errorf("the handler got %q", body)
		}
		_, _ = io.WriteString(c, half)
	}
}

// The connections of one address are limited, those of proxies are not.
func TestConnectionsOfAnAddress(t *testing.T) {
	proxies := Proxies{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	for _, test := range []struct {
		addresses []string
		admitted  int
	}{
		{[]string{"198.51.100.1:1", "198.51.100.1:2", "198.51.100.1:3"}, 2},
		{[]string{"[2001:db8::1]:1", "[2001:db8::2]:2", "[2001:db8::3]:3"}, 2},
		{[]string{"198.51.100.1:1", "198.51.100.2:2", "198.51.100.3:3"}, 3},
		{[]string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"}, 3},
		{[]string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}, 3},
	} {
		p := NewPort(PortOptions{Quota: Quota{Name: Connections, Tally: NewTally(zap.NewNop())}, IPConnections: 2, Proxies: proxies})
		var conns []*Conn
		for _, remote := range test.addresses {
			if c := p.admit(new(net.TCPConn), address(remote)); c != nil {
				conns = append(conns, c)
			}
		}
		if refused := p.o.Tally.Refused()[IPTCPConnections]; len(conns) != test.admitted || refused != uint64(3-test.admitted) {
			t.Errorf("%v: %d are admitted, %d refused; want %d admitted", test.addresses, len(conns), refused, test.admitted)
		}
		for _, c := range conns {
			_ = c.Close()
			_ = c.Close()
		}
		if c := p.admit(new(net.TCPConn), address(test.addresses[0])); c == nil || p.Open() != 1 {
			t.Errorf("%v: closed ones count: %d", test.addresses, p.Open())
		}
	}
}

// A failed accept is counted and logged.
func TestAcceptErrors(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	p := NewPort(PortOptions{Quota: Quota{Name: Connections, Tally: NewTally(zap.New(core))}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.(*net.TCPListener).SetDeadline(time.Unix(1, 0))
	bounded := p.Listener(l)
	for range 3 {
		if _, err := bounded.Accept(); err == nil {
			t.Fatal("accepted")
		}
	}
	l.Close()
	if _, err := bounded.Accept(); err == nil { // the end is not an error
		t.Fatal("accepted")
	}
	if n := p.AcceptErrors(); n != 3 || logs.FilterMessage("accept failed").Len() != 1 {
		t.Errorf("%d are counted, logged: %v", n, logs.All())
	}
}

// A port keeps no memory after a connection or a request ends: nothing is allocated when a
// connection begins or ends to wait.
func TestWaitingAllocatesNothing(t *testing.T) {
	p := NewPort(PortOptions{Quota: Quota{Name: Connections, Tally: NewTally(zap.NewNop())}, Waiting: 10})
	c := p.admit(new(net.TCPConn), address("198.51.100.1:1"))
	if n := testing.AllocsPerRun(100, func() {
		p.ConnState(c, http.StateActive)
		_, _ = c.Write(nil)
		c.arrives(false)
		c.arrives(true)
		p.ConnState(c, http.StateIdle)
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// A full port still accepts a new connection if clients do not read their answers. One that reads keeps
// its connection, and so does one that waits for less time.
func TestFullPortClosesThoseThatDoNotRead(t *testing.T) {
	p := NewPort(PortOptions{Quota: Quota{Name: Connections, Max: 3, Tally: NewTally(zap.NewNop())}})
	proceed := make(chan struct{})
	large := make([]byte, 8<<20)
	open := serve(t, p, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			_, _ = w.Write(large)
		case "/slow":
			<-proceed
		}
	})
	request := func(path string) string { return strings.Replace(whole, "/", path, 1) }
	unread, busy := open(request("/large")), open(request("/slow"))
	blocked := func() (blocked int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for c := range p.conns {
			if began := c.writing.Load(); began != 0 && time.Since(started)-time.Duration(began) > unreadTimeout {
				blocked++
			}
		}
		return blocked
	}
	for end := time.Now().Add(20 * time.Second); blocked() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no write is blocked")
		}
	}
	idle := open("")
	waits(t, p, 1)
	if got := said(open(whole)); got != "HTTP/1.1 200 OK" {
		t.Errorf(`a new one got %q, want "HTTP/1.1 200 OK"`, got)
	}
	if n, err := io.Copy(io.Discard, unread); n >= int64(len(large)) {
		t.Errorf("the one that did not read got all %d bytes: %v", n, err)
	}
	close(proceed)
	if got := said(busy); got != "HTTP/1.1 200 OK" {
		t.Errorf(`the one that was being answered got %q, want "HTTP/1.1 200 OK"`, got)
	}
	_, _ = io.WriteString(idle, whole)
	if got := said(idle); got != "HTTP/1.1 200 OK" {
		t.Errorf(`the one that had waited for a moment got %q, want "HTTP/1.1 200 OK"`, got)
	}
}

// A connection whose client reads late does not wait any more.
func TestReadAnswerEndsTheWait(t *testing.T) {
	p := NewPort(PortOptions{Quota: Quota{Name: Connections, Tally: NewTally(zap.NewNop())}})
	c := p.admit(new(net.TCPConn), address("198.51.100.1:1")) // writes to it fail
	c.writing.Store(1)
	p.mu.Lock()
	p.lookForUnread()
	waiting := p.waiting
	p.mu.Unlock()
	if _, err := c.Write(nil); err == nil || waiting != 1 || p.waiting != 0 {
		t.Errorf("%d wait during the write, and %d after it (%v), want 1 and 0", waiting, p.waiting, err)
	}
}
