package engineio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of the tests. Successful waits are much shorter.
const patience = 20 * time.Second

// A bench is a server under test, and records the actions of its connections.
type bench struct {
	*testing.T
	*Server
	http   *httptest.Server
	client *http.Client
	conns  chan *Conn   // each new connection
	got    chan Message // their received messages
	ends   chan error   // the errors with which their Recv ended
}

// setUp runs a server that records the actions of its connections.
func setUp(t *testing.T, o Options) *bench {
	t.Helper()
	b := &bench{T: t, conns: make(chan *Conn, 2048), got: make(chan Message, 2048), ends: make(chan error, 2048)}
	return b.serve(o, func(c *Conn) {
		b.conns <- c
		for {
			m, err := c.Recv()
			if err != nil {
				b.ends <- err
				return
			}
			b.got <- m
		}
	})
}

// setUpEcho runs a server that echoes messages.
func setUpEcho(t *testing.T, o Options) *bench {
	t.Helper()
	return (&bench{T: t}).serve(o, func(c *Conn) {
		for m, err := c.Recv(); err == nil; m, err = c.Recv() {
			if m.Binary {
				_ = c.Send(Binary(m.Data)) // ends with the next Recv
			} else {
				_ = c.Send(Text(m.Data))
			}
		}
	})
}

func (b *bench) serve(o Options, serve func(*Conn)) *bench {
	b.Helper()
	s, err := NewServer(o, serve)
	if err != nil {
		b.Fatal(err)
	}
	b.Server = s
	b.http = httptest.NewServer(s)
	b.client = &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: patience}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			b.Errorf("close: %v", err)
		}
		b.client.CloseIdleConnections()
		b.http.Close()
		if n := s.Stats().QueuedBytes; n != 0 {
			b.Errorf("%d bytes are still counted as queued, want 0", n)
		}
	})
	return b
}

// do sends a request with the parameters of a session, "" for a new one.
func (b *bench) do(method, sid, body string, header ...string) (*http.Response, string) {
	b.Helper()
	res, text, err := b.try(method, sid, body, header...)
	if err != nil {
		b.Fatal(err)
	}
	return res, text
}

func (b *bench) try(method, sid, body string, header ...string) (*http.Response, string, error) {
	q := "?EIO=4&transport=polling"
	if sid != "" {
		q += "&sid=" + sid
	}
	return b.raw(method, "/engine.io/"+q, body, header...)
}

func (b *bench) raw(method, url, body string, header ...string) (*http.Response, string, error) {
	r, err := http.NewRequest(method, b.http.URL+url, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := b.client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res, string(text), err
}

// open shakes hands by polling.
func (b *bench) open() (sid string) {
	b.Helper()
	res, body := b.do("GET", "", "")
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(body, `0{"sid":"`) {
		b.Fatalf("handshake: %s %s", res.Status, body)
	}
	return body[9:29]
}

func (b *bench) poll(sid string) string {
	b.Helper()
	res, body := b.do("GET", sid, "")
	if res.StatusCode != http.StatusOK {
		b.Fatalf("poll: %s %s", res.Status, body)
	}
	return body
}

func (b *bench) post(sid, body string) {
	b.Helper()
	if res, text := b.do("POST", sid, body); res.StatusCode != http.StatusOK || text != "ok" {
		b.Fatalf("post: %s %s", res.Status, text)
	}
}

// An answer is the result of a request of another goroutine.
type answer struct {
	status int
	body   string
	err    error
}

// pollLater sends a GET, returns when it waits at the server, and delivers its answer
// later.
func (b *bench) pollLater(sid string) <-chan answer {
	b.Helper()
	answers := make(chan answer, 1)
	go func() {
		res, body, err := b.try("GET", sid, "")
		if err != nil {
			answers <- answer{err: err}
			return
		}
		answers <- answer{res.StatusCode, body, nil}
	}()
	b.until(func() bool { return b.polling(sid) })
	return answers
}

// polling reports whether a GET of the session waits.
func (b *bench) polling(sid string) bool {
	c := b.lookup(sid)
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ws == nil && c.polling.get != getNone
}

// until polls until a condition holds.
func (b *bench) until(is func() bool) {
	b.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.Fatal("timed out")
		}
	}
}

// dial opens a WebSocket with more parameters, like "&sid=…".
func (b *bench) dial(more string, header ...string) *websocket.Conn {
	b.Helper()
	ws, res, err := b.tryDial("?EIO=4&transport=websocket"+more, header...)
	if err != nil {
		if res != nil {
			b.Fatalf("dial: %v: %s", err, res.Status)
		}
		b.Fatal(err)
	}
	return ws
}

func (b *bench) tryDial(query string, header ...string) (*websocket.Conn, *http.Response, error) {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	d := websocket.Dialer{HandshakeTimeout: patience, EnableCompression: true}
	ws, res, err := d.Dial("ws"+strings.TrimPrefix(b.http.URL, "http")+"/engine.io/"+query, h)
	if ws != nil {
		_ = ws.SetReadDeadline(time.Now().Add(patience))
		b.Cleanup(func() { _ = ws.Close() })
	}
	return ws, res, err
}

// dialOpen opens a WebSocket session and reads the handshake.
func (b *bench) dialOpen() (*websocket.Conn, *Conn) {
	b.Helper()
	ws := b.dial("")
	if first := b.read(ws); !strings.HasPrefix(first, "0{") {
		b.Fatalf(`handshake: %q, want text that begins with "0{"`, first)
	}
	return ws, receive(b.T, b.conns)
}

func (b *bench) read(ws *websocket.Conn) string {
	b.Helper()
	_, data, err := ws.ReadMessage()
	if err != nil {
		b.Fatal(err)
	}
	return string(data)
}

func (b *bench) write(ws *websocket.Conn, text string) {
	b.Helper()
	if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		b.Fatal(err)
	}
}

// closedWith reads until the peer's close frame, and returns its code.
func (b *bench) closedWith(ws *websocket.Conn) int {
	b.Helper()
	for {
		_, _, err := ws.ReadMessage()
		if closed := (*websocket.CloseError)(nil); errors.As(err, &closed) {
			_ = ws.Close()
			return closed.Code
		}
		if err != nil {
			b.Fatal(err)
		}
	}
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

// endsBy waits for a connection's end and checks its reason.
func (b *bench) endsBy(reason Reason) {
	b.Helper()
	err := receive(b.T, b.ends)
	if closed := (*CloseError)(nil); !errors.As(err, &closed) || closed.Reason != reason {
		b.Errorf("ended by %v, want %s", err, reason)
	}
}

// gets checks the next message that a connection received.
func (b *bench) gets(want string, binary bool) {
	b.Helper()
	if m := receive(b.T, b.got); !bytes.Equal(m.Data, []byte(want)) || m.Binary != binary {
		b.Errorf("received %q (binary %v), want %q (%v)", m.Data, m.Binary, want, binary)
	}
}

// unknown checks that the server no longer knows a session.
func (b *bench) unknown(sid string) {
	b.Helper()
	if res, body := b.do("GET", sid, ""); res.StatusCode != http.StatusBadRequest || !strings.HasPrefix(body, `{"code":1,`) {
		b.Errorf("the session answers %s %s", res.Status, body)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
