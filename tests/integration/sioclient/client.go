// Package sioclient is a Socket.IO client for tests that need hundreds of them.
// In all that affects recovery it behaves as the stock client: events that
// arrive before CONNECT are buffered until CONNECT, across connections; and the
// offset moves after the handler of an event has returned, and only then.
package sioclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Options are a client's options.
type Options struct {
	URL       string                // ws://host:port
	Namespace string                // "" is the main one
	Auth      func() map[string]any // sent with CONNECT, asked for each time; nil is nothing
	OnEvent   func(Event)           // called for one event after another; nil ignores them
}

// An Event is an event of the server. The last argument is the offset, if the
// server sends one.
type Event struct {
	Name string
	Args []json.RawMessage
}

// ErrDisconnected: the connection ended before the answer came.
var ErrDisconnected = errors.New("sioclient: disconnected")

// A Client is one socket on a WebSocket of its own. Connect and Cut have one
// caller at a time; the other methods may be called by anyone.
type Client struct {
	o Options

	reading sync.WaitGroup

	mu        sync.Mutex
	url       string
	conn      *websocket.Conn
	left      *websocket.Conn // by Vanish: open, but not read
	ended     chan struct{}   // closed with the end of conn
	engine    string          // the connection's id, which begins with its node's
	silence   time.Duration   // of the server, after which the connection counts as dead
	id        string
	pid       string
	offset    string
	recovered bool
	early     []Event // came before CONNECT
	lastAsk   int
	asks      map[string]chan []json.RawMessage
}

// New returns a client that is not connected yet.
func New(o Options) *Client {
	ended := make(chan struct{})
	close(ended)
	return &Client{o: o, url: o.URL, ended: ended, asks: map[string]chan []json.RawMessage{}}
}

// Connect opens a connection and joins the namespace, with the client's state
// from earlier connections. It returns once the server has answered; a refusal
// is an error with the server's message.
func (c *Client) Connect(ctx context.Context) error {
	url := locked(c, func() string { return c.url })
	conn, _, err := websocket.DefaultDialer.DialContext(ctx, url+"/socket.io/?recovery=true&EIO=4&transport=websocket", nil)
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(deadline)
	}
	if err := c.join(conn); err != nil {
		_ = conn.Close()
		return err
	}
	c.alive(conn)
	c.reading.Go(func() { c.read(conn) })
	return nil
}

// Roam makes the next Connect go to another URL.
func (c *Client) Roam(url string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.url = url
}

// alive gives the server as much time for its next ping as the stock client
// does.
func (c *Client) alive(conn *websocket.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn != c.left { // Vanish has ended the reading
		_ = conn.SetReadDeadline(time.Now().Add(c.silence))
	}
}

// join waits for the CONNECT to be answered.
func (c *Client) join(conn *websocket.Conn) error {
	auth := map[string]any{}
	if c.o.Auth != nil {
		maps.Copy(auth, c.o.Auth())
	}
	c.mu.Lock()
	if c.pid != "" {
		auth["pid"] = c.pid
		if c.offset != "" {
			auth["offset"] = c.offset
		}
	}
	c.mu.Unlock()
	payload, err := json.Marshal(auth)
	if err != nil {
		return err
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte("40"+c.prefix()+string(payload))); err != nil {
		return err
	}
	for {
		_, frame, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		text := string(frame)
		switch {
		case strings.HasPrefix(text, "0"):
			err = c.opened(text[1:])
		case strings.HasPrefix(text, "40"):
			return c.connected(conn, text[2:])
		case strings.HasPrefix(text, "44"):
			return fmt.Errorf("sioclient: refused: %s", text[2:])
		default:
			err = c.take(conn, text, false)
		}
		if err != nil {
			return err
		}
	}
}

func (c *Client) opened(handshake string) error {
	var h struct {
		SID                       string
		PingInterval, PingTimeout time.Duration // milliseconds
	}
	if err := json.Unmarshal([]byte(handshake), &h); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.engine, c.silence = h.SID, (h.PingInterval+h.PingTimeout)*time.Millisecond
	return nil
}

