package wire

import (
	"bufio"
	"compress/gzip"
	"compress/zlib"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// patience bounds every wait for the server.
const patience = 10 * time.Second

// play has one conversation with a server.
func play(t *testing.T, s scenario, srv *server) {
	t.Helper()
	p := &player{
		server: srv,
		vars: variables{
			"polling":   "/socket.io/?recovery=true&EIO=4&transport=polling",
			"websocket": "/socket.io/?recovery=true&EIO=4&transport=websocket",
			"host":      srv.addr,
		},
		peers: map[string]*peer{},
	}
	defer p.hangUp()
	for _, step := range s.steps {
		if err := p.do(step); err != nil {
			t.Fatalf("%v\n%v", step, err)
		}
	}
}

// A player has a conversation with one server, as any number of peers.
type player struct {
	server *server
	vars   variables
	peers  map[string]*peer
}

func (p *player) hangUp() {
	for _, peer := range p.peers {
		peer.drop()
	}
}

func (p *player) do(s step) error {
	text := s.text
	if s.verb != "<" {
		filled, err := p.vars.fill(text)
		if err != nil {
			return err
		}
		text = filled
	}
	if s.actor == "server" {
		if s.verb == ">" {
			return p.server.command(text)
		}
		_, err := p.server.seen.Take(patience, func(line string) bool { return p.vars.match(text, line) == nil })
		return err
	}
	if strings.Contains(s.actor, "/") {
		return p.eitherGets(strings.Split(s.actor, "/"), text)
	}
	c := p.peer(s.actor)
	switch s.verb {
	case ":":
		name, value, _ := strings.Cut(text, ": ")
		c.header.Set(name, value)
		return nil
	case "drop":
		c.drop()
		return nil
	case "reset":
		return c.reset()
	case ">":
		return c.send(p.server.addr, text)
	}
	return c.expect(text, p.vars)
}

func (p *player) peer(name string) *peer {
	if p.peers[name] == nil {
		p.peers[name] = &peer{header: http.Header{}}
	}
	return p.peers[name]
}

// eitherGets checks that one of several peers has the answer; the others keep
// theirs for a later step.
func (p *player) eitherGets(names []string, pattern string) error {
	var failed []error
	for _, name := range names {
		c := p.peer(name)
		if c.answered {
			continue
		}
		err := c.expect(pattern, p.vars)
		if err == nil {
			return nil
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// A peer is one client connection: an HTTP request at a time, or a WebSocket.
type peer struct {
	header http.Header // of the next request
	conn   net.Conn
	method string
	in     *bufio.Reader
	ws     *websocket.Conn

	response *http.Response // the last one, its body read
	body     string
	answered bool // a step expected this response
}

func (c *peer) send(addr, text string) error {
	verb, rest, _ := strings.Cut(text, " ")
	switch {
	case verb == "ws":
		return c.dial(addr, rest)
	case verb == "part":
		_, err := io.WriteString(c.conn, rest)
		return err
	case c.ws == nil:
		url, body, hasBody := strings.Cut(rest, " ")
		return c.request(addr, verb, url, body, hasBody)
	case text == "close":
		return c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(patience))
	case verb == "binary":
		b, err := hex.DecodeString(rest)
		if err != nil {
			return err
		}
		return c.ws.WriteMessage(websocket.BinaryMessage, b)
	}
	return c.ws.WriteMessage(websocket.TextMessage, []byte(text))
}

// request sends one HTTP request on a connection of its own. It does not wait
// for the answer.
func (c *peer) request(addr, method, url, body string, hasBody bool) error {
	c.drop()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	c.conn, c.in, c.method = conn, bufio.NewReader(conn), method
	c.response, c.answered = nil, false
	header := c.header
	c.header = http.Header{}
	if hasBody && header.Get("Content-Length") == "" {
		header.Set("Content-Length", fmt.Sprint(len(body)))
	}
	if hasBody && header.Get("Content-Type") == "" {
		header.Set("Content-Type", "text/plain;charset=UTF-8")
	}
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, url, addr)
	if err := header.Write(&head); err != nil {
		return err
	}
	// A server may answer before it has read all of a body; only the answer
	// counts.
	_, err = io.WriteString(conn, head.String()+"\r\n"+body)
	if len(body) > 1<<16 {
		return nil
	}
	return err
}

func (c *peer) dial(addr, url string) error {
	c.drop()
	if url == "" {
		url = "/socket.io/?recovery=true&EIO=4&transport=websocket"
	}
	header := c.header
	c.header = http.Header{}
	dialer := websocket.Dialer{
		HandshakeTimeout:  patience,
		EnableCompression: header.Get("X-Compression") != "",
		NetDial: func(network, addr string) (net.Conn, error) {
			conn, err := net.DialTimeout(network, addr, patience)
			c.conn = conn
			return conn, err
		},
	}
	header.Del("X-Compression")
	ws, response, err := dialer.Dial("ws://"+addr+url, header)
	c.ws, c.response, c.answered = ws, response, false
	if response == nil {
		return err
	}
	b, readErr := io.ReadAll(response.Body)
	c.body = string(b)
	return readErr
}

func (c *peer) expect(pattern string, vars variables) error {
	switch kind, rest, _ := strings.Cut(pattern, " "); {
	case kind == "refused":
		if c.ws != nil {
			return errors.New("the WebSocket was accepted")
		}
		return c.matchAnswer(rest, vars)
	case kind == "header":
		return c.matchHeader(rest, vars)
	case kind == "no" && strings.HasPrefix(rest, "header "):
		name := strings.TrimPrefix(rest, "header ")
		if got := c.response.Header.Values(name); got != nil {
			return fmt.Errorf("got header %s: %v", name, got)
		}
		return nil
	case c.ws == nil:
		if c.conn == nil {
			return errors.New("nothing was asked, or the WebSocket was refused")
		}
		if err := c.readAnswer(); err != nil {
			return err
		}
		return c.matchAnswer(pattern, vars)
	}
	return vars.match(pattern, c.nextFrame())
}

// readAnswer reads the answer to the last request, if that is still to come.
func (c *peer) readAnswer() error {
	if c.response != nil && !c.answered {
		return nil
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	response, err := http.ReadResponse(c.in, &http.Request{Method: c.method})
	if err != nil {
		return err
	}
	body := io.Reader(response.Body)
	switch response.Header.Get("Content-Encoding") {
	case "gzip":
		if body, err = gzip.NewReader(body); err != nil {
			return err
		}
	case "deflate":
		if body, err = zlib.NewReader(body); err != nil {
			return err
		}
	}
	b, err := io.ReadAll(body)
	c.response, c.body, c.answered = response, string(b), false
	return err
}

// matchAnswer compares status and body. A pattern without a body leaves that
// open; (empty) means that there is none.
func (c *peer) matchAnswer(pattern string, vars variables) error {
	status, want, hasBody := strings.Cut(pattern, " ")
	if err := vars.match(status, fmt.Sprint(c.response.StatusCode)); err != nil {
		return fmt.Errorf("%w\nbody %s", err, excerpt(c.body))
	}
	if want == "(empty)" {
		want = ""
	}
	if hasBody {
		if err := vars.match(want, c.body); err != nil {
			return err
		}
	}
	c.answered = true
	return nil
}

func (c *peer) matchHeader(pattern string, vars variables) error {
	name, want, _ := strings.Cut(pattern, ": ")
	return vars.match(want, strings.Join(c.response.Header.Values(name), ", "))
}

// nextFrame returns the next frame as scripts write it: its text, binary and
// its hex digits, or closed and the code.
func (c *peer) nextFrame() string {
	if err := c.ws.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err.Error()
	}
	kind, b, err := c.ws.ReadMessage()
	var closed *websocket.CloseError
	var timeout net.Error
	switch {
	case err == nil && kind == websocket.BinaryMessage:
		return "binary " + hex.EncodeToString(b)
	case err == nil:
		return string(b)
	case errors.As(err, &closed):
		return fmt.Sprint("closed ", closed.Code)
	case errors.As(err, &timeout) && timeout.Timeout():
		return "nothing"
	default:
		return "closed 1006"
	}
}

// drop ends the connection without a word.
func (c *peer) drop() {
	if c.conn != nil {
		c.conn.Close()
	}
	c.conn, c.ws = nil, nil
}

// reset ends the connection with a TCP reset.
func (c *peer) reset() error {
	if err := c.conn.(*net.TCPConn).SetLinger(0); err != nil {
		return err
	}
	c.drop()
	return nil
}
