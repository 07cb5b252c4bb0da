package socketio

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A rawClient sends a handshake exactly as written in a test, which no HTTP or
// WebSocket library does.
type rawClient struct {
	t    *testing.T
	addr string
	conn net.Conn // nil on polling
	in   *bufio.Reader
	sid  string // of the engine session, on polling
	got  []string
}

// handshakeOf opens a connection with the request line and headers of a client
// library. Both are without Host and the WebSocket's own headers.
func (n *testNode) handshakeOf(t *testing.T, query, headers string) *rawClient {
	t.Helper()
	c := &rawClient{t: t, addr: strings.TrimPrefix(n.url, "ws://")}
	request := "GET /socket.io/?" + query + " HTTP/1.1\r\nHost: h\r\n" + strings.ReplaceAll(headers, "\n", "\r\n")
	if strings.Contains(query, "transport=polling") {
		c.got = strings.Split(c.exchange(request+"\r\n"), "\x1e")
		var open struct{ SID string }
		must(t, json.Unmarshal([]byte(c.got[0][1:]), &open))
		c.got, c.sid = c.got[1:], open.SID
		return c
	}
	conn, err := net.Dial("tcp", c.addr)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	c.conn, c.in = conn, bufio.NewReader(conn)
	_, err = io.WriteString(conn, request+"Connection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	must(t, err)
	res, err := http.ReadResponse(c.in, nil)
	must(t, err)
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %d, want %d", res.StatusCode, http.StatusSwitchingProtocols)
	}
	c.next() // the open packet
	return c
}