func (c *Client) connected(conn *websocket.Conn, answer string) error {
	var who struct{ SID, PID string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(answer, c.prefix())), &who); err != nil {
		return err
	}
	c.mu.Lock()
	c.conn, c.id, c.ended = conn, who.SID, make(chan struct{})
	c.recovered = who.PID != "" && who.PID == c.pid
	c.pid = who.PID
	early := c.early
	c.early = nil
	c.mu.Unlock()
	for _, e := range early {
		c.handle(e)
	}
	return nil
}

// prefix names the namespace in a packet.
func (c *Client) prefix() string {
	if c.o.Namespace == "" || c.o.Namespace == "/" {
		return ""
	}
	return c.o.Namespace + ","
}

func (c *Client) read(conn *websocket.Conn) {
	for {
		_, frame, err := conn.ReadMessage()
		if err == nil {
			err = c.take(conn, string(frame), true)
		}
		if err != nil {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left != conn {
		_ = conn.Close()
	}
	if c.conn == conn {
		c.conn = nil
		close(c.ended)
	}
	for id, waiting := range c.asks {
		close(waiting)
		delete(c.asks, id)
	}
}

func (c *Client) write(conn *websocket.Conn, text string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return conn.WriteMessage(websocket.TextMessage, []byte(text))
}

// Emit sends an event.
func (c *Client) Emit(event string, args ...any) error {
	return c.send("", event, args)
}

// Ask emits and waits for the acknowledgement.
func (c *Client) Ask(ctx context.Context, event string, args ...any) ([]json.RawMessage, error) {
	c.mu.Lock()
	c.lastAsk++
	id, waiting := strconv.Itoa(c.lastAsk), make(chan []json.RawMessage, 1)
	c.asks[id] = waiting
	c.mu.Unlock()
	if err := c.send(id, event, args); err != nil {
		return nil, err
	}
	select {
	case answer, ok := <-waiting:
		if !ok {
			return nil, ErrDisconnected
		}
		return answer, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("sioclient: %s: no answer: %w", event, ctx.Err())
	}
}

func (c *Client) send(id, event string, args []any) error {
	body, err := json.Marshal(append([]any{event}, args...))
	if err != nil {
		return err
	}
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return ErrDisconnected
	}
	return c.write(conn, "42"+c.prefix()+id+string(body))
}

// Cut resets the connection, as a network does, and returns once no more events
// come from it.
func (c *Client) Cut() {
	c.forget()
	if conn := locked(c, func() *websocket.Conn { return c.conn }); conn != nil {
		if tcp, ok := conn.NetConn().(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	c.reading.Wait()
}

// Vanish is Cut without notice to the server, as when a phone leaves its network:
// the connection stays open, but is not read. The next Vanish or Cut closes it.
func (c *Client) Vanish() {
	c.forget()
	c.mu.Lock()
	if c.left = c.conn; c.left != nil {
		_ = c.left.SetReadDeadline(time.Now())
	}
	c.mu.Unlock()
	c.reading.Wait()
}

// forget closes the connection that Vanish has left.
func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left != nil {
		_ = c.left.Close()
		c.left = nil
	}
}

// ID returns the socket's public id.
func (c *Client) ID() string { return locked(c, func() string { return c.id }) }

// Engine returns the id of the connection, which begins with its node's.
func (c *Client) Engine() string { return locked(c, func() string { return c.engine }) }

// Ended is closed once the connection has ended; before the first, too.
func (c *Client) Ended() <-chan struct{} { return locked(c, func() chan struct{} { return c.ended }) }

// Offset returns the offset that the client will present.
func (c *Client) Offset() string { return locked(c, func() string { return c.offset }) }

// Recovered reports whether the last connection was recovered.
func (c *Client) Recovered() bool { return locked(c, func() bool { return c.recovered }) }

// Connected reports whether the client is connected.
func (c *Client) Connected() bool { return locked(c, func() bool { return c.conn != nil }) }

func locked[T any](c *Client, get func() T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return get()
}
