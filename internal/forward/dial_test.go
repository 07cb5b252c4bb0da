package forward

import (
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A starvedPort is a port whose node accepts no connections: the next one waits.
type starvedPort struct {
	net.Listener
	full []net.Conn // as many as the kernel queues for the node
}

func starve(t *testing.T) *starvedPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "starved")
	defer file.Close()
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	p := &starvedPort{}
	if p.Listener, err = net.FileListener(file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		p.relieve()
	})
	for {
		c, err := net.DialTimeout("tcp", p.Addr().String(), 100*time.Millisecond)
		if err != nil {
			return p
		}
		p.full = append(p.full, c)
	}
}

// relieve makes space for connections.
func (p *starvedPort) relieve() {
	for _, c := range p.full {
		c.Close()
	}
}

// A node that accepts no connections for a while keeps its sessions: requests wait for it,
// and their sessions are not declared unknown while the node is in the cluster.
func TestOwnerThatAcceptsNoConnections(t *testing.T) {
	t.Parallel()
	c := setUp(t, 2, nil)
	near, owner := c.nodes[0], c.nodes[1]
	sid := c.open(owner)

	starved := starve(t)
	c.book.set(owner.id, starved.Addr().String())
	serving := make(chan error, 1)
	s := &http.Server{Handler: owner.internal.Config.Handler}
	later := time.AfterFunc(1100*time.Millisecond, func() { go func() { serving <- s.Serve(starved) }() }) // longer than TCP's first attempt
	defer later.Stop()
	c.expect(near, "POST", sid, "4hi", "ok")
	c.expect(near, "GET", sid, "", "4hi")
	s.Close()
	receive(t, serving)

	near.transport.CloseIdleConnections()
	near.transport = newTransport(patience, 300*time.Millisecond)
	starved = starve(t)
	c.book.set(owner.id, starved.Addr().String())
	c.expect(near, "GET", sid, "", "6")
	if res, body := c.do(near, "POST", sid, "4hi"); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("POST: %s %s, want 503", res.Status, body)
	}
	_, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(near.public.URL, "http")+
		"/engine.io/?EIO=4&transport=websocket&sid="+sid, nil)
	if err == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("upgrade: %v, want 503", err)
	}
	if n := near.Stats().Forwarded; n[Undecided] != 3 || n[OK] != 2 {
		t.Errorf("%v, want 3 undecided and 2 ok", n)
	}
	c.book.mu.Lock() // the node has left the cluster, but this one has not read that yet
	c.book.known = map[string]string{owner.id: starved.Addr().String()}
	delete(c.book.addresses, owner.id)
	c.book.mu.Unlock()
	c.unknown(near, sid)
}