// exchange sends one request and returns the body of its response.
func (c *rawClient) exchange(request string) string {
	c.t.Helper()
	conn, err := net.Dial("tcp", c.addr)
	must(c.t, err)
	defer func() { _ = conn.Close() }()
	must(c.t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, request)
	must(c.t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(c.t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	must(c.t, err)
	if res.StatusCode != http.StatusOK {
		c.t.Fatalf("status %d: %s, want %d", res.StatusCode, body, http.StatusOK)
	}
	return string(body)
}

// later is the URL of a polling session after its handshake.
func (c *rawClient) later() string { return "/socket.io/?EIO=4&transport=polling&sid=" + c.sid }

func (c *rawClient) send(text string) {
	c.t.Helper()
	if c.conn == nil {
		c.exchange(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", c.later(), len(text), text))
		return
	}
	frame := append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...) // text, masked with zeros
	_, err := c.conn.Write(frame)
	must(c.t, err)
}

func (c *rawClient) next() string {
	c.t.Helper()
	if c.conn == nil {
		for len(c.got) == 0 {
			c.got = strings.Split(c.exchange("GET "+c.later()+" HTTP/1.1\r\nHost: h\r\n\r\n"), "\x1e")
		}
		first := c.got[0]
		c.got = c.got[1:]
		return first
	}
	var head [2]byte
	_, err := io.ReadFull(c.in, head[:])
	must(c.t, err)
	size := uint16(head[1])
	if size == 126 {
		must(c.t, binary.Read(c.in, binary.BigEndian, &size))
	}
	payload := make([]byte, size)
	_, err = io.ReadFull(c.in, payload)
	must(c.t, err)
	return string(payload)
}

// connect connects to the main namespace and returns the private id.
func (c *rawClient) connect(auth string) (pid string) {
	c.t.Helper()
	c.send("40" + auth)
	var body struct{ PID string }
	m := c.next()
	if !strings.HasPrefix(m, "40{") || json.Unmarshal([]byte(m[2:]), &body) != nil {
		c.t.Fatalf("CONNECT was answered %q", m)
	}
	return body.PID
}

// wantRecovery connects and checks that the client gets a private id and offsets,
// or neither.
func (c *rawClient) wantRecovery(n *testNode, auth string, want bool) {
	c.t.Helper()
	pid := c.connect(auth)
	if got := pid != ""; got != want {
		c.t.Errorf("got a private id: %v, want %v", got, want)
	}
	must(c.t, n.Emit(c.t.Context(), "chat", "hello"))
	const clean = `42["chat","hello"]`
	if m := c.next(); (m == clean) == want {
		c.t.Errorf("got event %s, want an offset: %v", m, want)
	}
}

// The handshakes of client libraries: the query and the headers as they send them.
// docs/clients.md says which were recorded and which were taken from the library's source.
var handshakes = []struct {
	client         string
	query, headers string
	recovers       bool
}{
	{"npm, Node.js, polling", "EIO=4&transport=polling&t=uax1tyqy",
		"User-Agent: node-XMLHttpRequest\nAccept: */*\n", true},
	{"npm, Node.js, WebSocket", "EIO=4&transport=websocket",
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n", true},
	{"npm, Node.js, WebSocket, own query", "room=a&EIO=4&transport=websocket",
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n", true},
	{"npm, Node.js, its Fetch", "EIO=4&transport=polling&t=uax1tyqy",
		"Accept: */*\nAccept-Language: *\nSec-Fetch-Mode: cors\nUser-Agent: node\n", true},
	{"npm, Node.js, its WebSocket", "EIO=4&transport=websocket",
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\nSec-Fetch-Mode: websocket\nUser-Agent: node\n", true},
	{"npm, browser, polling", "EIO=4&transport=polling&t=uax1tyqy",
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\nAccept: */*\n", true},
	{"npm, browser, WebSocket", "EIO=4&transport=websocket",
		"User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:133.0) Gecko/20100101 Firefox/133.0\n" +
			"Sec-WebSocket-Extensions: permessage-deflate\n", true},
	{"npm, React Native, Android, polling", "EIO=4&transport=polling&t=uax1tyqy",
		"User-Agent: okhttp/4.9.2\nAccept: */*\n", true},
	{"npm, Node.js, WebSocket, limited window", "EIO=4&transport=websocket",
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10\n", true},
	{"npm, Node.js, WebSocket, no takeover", "EIO=4&transport=websocket",
		"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_max_window_bits\n", true},
	{"npm, React Native, Android, polling, own query", "access_token=x&EIO=4&transport=polling&t=uax1tyqy",
		"User-Agent: okhttp/4.9.2\nAccept: */*\n", true},
	{"npm, React Native, Android, polling as base64", "EIO=4&transport=polling&t=uax1tyqy&b64=1",
		"User-Agent: okhttp/4.9.2\nAccept: */*\n", true},
	{"npm, React Native, Android, WebSocket", "EIO=4&transport=websocket",
		"Origin: http://h\nSec-WebSocket-Extensions: permessage-deflate\nUser-Agent: okhttp/4.9.2\n", true},
	{"npm, React Native, iOS, polling", "EIO=4&transport=polling&t=uax1tyqy",
		"User-Agent: Shop/1 CFNetwork/1410.0.3 Darwin/22.6.0\nAccept: */*\n", true},
	{"npm, React Native, iOS, WebSocket", "EIO=4&transport=websocket",
		"Origin: http://h\n", true},

	{"python-socketio, requests, polling", "transport=polling&EIO=4&t=1795896324.4258533",
		"User-Agent: python-requests/2.28.1\nAccept-Encoding: gzip, deflate\nAccept: */*\n", false},
	{"python-socketio, websocket-client", "transport=websocket&EIO=4&t=1795896324.4302678",
		"Origin: http://h\n", false},
	{"python-socketio, aiohttp, polling", "transport=polling&EIO=4&t=1795896324.4258533",
		"User-Agent: Python/3.11 aiohttp/3.8.4\nAccept: */*\nAccept-Encoding: gzip, deflate\n", false},
	{"python-socketio, aiohttp, WebSocket", "transport=websocket&EIO=4&t=1795896324.4302678",
		"User-Agent: Python/3.11 aiohttp/3.8.4\nAccept: */*\n", false},
	{"Dart, polling", "EIO=4&transport=polling&t=P6xk2Qa",
		"User-Agent: Dart/3.5 (dart:io)\nAccept: */*\nAccept-Encoding: gzip\n", false},
	{"Dart, WebSocket", "EIO=4&transport=websocket",
		"User-Agent: Dart/3.5 (dart:io)\nCache-Control: no-cache\n" +
			"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n", false},
	{"Swift, polling", "transport=polling&b64=1&EIO=4",
		"User-Agent: Shop/1 CFNetwork/1410.0.3 Darwin/22.6.0\nAccept: */*\n", false},
	{"Swift, WebSocket", "transport=websocket&EIO=4",
		"Origin: http://h\n", false},
	{"Java, polling", "t=P6xk2Qa&EIO=4&transport=polling",
		"User-Agent: okhttp/3.12.12\nAccept: */*\nAccept-Encoding: gzip\n", false},
	{"Java, polling, own query", "EIO=4&transport=polling&t=P6xk2Qa&token=abc",
		"User-Agent: okhttp/3.12.12\nAccept: */*\nAccept-Encoding: gzip\n", false},
	{"Java, polling, own query in front", "access_token=abc&EIO=4&transport=polling&t=P6xk2Qa",
		"User-Agent: okhttp/4.12.0\nAccept: */*\nAccept-Encoding: gzip\n", false},
	{"Java, polling, second request of a millisecond", "access_token=abc&EIO=4&transport=polling&t=P6xk2Qa.0",
		"User-Agent: okhttp/4.12.0\nAccept: */*\nAccept-Encoding: gzip\n", false},
	{"Java, WebSocket", "EIO=4&transport=websocket",
		"User-Agent: okhttp/3.12.12\nAccept-Encoding: gzip\nSec-WebSocket-Extensions: permessage-deflate\n", false},
	{"C++", "EIO=4&transport=websocket&t=1795896324",
		"User-Agent: WebSocket++/0.8.2\n", false},
	{".NET on iOS, polling, own query", "EIO=4&transport=polling&token=x",
		"User-Agent: Shop/1 CFNetwork/1410.0.3 Darwin/22.6.0\nAccept: */*\n", false},
	{".NET, polling", "EIO=4&transport=polling", "", false},
	{".NET, WebSocket", "EIO=4&transport=websocket&token=x", "", false},
	{"an unknown client", "EIO=4&transport=websocket", "User-Agent: myclient/1.0\n", false},
}

// A client that cannot recover gets neither a private id nor offsets, which it
// would pass to its user's handlers.
func TestRecoveryByClient(t *testing.T) {
	n := start(t, Options{})
	for _, h := range handshakes {
		t.Run(h.client, func(t *testing.T) {
			n.handshakeOf(t, h.query, h.headers).wantRecovery(n, "", h.recovers)
		})
	}
}

// The client's own choice has precedence over the server's conclusion, and that for the
// namespace over that for the connection.
func TestRecoveryByChoice(t *testing.T) {
	n := start(t, Options{})
	for _, test := range []struct {
		name, query, auth string
		stock             bool
		want              bool
	}{
		{"query true", "recovery=true&", "", false, true},
		{"query 1", "recovery=1&", "", false, true},
		{"query false", "recovery=false&", "", true, false},
		{"query 0", "recovery=0&", "", true, false},
		{"query other", "recovery=perhaps&", "", false, false},
		{"query other, stock", "recovery=perhaps&", "", true, true},
		{"auth true", "", `{"recovery":true}`, false, true},
		{"auth false", "", `{"recovery":false}`, true, false},
		{"auth text", "", `{"recovery":"false"}`, true, false},
		{"auth other", "", `{"recovery":{"by":"mail"}}`, true, true},
		{"auth over query", "recovery=false&", `{"recovery":true}`, false, true},
		{"auth over query, false", "recovery=true&", `{"recovery":false}`, true, false},
		{"a pid", "", `{"pid":"0123456789abcdef-_AZ","offset":""}`, false, true},
		{"a pid, but false", "", `{"pid":"0123456789abcdef-_AZ","recovery":false}`, true, false},
		{"a pid, but query false", "recovery=false&", `{"pid":"0123456789abcdef-_AZ"}`, true, false},
		{"a pid of the application", "", `{"pid":"player-7"}`, false, false},
		{"a long pid of the application", "", `{"pid":"player 7 of the team"}`, false, false},
		{"query twice, first malformed", "recovery=&recovery=false&", "", true, false},
		{"query twice", "recovery=false&recovery=true&", "", true, false},
		{"auth 0", "", `{"recovery":0}`, true, false},
		{"auth 1", "", `{"recovery":1}`, false, true},
		{"auth 2", "", `{"recovery":2}`, true, true},
		{"auth null", "", `{"recovery":null}`, false, false},
		{"auth of the application", "", `{"recovery":false,"Recovery":true}`, true, false},
		{"another value", "", `{"note":"\"recovery\""}`, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			headers := ""
			if test.stock {
				headers = "User-Agent: Mozilla/5.0\n"
			}
			n.handshakeOf(t, test.query+"EIO=4&transport=websocket", headers).wantRecovery(n, test.auth, test.want)
		})
	}
}

// An application decides for the clients that do not, by namespace.
func TestRecoveryByNamespace(t *testing.T) {
	n := start(t, Options{Recovers: func(namespace string, h *engineio.Handshake) bool {
		if h.Query().Get("panic") != "" {
			panic("on purpose")
		}
		return namespace == "/" && h.Header.Get("X-App") == "new"
	}})
	n.Of("/other")
	const query = "EIO=4&transport=websocket"
	n.handshakeOf(t, query, "X-App: new\n").wantRecovery(n, "", true)
	n.handshakeOf(t, query, "User-Agent: Mozilla/5.0\n").wantRecovery(n, "", false)
	n.handshakeOf(t, query, "User-Agent: Mozilla/5.0\n").wantRecovery(n, `{"recovery":true}`, true)
	n.handshakeOf(t, "panic=1&"+query, "X-App: new\n").wantRecovery(n, "", false)
	other := n.handshakeOf(t, query, "X-App: new\n")
	other.send("40/other,")
	if m := other.next(); strings.Contains(m, "pid") {
		t.Errorf("in another namespace: %s", m)
	}
}

// If recovery is disabled, no client can choose it.
func TestRecoveryOffForAll(t *testing.T) {
	n := start(t, Options{RecoveryWindow: -1})
	c := n.handshakeOf(t, "recovery=true&EIO=4&transport=websocket", "User-Agent: Mozilla/5.0\n")
	c.wantRecovery(n, `{"recovery":true,"pid":"x"}`, false)
}

// countedStore counts the sessions that are created.
type countedStore struct {
	session.Store
	created int
}

func (s *countedStore) Create(ctx context.Context, v session.Session, ttl time.Duration) error {
	s.created++
	return s.Store.Create(ctx, v, ttl)
}

// A client without recovery has everything else: rooms, acks, order. No session
// is stored for it, and after a reconnect it is a new socket.
func TestClientWithoutRecovery(t *testing.T) {
	store := &countedStore{Store: session.NewMemory()}
	n := start(t, Options{Sessions: store})
	joining(n.Namespace)
	recovered := make(chan bool, 2)
	n.OnConnect(func(s *Socket) { recovered <- s.Recovered() })
	open := func() *wire {
		w := n.dial(t)
		return w.connect("/", `{"recovery":false}`)
	}
	a := open()
	if got := a.call(`["join","r"]`); got != `["ok"]` {
		t.Fatalf("join was acked %s, want %s", got, `["ok"]`)
	}
	for i := range 3 {
		must(t, n.To("r").Emit(t.Context(), "n", i))
	}
	for i := range 3 {
		if m, want := a.next(), "42"+numbered(i); m != want {
			t.Fatalf("got %s, want %s", m, want)
		}
	}
	asked := make(chan Args, 1)
	go func() {
		args, _ := n.Socket(a.sid).EmitWithAck(t.Context(), "ask", 1)
		asked <- args
	}()
	id := strings.TrimSuffix(strings.TrimPrefix(a.next(), "42"), `["ask",1]`)
	a.write("43" + id + `["yes"]`)
	var answer string
	if args := <-asked; args.Bind(&answer) != nil || answer != "yes" {
		t.Errorf("the ack was %q", answer)
	}
	first := a.sid
	a.cut()
	b := open()
	if b.sid == first || <-recovered || <-recovered {
		t.Error("it was recovered")
	}
	if store.created != 0 {
		t.Errorf("%d sessions were stored, want 0", store.created)
	}
}

// One event is encoded once for all clients with recovery and once for all
// others.
func TestEventIsEncodedTwiceAtMost(t *testing.T) {
	n := start(t, Options{})
	open := func(auth string) *Socket { return n.Socket(n.dial(t).connect("/", auth).sid) }
	with, without := open(""), open(`{"recovery":false}`)
	if !with.recovers || without.recovers {
		t.Fatalf("recovery: %v, %v", with.recovers, without.recovers)
	}
	d := n.newDelivery(&adapter.Event{Data: []byte(`["n",1]`), Cursor: adapter.NewCursor("E", 0, []adapter.Position{{Ms: 1}})})
	for _, s := range []*Socket{with, without} {
		if first, again := d.encode(&d.cursor, s.recovers), d.encode(&d.cursor, s.recovers); &first[0] != &again[0] {
			t.Errorf("recovery %v: encoded again", s.recovers)
		}
	}
	if a, b := d.encode(&d.cursor, true), d.encode(&d.cursor, false); &a[0] == &b[0] {
		t.Error("the same packets with and without an offset")
	}
}
