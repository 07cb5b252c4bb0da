package redis

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// A relay is a proxy between nodes and Redis that injects network faults. It distinguishes
// connections by their commands.
type relay struct {
	t      *testing.T
	l      net.Listener
	closed chan struct{}
	pumps  sync.WaitGroup

	mu     sync.Mutex
	target string // of new connections
	links  map[*wire]struct{}
	holes  map[role]chan struct{} // data on such links waits until it is closed
	delay  time.Duration          // of the publishers' commands
	mute   bool                   // answers to publishers are lost
	rate   int                    // bytes per second of what all readers are answered; 0 for no limit
	next   time.Time              // when the next answer may pass
	said   func(w *wire, what []byte)
}

// role is the purpose of a connection.
type role int

const (
	unknown role = iota
	publisher
	subscriber
)

// A wire is one connection.
type wire struct {
	client, server net.Conn
	role           role          // guarded by the relay's mu
	done           chan struct{} // closed once nothing more goes to the server
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{
		t: t, target: target, l: l, closed: make(chan struct{}),
		links: make(map[*wire]struct{}), holes: make(map[role]chan struct{}),
	}
	r.pumps.Go(r.accept)
	t.Cleanup(func() {
		close(r.closed)
		_ = l.Close()
		r.cut(unknown, publisher, subscriber)
		r.pumps.Wait()
	})
	return r
}

func (r *relay) url() string { return "redis://" + r.l.Addr().String() }

func (r *relay) accept() {
	for {
		client, err := r.l.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		target := r.target
		r.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if err != nil {
			_ = client.Close()
			continue
		}
		w := &wire{client: client, server: server, done: make(chan struct{})}
		r.mu.Lock()
		r.links[w] = struct{}{}
		r.mu.Unlock()
		r.pumps.Go(func() { r.pump(w, server, client, true) })
		r.pumps.Go(func() { r.pump(w, client, server, false) })
	}
}

// pump carries one direction until it ends.
func (r *relay) pump(w *wire, to, from net.Conn, asking bool) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if asking {
				r.learn(w, buf[:n])
			}
			r.wait(w, asking, n)
			if !asking && r.drops(w) {
				continue
			}
			if _, werr := to.Write(buf[:n]); werr != nil && err == nil {
				err = werr
			}
		}
		if err != nil {
			break
		}
	}
	if asking {
		close(w.done)
		_ = w.server.Close()
	}
	_ = w.client.Close()
	r.mu.Lock()
	delete(r.links, w)
	r.mu.Unlock()
}

func (r *relay) drops(w *wire) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mute && w.role == publisher
}

// answers sets whether Redis' answers to publishers arrive.
func (r *relay) answers(do bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mute = !do
}

func (r *relay) learn(w *wire, what []byte) {
	r.mu.Lock()
	if bytes.Contains(what, []byte("\r\nsubscribe\r\n")) {
		w.role = subscriber
	} else if w.role == unknown && bytes.Contains(what, []byte("\r\nping\r\n")) { // subscribers send some, too
		w.role = publisher
	}
	said := r.said
	r.mu.Unlock()
	if said != nil {
		said(w, what)
	}
}

func (r *relay) wait(w *wire, asking bool, n int) {
	r.mu.Lock()
	hole, delay := r.holes[w.role], time.Duration(0)
	switch {
	case asking && w.role == publisher:
		delay = r.delay
	case !asking && w.role == unknown && r.rate > 0:
		now := time.Now()
		if r.next.Before(now) {
			r.next = now
		}
		r.next = r.next.Add(time.Duration(n) * time.Second / time.Duration(r.rate))
		delay = r.next.Sub(now)
	}
	r.mu.Unlock()
	if hole != nil {
		select {
		case <-hole:
		case <-r.closed:
		}
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-r.closed:
		}
	}
}

// narrow limits what readers are answered to some bytes per second, which they share.
func (r *relay) narrow(rate int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rate = rate
}

// move sends new connections elsewhere.
func (r *relay) move(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
}

// slow delays the publishers' commands from now on.
func (r *relay) slow(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = d
}

// watch makes the relay call said with all data from clients before passing it on.
func (r *relay) watch(said func(w *wire, what []byte)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = said
}

// hole holds all data on some links, in both directions, until it is filled: then the data
// arrives late.
func (r *relay) hole(of role) (fill func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	hole := make(chan struct{})
	r.holes[of] = hole
	return sync.OnceFunc(func() {
		r.mu.Lock()
		delete(r.holes, of)
		r.mu.Unlock()
		close(hole)
	})
}

// cut ends connections, in both directions.
func (r *relay) cut(of ...role) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.links {
		for _, o := range of {
			if w.role == o {
				_ = w.client.Close()
				_ = w.server.Close()
			}
		}
	}
}

// sever ends a connection for the client only: data that it has sent still arrives.
func (w *wire) sever() { _ = w.client.Close() }
