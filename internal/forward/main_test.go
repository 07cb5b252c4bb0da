package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of the tests. Successful waits are much shorter.
const patience = 20 * time.Second

// large is the size of messages that are not echoed.
const large = 60_000

const secret = "a secret of the test's cluster"

// A book is a directory in a map.
type book struct {
	mu        sync.Mutex
	addresses map[string]string
	known     map[string]string // the addresses that it has read; until it has read some, all are known
	fault     error             // why it cannot be read
}

func (b *book) Address(ctx context.Context, node adapter.NodeID, stale string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, bounded := ctx.Deadline(); !bounded {
		return "", errors.New("a look-up without a deadline")
	}
	if addr := b.known[string(node)]; addr != "" && addr != stale {
		return addr, nil
	}
	if b.fault != nil {
		return "", b.fault
	}
	addr, ok := b.addresses[string(node)]
	if !ok {
		return "", fmt.Errorf("book: %s: %w", node, adapter.ErrNoNode)
	}
	return addr, nil
}

func (b *book) set(node, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addresses[node] = addr
}

// A node has a public and an internal port. It echoes its clients' messages.
type node struct {
	*Forwarder
	id       string
	engine   *engineio.Server
	public   *httptest.Server
	internal *httptest.Server
	conns    chan *engineio.Conn // each new connection
	ends     chan error          // the errors with which their Recv ended
	asked    chan string         // sessions whose clients other nodes want to leave
	mayLeave chan struct{}       // closed; a test may put an open one here
	busy     bool                // connections begin with a pause, as a full mailbox makes one
	mayRead  chan struct{}       // ends that
}

// A cluster is some nodes, and a client that uses any of them.
type cluster struct {
	*testing.T
	book   *book
	nodes  []*node
	client *http.Client
}

// setUp runs a cluster of nodes with the ids n000, n001, … change may be nil.
func setUp(t *testing.T, n int, change func(*engineio.Options, *Options)) *cluster {
	t.Helper()
	c := &cluster{T: t, book: &book{addresses: make(map[string]string)}}
	c.client = &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}, Timeout: patience}
	t.Cleanup(c.client.CloseIdleConnections)
	for i := range n {
		c.nodes = append(c.nodes, c.start(fmt.Sprintf("n%03d", i), change))
	}
	return c
}

func (c *cluster) start(id string, change func(*engineio.Options, *Options)) *node {
	c.Helper()
	n := &node{id: id, conns: make(chan *engineio.Conn, 1024), ends: make(chan error, 1024), asked: make(chan string, 1024), mayLeave: make(chan struct{}), mayRead: make(chan struct{})}
	close(n.mayLeave)
	eo := engineio.Options{NodeID: id, PingInterval: time.Hour} // long enough that no ping is sent, even on a slow machine
	fo := Options{Node: id, Secret: secret, Directory: c.book, Timeout: patience}
	if change != nil {
		change(&eo, &fo)
	}
	var err error
	if n.Forwarder, err = New(fo); err != nil {
		c.Fatal(err)
	}
	eo.Forward = n.Forward
	if n.engine, err = engineio.NewServer(eo, n.echo); err != nil {
		c.Fatal(err)
	}
	n.public = httptest.NewUnstartedServer(n.engine)
	n.public.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		_ = conn.(*net.TCPConn).SetWriteBuffer(256 << 10) // as cmd/node does
		return ctx
	}
	n.public.Start()
	mux := http.NewServeMux()
	mux.Handle(Prefix+"/", n.Handler(n.engine))
	mux.Handle("POST "+LeavePath, n.Leaving(n.sendAway))
	n.internal = httptest.NewServer(mux)
	c.book.set(id, n.internal.Listener.Addr().String())
	c.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(n.Close(ctx), n.engine.Close(ctx)); err != nil {
			c.Errorf("close: %v", err)
		}
		n.public.Close()
		n.internal.Close()
	})
	return n
}

func (n *node) echo(c *engineio.Conn) {
	n.conns <- c
	if n.busy {
		c.Pause()
		select {
		case <-n.mayRead:
		case <-c.Context().Done():
		}
		c.Resume()
	}
	for {
		m, err := c.Recv()
		if err != nil {
			n.ends <- err
			return
		}
		if len(m.Data) < large {
			_ = c.Send(engineio.Text(m.Data)) // ends with the next Recv
		}
	}
}

