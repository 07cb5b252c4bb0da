package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/session"
)

func TestMain(m *testing.M) {
	testMisstep = func(from, to stage) { panic(fmt.Sprintf("a socket in stage %d can't become %d", from, to)) }
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of a test.
const patience = 10 * time.Second

// A testNode is a server with its URL.
type testNode struct {
	*Server
	url string
}

// start runs a server alone.
func start(t testing.TB, o Options) *testNode {
	t.Helper()
	srv, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.recoveries.pace = pace{10_000, time.Millisecond} // tests reconnect faster than clients do
	web := httptest.NewServer(srv)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		web.Close()
		if held := srv.held.bytes.Load(); held != 0 {
			t.Errorf("%d bytes count as held by sockets that have ended, want 0", held)
		}
	})
	return &testNode{srv, "ws" + strings.TrimPrefix(web.URL, "http")}
}

// A testCluster is the state that several nodes of a test share.
type testCluster struct {
	memory   *adapter.Memory
	sessions session.Store
}

func newCluster(o adapter.MemoryOptions) *testCluster {
	return &testCluster{adapter.NewMemory(o), session.NewMemory()}
}

// node runs a server of the cluster.
func (c *testCluster) node(t *testing.T, id adapter.NodeID, o Options) *testNode {
	t.Helper()
	a, err := c.memory.Node(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	o.Adapter, o.Sessions = a, c.sessions
	return start(t, o)
}

// A wire is a connection of a client that behaves like the stock one: it takes
// the last argument of each event for its offset, if that is a string, and looks
// at the events that precede CONNECT only when CONNECT arrives.
type wire struct {
	t      testing.TB
	ws     *websocket.Conn
	ns     string
	sid    string
	pid    string
	offset string
	early  []string // events before CONNECT, as they arrived
	in     chan string
	closed chan struct{}

	mu   sync.Mutex
	acks int
}

// dial opens a connection without connecting to a namespace.
func (n *testNode) dial(t testing.TB) *wire {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial(n.url+"/socket.io/?recovery=true&EIO=4&transport=websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, ws: ws, ns: "/", in: make(chan string, 10_000), closed: make(chan struct{})}
	go w.read()
	t.Cleanup(w.cut)
	if first := w.next(); !strings.HasPrefix(first, "0{") {
		t.Fatalf(`handshake %q, want text that begins with "0{"`, first)
	}
	return w
}

func (w *wire) read() {
	defer close(w.closed)
	defer w.ws.Close()
	for {
		_, data, err := w.ws.ReadMessage()
		if err != nil {
			return
		}
		if string(data) == "2" {
			w.write("3")
			continue
		}
		w.in <- string(data)
	}
}

func (w *wire) write(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.ws.WriteMessage(websocket.TextMessage, []byte(text))
}

// cut drops the connection without a close.
func (w *wire) cut() {
	_ = w.ws.NetConn().Close()
	<-w.closed
}

// next returns the next message, or fails.
func (w *wire) next() string {
	w.t.Helper()
	select {
	case m := <-w.in:
		return m
	default:
	}
	select {
	case m := <-w.in:
		return m
	case <-w.closed:
		select {
		case m := <-w.in:
			return m
		default:
		}
		w.t.Fatal("the connection was closed")
	case <-time.After(patience):
		w.t.Fatal("nothing came")
	}
	return ""
}

// prefix is the namespace as packets have it.
func (w *wire) prefix() string {
	if w.ns == "/" {
		return ""
	}
	return w.ns + ","
}

// connect connects to the main namespace, or to ns, with an auth payload.
func (w *wire) connect(ns, auth string) *wire {
	w.t.Helper()
	w.ns = ns
	w.write("40" + w.prefix() + auth)
	return w.connected()
}

// connected waits for the answer to CONNECT.
func (w *wire) connected() *wire {
	w.t.Helper()
	m := w.next()
	for strings.HasPrefix(m, "42") {
		w.early = append(w.early, m)
		m = w.next()
	}
	var body struct{ SID, PID string }
	rest, ok := strings.CutPrefix(m, "40"+w.prefix())
	if !ok || json.Unmarshal([]byte(rest), &body) != nil {
		w.t.Fatalf("CONNECT was answered %q", m)
	}
	w.sid, w.pid = body.SID, body.PID
	for _, m := range w.early {
		w.hear(m)
	}
	return w
}

// client connects a new client.
func (n *testNode) client(t testing.TB) *wire {
	t.Helper()
	return n.dial(t).connect("/", "")
}

// back connects a client that claims the session of an earlier one.
func (n *testNode) back(t *testing.T, was *wire) *wire {
	t.Helper()
	auth, _ := json.Marshal(map[string]string{"pid": was.pid, "offset": was.offset})
	if was.offset == "" {
		auth, _ = json.Marshal(map[string]string{"pid": was.pid})
	}
	w := n.dial(t)
	w.offset = was.offset
	return w.connect(was.ns, string(auth))
}

// event returns the next event as its JSON array without the offset.
func (w *wire) event() string {
	w.t.Helper()
	return w.hear(w.next())
}

// hear processes an event as the client does, and returns its JSON array without the
// offset.
func (w *wire) hear(m string) string {
	w.t.Helper()
	rest, ok := strings.CutPrefix(m, "42"+w.prefix())
	var args []json.RawMessage
	if !ok || json.Unmarshal([]byte(rest), &args) != nil {
		w.t.Fatalf("got %q, want an event", m)
	}
	var last *string
	if json.Unmarshal(args[len(args)-1], &last) == nil && last != nil && w.pid != "" {
		w.offset = *last
		if _, err := adapter.ParseCursor(*last); err == nil {
			args = args[:len(args)-1]
		}
	}
	text, _ := json.Marshal(args)
	return string(text)
}

func (w *wire) want(events ...string) {
	w.t.Helper()
	for _, want := range events {
		if got := w.event(); got != want {
			w.t.Fatalf("got event %s, want %s", got, want)
		}
	}
}

// call sends an event and returns the ack, as JSON. Events that come before it
// fail the test.
func (w *wire) call(array string) string {
	w.t.Helper()
	w.acks++
	id := strconv.Itoa(w.acks)
	w.write("42" + w.prefix() + id + array)
	m := w.next()
	rest, ok := strings.CutPrefix(m, "43"+w.prefix()+id)
	if !ok {
		w.t.Fatalf("got %q, want ack %s", m, id)
	}
	return rest
}

// quiet fails if a message arrives before the server has answered a call.
func (w *wire) quiet() {
	w.t.Helper()
	w.call(`["ping me"]`)
}

// joining registers the handlers that the tests call.
func joining(n *Namespace) {
	n.On("join", func(ctx context.Context, e *Event) error {
		var room string
		if err := e.Bind(&room); err != nil {
			return err
		}
		if err := e.Socket().Join(ctx, room); err != nil {
			return e.Ack(err.Error())
		}
		return e.Ack("ok")
	})
	n.On("leave", func(ctx context.Context, e *Event) error {
		var room string
		if err := e.Bind(&room); err != nil {
			return err
		}
		if err := e.Socket().Leave(ctx, room); err != nil {
			return e.Ack(err.Error())
		}
		return e.Ack("ok")
	})
	n.On("ping me", func(_ context.Context, e *Event) error { return e.Ack() })
}

// keepRooms makes a namespace call KeepRooms for every client.
func keepRooms(n *Namespace, may func(room string) bool) {
	n.Use(func(_ context.Context, r *ConnectRequest) error {
		r.KeepRooms(may)
		return nil
	})
}

// joiningMany makes a server join rooms with the longest names.
func joiningMany(n *Namespace) {
	n.On("join many", func(ctx context.Context, e *Event) error {
		var rooms int
		if err := e.Bind(&rooms); err != nil {
			return err
		}
		names := make([]string, rooms)
		for i := range names {
			names[i] = fmt.Sprintf("%0200d", i)
		}
		if err := e.Socket().Join(ctx, names...); err != nil {
			return e.Ack(err.Error())
		}
		return e.Ack("ok")
	})
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond) // between two checks, not in place of one
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func numbered(n int) string { return fmt.Sprintf(`["n",%d]`, n) }
