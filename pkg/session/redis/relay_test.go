package redis

import (
	"net"
	"slices"
	"sync"
	"testing"
)

// A relay is a proxy between clients and a server. It can hold back the data that clients
// send on existing connections, and pass it on later, even after the clients have
// disconnected.
type relay struct {
	listener net.Listener
	server   string
	running  sync.WaitGroup

	mu     sync.Mutex
	open   []*link
	closed bool
}

// A link is one connection through a relay.
type link struct {
	client, server net.Conn
	answered       chan struct{} // gets a token for each read from the server

	mu   sync.Mutex
	held bool
	kept []byte
}

func startRelay(t *testing.T, server string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, server: server}
	r.running.Go(r.accept)
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		r.closed = true
		for _, k := range r.open {
			k.client.Close()
			k.server.Close()
		}
		r.mu.Unlock()
		r.running.Wait()
	})
	return r
}

func (r *relay) url() string { return "redis://" + r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.server)
		if err != nil {
			client.Close()
			continue
		}
		k := &link{client: client, server: server, answered: make(chan struct{}, 1000)}
		r.mu.Lock()
		r.open = append(r.open, k)
		if r.closed {
			client.Close()
			server.Close()
		}
		r.mu.Unlock()
		r.running.Go(k.up)
		r.running.Go(k.down)
	}
}

// up passes on the client's data. At the end of the data the server's side stays open.
func (k *link) up() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := k.client.Read(buffer)
		k.mu.Lock()
		if k.held {
			k.kept = append(k.kept, buffer[:n]...)
		} else {
			_, _ = k.server.Write(buffer[:n])
		}
		k.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (k *link) down() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := k.server.Read(buffer)
		_, _ = k.client.Write(buffer[:n]) // which may have disconnected
		if err != nil {
			return
		}
		select {
		case k.answered <- struct{}{}:
		default:
		}
	}
}

// hold keeps data on the current connections from now on.
func (r *relay) hold() {
	for _, k := range r.links() {
		k.mu.Lock()
		k.held = true
		k.mu.Unlock()
	}
}

func (r *relay) links() []*link {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.open)
}

// release passes on the kept data, and returns when the server has answered.
func (k *link) release(t *testing.T) (bytes int) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.answered) > 0 {
		<-k.answered
	}
	if len(k.kept) == 0 {
		return 0
	}
	if _, err := k.server.Write(k.kept); err != nil {
		t.Errorf("release: %v", err)
	}
	<-k.answered
	return len(k.kept)
}