// sendAway closes a session's connection after a last message, once leave allows it.
func (n *node) sendAway(ctx context.Context, sid string) {
	n.asked <- sid
	select {
	case <-n.mayLeave:
	case <-ctx.Done():
		return // no longer awaited: the requesting node cuts the client
	}
	for c := range n.engine.Conns() {
		if c.ID() == sid {
			_ = c.Send(engineio.Text([]byte("last words"))) // fails if the client has gone
			c.Close(engineio.ForcedClose)
		}
	}
}

// do sends a request of a session, "" for a new one, to one node.
func (c *cluster) do(at *node, method, sid, body string, header ...string) (*http.Response, string) {
	c.Helper()
	res, text, err := c.try(at, method, sid, body, header...)
	if err != nil {
		c.Fatal(err)
	}
	return res, text
}

func (c *cluster) try(at *node, method, sid, body string, header ...string) (*http.Response, string, error) {
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, at.public.URL+"/engine.io/?EIO=4&transport=polling&sid="+sid, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := c.client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res, string(text), err
}

// open shakes hands with a node, by polling.
func (c *cluster) open(at *node) (sid string) {
	c.Helper()
	res, body := c.do(at, "GET", "", "")
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(body, `0{"sid":"`+at.id) {
		c.Fatalf("handshake: %s %s", res.Status, body)
	}
	return body[9:29]
}

// expect checks the answer to a request.
func (c *cluster) expect(at *node, method, sid, body, want string) {
	c.Helper()
	if res, text := c.do(at, method, sid, body); res.StatusCode != http.StatusOK || text != want {
		c.Fatalf("%s at %s: %s %s, want %s", method, at.id, res.Status, text, want)
	}
}

// unknown checks that a session is unknown to a node.
func (c *cluster) unknown(at *node, sid string) {
	c.Helper()
	if res, body := c.do(at, "GET", sid, ""); res.StatusCode != http.StatusBadRequest || body != `{"code":1,"message":"Session ID unknown"}` {
		c.Errorf("%s: %s %s", sid, res.Status, body)
	}
}

// upgrade begins to move a session to a WebSocket by one node, up to the probe's
// answer.
func (c *cluster) upgrade(at *node, sid string) *websocket.Conn {
	c.Helper()
	ws, _, err := (&websocket.Dialer{HandshakeTimeout: patience}).DialContext(c.Context(),
		"ws"+strings.TrimPrefix(at.public.URL, "http")+"/engine.io/?EIO=4&transport=websocket&sid="+sid, nil)
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { ws.Close() })
	_ = ws.SetReadDeadline(time.Now().Add(patience))
	write(c.T, ws, "2probe")
	if got := read(c.T, ws); got != "3probe" {
		c.Fatalf(`probe answered by %q, want "3probe"`, got)
	}
	return ws
}

// move is upgrade to its end.
func (c *cluster) move(at *node, sid string) *websocket.Conn {
	c.Helper()
	ws := c.upgrade(at, sid)
	write(c.T, ws, "5")
	write(c.T, ws, "4moved")
	if got := read(c.T, ws); got != "4moved" {
		c.Fatalf(`first message %q, want "4moved"`, got)
	}
	return ws
}

func write(t *testing.T, ws *websocket.Conn, text string) {
	t.Helper()
	if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, ws *websocket.Conn) string {
	t.Helper()
	_, data, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(data))
}

// receive waits for a value.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("timed out")
		panic("unreachable")
	}
}

// until polls until a condition holds.
func until(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("timed out")
		}
	}
}

// closedPort returns an address without a listener.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// tryUpgrade returns the status with which an upgrade is refused.
func (c *cluster) tryUpgrade(at *node, sid string) int {
	c.Helper()
	ws, res, err := (&websocket.Dialer{HandshakeTimeout: patience}).DialContext(c.Context(),
		"ws"+strings.TrimPrefix(at.public.URL, "http")+"/engine.io/?EIO=4&transport=websocket&sid="+sid, nil)
	if err == nil {
		ws.Close()
		return http.StatusSwitchingProtocols
	}
	if res == nil {
		c.Fatal(err)
	}
	return res.StatusCode
}
