package integration

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// A relay stands between clients and a node, and breaks their connections in
// the ways that networks do. It knows WebSocket frames, so that it can cut after
// an exact number of them.
type relay struct {
	t        *testing.T
	listener net.Listener

	mu      sync.Mutex
	target  string                // of new connections
	refuse  bool                  // new connections are closed immediately
	unheard bool                  // connections that subscribe are cut
	frames  int                   // the next connection is cut after so many server frames; -1: never
	cuts    int                   // how often all connections were cut
	pairs   map[*relayed]struct{} // the open connections
	running sync.WaitGroup
}

// A relayed connection has two halves.
type relayed struct {
	client, server *net.TCPConn
	once           sync.Once
	muted          atomic.Bool // the node's data is discarded
	subscriber     atomic.Bool // it has sent SUBSCRIBE, to Redis
}

// abort resets both sides.
func (p *relayed) abort() {
	p.once.Do(func() {
		abort(p.client)
		abort(p.server)
	})
}

// Write forwards the node's data to the client.
func (p *relayed) Write(b []byte) (int, error) {
	if p.muted.Load() {
		return len(b), nil
	}
	return p.client.Write(b)
}

// startRelay starts a relay to a node; the test's end ends it.
func startRelay(t *testing.T, n *node) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, target: n.addr, listener: listener, frames: -1, pairs: map[*relayed]struct{}{}}
	r.running.Go(r.accept)
	t.Cleanup(func() {
		listener.Close()
		r.cut()
		r.running.Wait()
	})
	return r
}

func (r *relay) url() string { return "http://" + r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.running.Go(func() { r.serve(client.(*net.TCPConn)) })
	}
}

func (r *relay) serve(client *net.TCPConn) {
	r.mu.Lock()
	refuse, frames, cuts, target := r.refuse, r.frames, r.cuts, r.target
	if !refuse {
		r.frames = -1
	}
	r.mu.Unlock()
	if refuse {
		abort(client)
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		abort(client)
		return
	}
	pair := &relayed{client: client, server: server.(*net.TCPConn)}
	r.mu.Lock()
	r.pairs[pair] = struct{}{}
	late := r.cuts != cuts // cut before it could be found among the open ones
	r.mu.Unlock()
	if late {
		pair.abort()
	}
	defer func() {
		r.mu.Lock()
		delete(r.pairs, pair)
		r.mu.Unlock()
		pair.close()
	}()
	var up sync.WaitGroup
	up.Go(func() {
		io.Copy(pair.server, io.TeeReader(pair.client, tap{r, pair}))
		if !pair.muted.Load() {
			pair.server.CloseWrite()
		}
	})
	if frames < 0 {
		io.Copy(pair, pair.server)
	} else if err := copyFrames(pair, pair.server, frames); errors.Is(err, errEnough) {
		// What was let through must arrive, so the client sees an end, not a reset.
		pair.client.Close()
		abort(pair.server)
	}
	if pair.muted.Load() { // muted in the middle of a write to a client that is gone
		io.Copy(io.Discard, pair.server)
	}
	pair.client.CloseWrite()
	up.Wait()
}

// A tap reads a client's data before the server does, and recognizes by it a
// node's subscriber connection to Redis.
type tap struct {
	*relay
	pair *relayed
}

func (t tap) Write(b []byte) (int, error) {
	if !t.pair.subscriber.Load() && bytes.Contains(b, []byte("subscribe\r\n")) {
		t.pair.subscriber.Store(true)
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.unheard {
			t.pair.abort()
		}
	}
	return len(b), nil
}

func (p *relayed) close() {
	p.once.Do(func() {
		p.client.Close()
		p.server.Close()
	})
}

// errEnough: all frames that may pass were copied.
var errEnough = errors.New("enough frames")

// copyFrames copies the head of an HTTP answer and then so many frames of the
// WebSocket that it opens, which come unmasked from a server. An answer of
// another kind is copied whole.
func copyFrames(to io.Writer, from io.Reader, frames int) error {
	in := bufio.NewReader(from)
	for first := true; ; first = false {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return err
		}
		if _, err := to.Write(line); err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 101")) {
			_, err := io.Copy(to, in)
			return err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			break
		}
	}
	for range frames {
		if err := copyFrame(to, in); err != nil {
			return err
		}
	}
	return errEnough
}

func copyFrame(to io.Writer, in *bufio.Reader) error {
	head, err := in.Peek(2)
	if err != nil {
		return err
	}
	size := int64(2)
	switch length := head[1] & 0x7f; length {
	case 126:
		if head, err = in.Peek(4); err != nil {
			return err
		}
		size += 2 + int64(binary.BigEndian.Uint16(head[2:]))
	case 127:
		if head, err = in.Peek(10); err != nil {
			return err
		}
		size += 8 + int64(binary.BigEndian.Uint64(head[2:]))
	default:
		size += int64(length)
	}
	_, err = io.CopyN(to, in, size)
	return err
}

// abort closes with a TCP reset.
func abort(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// cut resets all connections, to both sides.
func (r *relay) cut() {
	r.set(func() { r.cuts++ })
	for _, pair := range r.open() {
		pair.abort()
	}
}

// halfOpen resets the clients' connections. The node's side stays open and
// silent, and discards the node's data, so the node does not notice.
func (r *relay) halfOpen() {
	r.set(func() { r.cuts++ })
	for _, pair := range r.open() {
		pair.muted.Store(true)
		abort(pair.client)
	}
}

// deafen keeps everything that the node sends from the clients, whose own frames
// still arrive.
func (r *relay) deafen() {
	for _, pair := range r.open() {
		pair.muted.Store(true)
	}
}

// down makes the relay refuse new connections and resets the old ones; up makes
// it serve again.
func (r *relay) down() {
	r.shut()
	r.cut()
}

// shut makes the relay refuse new connections.
func (r *relay) shut() { r.set(func() { r.refuse = true }) }

// cutSubscribers resets the connections that have subscribed, and those that will
// until mendSubscribers. The others live on.
func (r *relay) cutSubscribers() {
	r.set(func() { r.unheard = true })
	for _, pair := range r.open() {
		if pair.subscriber.Load() {
			pair.abort()
		}
	}
}

func (r *relay) mendSubscribers() { r.set(func() { r.unheard = false }) }

// deafenSubscribers black-holes the subscriber connections: they receive
// nothing more, and no error.
func (r *relay) deafenSubscribers() {
	for _, pair := range r.open() {
		if pair.subscriber.Load() {
			pair.muted.Store(true)
		}
	}
}

func (r *relay) up() { r.set(func() { r.refuse = false }) }

// move leads new connections to another address.
func (r *relay) move(target string) { r.set(func() { r.target = target }) }

// cutNext cuts the next connection, a WebSocket, after so many frames from the
// node.
func (r *relay) cutNext(frames int) { r.set(func() { r.frames = frames }) }

func (r *relay) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *relay) open() []*relayed {
	r.mu.Lock()
	defer r.mu.Unlock()
	pairs := make([]*relayed, 0, len(r.pairs))
	for pair := range r.pairs {
		pairs = append(pairs, pair)
	}
	return pairs
}
